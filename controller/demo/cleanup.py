"""Removes everything that a run left at the broker, restores the settings, and reads back that both succeeded."""

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
from controller.demo.broker import DemoBroker
from controller.demo.mqtt_client import REFUSED, DemoMqttClient
from controller.demo.options import DemoError
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import BrokerNotFoundError, ControllerError
from schemas.topics import UpChannel, parse_up, up

CLEAN_SECONDS: Final = 60.0
_CONSISTENT_SECONDS: Final = 10.0  # until all nodes of a cluster show the same
_POLL_SECONDS: Final = 0.2
_RETAINED_SECONDS: Final = 0.5  # in which retained messages would come after subscribing
_CONCURRENCY: Final = 8  # devices


@dataclass(frozen=True, slots=True)
class BrokerFootprint:
    """What a run leaves at the broker: its clients, its rule for telemetry, and the settings from before the run."""

    controller_id: str
    device_ids: tuple[str, ...]
    other_clients: tuple[str, ...]
    telemetry_rule: AccessRule
    settings: str  # everything that `cordon init` may change, as `EmqxSetup.undo` takes it


async def allow_telemetry(emqx: EmqxBroker, rule: AccessRule) -> None:
    """Allows the run's telemetry where other rules for all, or `no_match = deny`, would refuse it."""
    rules = await read_all_rules(emqx.api)
    ours = len(rules_for_all())
    await emqx.api.send(requests.write_all_rules((*rules[:ours], rule, *rules[ours:])))


async def clean_up(broker: DemoBroker, emqx: EmqxBroker, footprint: BrokerFootprint) -> None:
    """Removes bans, rules, sessions and retained messages of the run, and restores the settings.

    The run's processes have ended. A failure keeps nothing else from being removed.

    Raises:
        DemoError: something is left, or the time is over.
    """
    left: list[str] = []
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def each(work: Awaitable[Sequence[str]]) -> None:
        try:
            async with gate:
                left.extend(await work)
        except ControllerError as e:
            left.append(str(e))

    try:
        async with asyncio.timeout(CLEAN_SECONDS):
            async with asyncio.TaskGroup() as group:
                for device_id in footprint.device_ids:
                    group.create_task(each(_remove_device(emqx, device_id)))
            await each(_retained(broker, footprint))  # needs the controller's rules, which are removed next
            for client_id in (footprint.controller_id, *footprint.other_clients):
                await each(_kick(emqx, client_id))
            await each(_restore_settings(emqx, footprint))
            await each(_remaining(emqx, footprint))
    except TimeoutError as e:
        raise DemoError(f"the broker could not be cleaned up within {CLEAN_SECONDS:g} s") from e
    if left:
        raise DemoError(f"the broker is not as it was before: {'; '.join(left)}")


async def _remove_device(emqx: EmqxBroker, device_id: str) -> Sequence[str]:
    api, device = emqx.api, Subject.client(device_id)
    ban = await find_ban(api, partial(requests.read_ban, device), device)
    if ban is not None and ban.is_ours:
        await api.send(requests.lift_ban(device))
    await api.send(requests.delete_rules(device))
    await api.send(requests.kick(device_id))
    # After the session: its last will is retained too.
    await api.send(requests.publish(up(device_id, UpChannel.STATUS), b"", retain=True))
    return ()


async def _kick(emqx: EmqxBroker, client_id: str) -> Sequence[str]:
    await emqx.api.send(requests.kick(client_id))
    return ()


async def _restore_settings(emqx: EmqxBroker, footprint: BrokerFootprint) -> Sequence[str]:
    rules = await read_all_rules(emqx.api)
    if footprint.telemetry_rule in rules:
        others = tuple(rule for rule in rules if rule != footprint.telemetry_rule)
        await emqx.api.send(requests.write_all_rules(others))
    return await EmqxSetup(emqx.api).undo(footprint.settings)


async def _retained(broker: DemoBroker, footprint: BrokerFootprint) -> list[str]:
    """The devices of the run that still have a retained status."""
    retained: set[str] = set()

    def on_message(topic: str, payload: bytes, _moment: float) -> None:
        device_id = parse_up(topic).device_id
        if payload and device_id in footprint.device_ids:
            retained.add(device_id)

    async with DemoMqttClient(broker, footprint.controller_id, on_message=on_message) as client:
        code = await client.subscribe(up("+", UpChannel.STATUS))
        if code >= REFUSED:
            return [f"retained messages could not be read: the subscription was refused with {code}"]
        await asyncio.sleep(_RETAINED_SECONDS)
    return [f"the retained status of {device_id} is still there" for device_id in sorted(retained)]


async def _remaining(emqx: EmqxBroker, footprint: BrokerFootprint) -> list[str]:
    """The differences to the state before the run, read until there are none or the time is over."""
    deadline = asyncio.get_running_loop().time() + _CONSISTENT_SECONDS
    while differences := await _differences(emqx, footprint):
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(_POLL_SECONDS)
    return differences


async def _differences(emqx: EmqxBroker, footprint: BrokerFootprint) -> list[str]:
    clients = {*footprint.device_ids, *footprint.other_clients, footprint.controller_id}
    found = [f"a ban of {ban.who}" async for ban in emqx.bans() if ban.who in clients]
    found += _changed_settings(footprint.settings, await EmqxSetup(emqx.api).state(footprint.controller_id))
    with contextlib.suppress(BrokerNotFoundError):  # without its database the broker holds no rules at all
        rows = emqx.api.rows(requests.list_client_rules)
        found += [f"rules of {row.clientid}" async for row in rows if row.clientid in footprint.device_ids]
    gate = asyncio.Semaphore(_CONCURRENCY)

    async def session(client_id: str) -> str:
        async with gate:
            client = await emqx.api.send(requests.read_client(client_id))
        return "" if client is None else f"a session of {client_id}"

    async with asyncio.TaskGroup() as group:
        sessions = [group.create_task(session(client_id)) for client_id in sorted(clients)]
    return found + [text for task in sessions if (text := task.result())]


def _changed_settings(before: str, now: str) -> list[str]:
    """Compares two texts of `EmqxSetup.state`."""
    old, new = json.loads(before), json.loads(now)
    names = [name for name in old if old[name] != new[name]]
    return ["settings differ: " + ", ".join(names)] if names else []
