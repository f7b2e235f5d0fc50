"""Leaves a broker as it was found: removes everything that a run put there, and looks whether it is gone."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import find_ban
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.emqx.setup.baseline import read_all_rules, rules_for_all
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.demo.access import DemoBrokerAccess
from controller.demo.mqtt_client import DemoMqttClient
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import BrokerNotFoundError, ControllerError
from schemas.topics import UpChannel, parse_up, up

LOOK_SECONDS: Final = 10.0  # until a cluster has agreed
_POLL_SECONDS: Final = 0.2
_RETAINED_SECONDS: Final = 0.5  # in which retained messages would come after subscribing
_AT_ONCE: Final = 8  # devices


@dataclass(frozen=True, slots=True)
class BrokerFootprint:
    """What a run makes at the broker: its devices, its other clients, and the settings from before the run."""

    controller_id: str
    settings: str  # everything that `cordon init` may change, as `EmqxSetup.undo` takes it
    device_ids: tuple[str, ...]
    other_clients: tuple[str, ...]
    fleet_filter: str  # of the run's own messages


async def open_fleet_topics(broker: EmqxBroker, fleet_filter: str) -> None:
    """Let the run's own messages pass where other rules for all, or `no_match = deny`, would stop them."""
    rules = await read_all_rules(broker.api)
    ours = len(rules_for_all())
    await broker.api.send(requests.write_all_rules((*rules[:ours], _fleet_rule(fleet_filter), *rules[ours:])))


def _fleet_rule(fleet_filter: str) -> AccessRule:
    return AccessRule(fleet_filter, "allow", "all")


async def remove(broker: EmqxBroker, traces: BrokerFootprint, access: DemoBrokerAccess) -> list[str]:
    """Remove bans, rules, sessions and retained messages of the run, and restore the settings; what is left, in words.

    The run's processes have ended before. What fails is told, and keeps nothing else from being removed.
    """
    left: list[str] = []
    gate = asyncio.Semaphore(_AT_ONCE)

    async def each(work: Awaitable[Sequence[str]]) -> None:
        try:
            async with gate:
                left.extend(await work)
        except ControllerError as e:
            left.append(str(e))

    async with asyncio.TaskGroup() as group:
        for device_id in traces.device_ids:
            group.create_task(each(_remove_device(broker, device_id)))
    await each(_retained(traces, access))  # needs the controller's rules, which go below
    for client_id in (traces.controller_id, *traces.other_clients):
        await each(_kick(broker, client_id))
    await each(_restore_settings(broker, traces))
    await each(_settled(broker, traces))
    return left


async def _restore_settings(broker: EmqxBroker, traces: BrokerFootprint) -> Sequence[str]:
    rules = await read_all_rules(broker.api)
    fleet_rule = _fleet_rule(traces.fleet_filter)
    if fleet_rule in rules:
        await broker.api.send(requests.write_all_rules(tuple(rule for rule in rules if rule != fleet_rule)))
    return await EmqxSetup(broker.api).undo(traces.settings)


async def _kick(broker: EmqxBroker, client_id: str) -> Sequence[str]:
    await broker.api.send(requests.kick(client_id))
    return ()


async def _remove_device(broker: EmqxBroker, device_id: str) -> Sequence[str]:
    api, device = broker.api, Subject.client(device_id)
    ban = await find_ban(api, partial(requests.read_ban, device), device)
    if ban is not None and ban.is_ours:
        await api.send(requests.lift_ban(device))
    await api.send(requests.delete_rules(device))
    await api.send(requests.kick(device_id))
    # After the session: its last will is retained too.
    await api.send(requests.publish(up(device_id, UpChannel.STATUS), b"", retain=True))
    return ()


async def _retained(traces: BrokerFootprint, access: DemoBrokerAccess) -> list[str]:
    """The devices of the run that still have a retained status."""
    found: set[str] = set()
    mine = set(traces.device_ids)

    def heard(topic: str, payload: bytes, _moment: float) -> None:
        device_id = parse_up(topic).device_id
        if payload and device_id in mine:
            found.add(device_id)

    async with DemoMqttClient(access, traces.controller_id, heard=heard) as visitor:
        code = await visitor.subscribe(up("+", UpChannel.STATUS))
        if code >= 128:
            return [f"retained messages could not be looked for: subscribing was refused with {code}"]
        await asyncio.sleep(_RETAINED_SECONDS)
    return [f"the retained status of {device_id} is still there" for device_id in sorted(found)]


async def _settled(broker: EmqxBroker, traces: BrokerFootprint) -> list[str]:
    """What is not as it was found, looked at until nothing is or time is up."""
    deadline = asyncio.get_running_loop().time() + LOOK_SECONDS
    while left := await _differences(broker, traces):
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return left


async def _differences(broker: EmqxBroker, traces: BrokerFootprint) -> list[str]:
    clients = {*traces.device_ids, *traces.other_clients, traces.controller_id}
    left = [f"a ban of {ban.who}" async for ban in broker.bans() if ban.who in clients]
    left += _changed(traces.settings, await EmqxSetup(broker.api).state(traces.controller_id))
    devices = set(traces.device_ids)
    rows = broker.api.rows(requests.list_client_rules)
    with contextlib.suppress(BrokerNotFoundError):  # without its database the broker holds no rules at all
        left += [f"rules of {row.clientid}" async for row in rows if row.clientid in devices]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def session_of(client_id: str) -> str:
        async with gate:
            return (
                f"a session of {client_id}"
                if await broker.api.send(requests.read_client(client_id)) is not None
                else ""
            )

    async with asyncio.TaskGroup() as group:
        looks = [group.create_task(session_of(client_id)) for client_id in sorted(clients)]
    return left + [found for look in looks if (found := look.result())]


def _changed(before: str, now: str) -> list[str]:
    """Compares two texts of `EmqxSetup.state`."""
    was, found = json.loads(before), json.loads(now)
    names = [name for name in was if was[name] != found[name]]
    return ["settings differ: " + ", ".join(names)] if names else []
