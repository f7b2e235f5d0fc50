"""The steps of the containment demonstration: what happens, and what has to be observed before the next step."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi, find_ban
from controller.api.client import segment
from controller.demo.containment_context import ContainmentContext, DemoContainmentTiming, ListedDevice
from controller.demo.mqtt_client import DemoMqttClient
from controller.demo.observations import ARRIVED, SimulatorObservation
from controller.demo.options import DemoError
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import is_restriction
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command
from schemas.signing import sign
from schemas.topics import DownChannel, down

NOT_AUTHORIZED: Final = 135
BANNED: Final = 138
KICKED: Final = 152
OLD_OPENSSL: Final = "3.0.11-1~deb12u1"
TELNET: Final = 23
DOCKER: Final = 2375
_IN_FLIGHT_SECONDS: Final = 0.5  # in which a message that the broker has accepted may still arrive
_MIN_REFUSED: Final = 3  # messages, for a cut to be believed
_REPAIR_PROBE_SECONDS: Final = 0.25
_COMMAND_LIFETIME: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step: its name in the result, its title for people, and its work."""

    name: str
    title: str
    work: Callable[[ContainmentContext], Awaitable[None]]


def _is_healthy(row: ListedDevice) -> bool:
    return bool(
        row["level"] == "none" and not row["failing"] and not row["stale"] and row["satisfied"] > 0 and row["online"]
    )


async def healthy(context: ContainmentContext) -> None:
    """Every device has reported, passes, and its telemetry reaches the subscriber."""
    devices, observations = context.options.device_ids, context.observations
    await context.until(
        lambda: all(observations.first(device, "receipt", verdict="accepted") for device in devices) or None,
        "an accepted report of every device",
    )
    context.say(f"{len(devices)} full reports sent, each receipt seen at its device")

    async def all_healthy() -> bool | None:
        rows = await context.api.devices(context.options.prefix)
        return (len(rows) == len(devices) and all(map(_is_healthy, rows.values()))) or None

    await context.answered(all_healthy, "every device passing at the controller's API")
    context.say(f"controller: {len(devices)} devices, all pass, none contained")
    await _all_arrive(context, 0.0)
    context.say(f"subscriber: telemetry of all {len(devices)} devices arrives")


async def _all_arrive(context: ContainmentContext, since: float) -> None:
    devices, find = context.options.device_ids, context.observations.first
    await context.until(
        lambda: all(find(device, ARRIVED, since=since) for device in devices) or None,
        "telemetry of every device at the subscriber",
    )


async def restricted(context: ContainmentContext) -> None:
    """Telnet and an old OpenSSL: everything but repair is refused; repaired by command, released by its report."""
    device = context.roles.telnet
    report = await context.change(device, {"open_port": TELNET, "openssl": OLD_OPENSSL})
    context.say(f"{device} opened telnet and downgraded OpenSSL to {OLD_OPENSSL}, and reported it")
    async with context.probing(device):
        cut = await context.until(
            lambda: next(iter(context.telemetry_acks(device, NOT_AUTHORIZED, report.moment)), None),
            "telemetry refused with PUBACK 135",
            device,
        )
    seconds = cut.moment - report.moment
    context.metrics.contained[device] = DemoContainmentTiming(device, "restricted", seconds)
    context.say(f"device: PUBACK 135 for its telemetry {seconds:.3f} s after it published that report")
    nodes = await context.on_every_node(partial(_is_restricted, device), f"{device}'s restriction")
    context.say(f"broker: the rules of a restriction are on all {nodes} nodes")
    repaired = await _repairs(context, device, cut.moment)
    passing = await context.observed(device, "report_sent", "the passing report", since=repaired, report="full")
    back = await context.telemetry_arrives(device, passing.moment)
    _check_cut(context, device, cut, back)
    await _is_released(context, device, passing, back)


async def _is_restricted(device: str, api: EmqxApi) -> bool:
    return is_restriction(await api.send(requests.read_rules(Subject.client(device))), device)


async def _is_banned(device: str, api: EmqxApi) -> bool:
    subject = Subject.client(device)
    ban = await find_ban(api, partial(requests.read_ban, subject), subject)
    return ban is not None and ban.is_ours


async def _repairs(context: ContainmentContext, device: str, since: float) -> float:
    """Waits until both commands have succeeded at the device; returns when the later one did."""
    moments = []
    async with context.probing(device, every=_REPAIR_PROBE_SECONDS):
        for action, what in (("service.disable", "telnetd disabled"), ("package.upgrade", "openssl upgraded")):
            done = await context.observed(
                device, "command_done", f"{action} succeeding", since=since, action=action, state="succeeded"
            )
            moments.append(done.moment)
            context.say(f"device: signed command {action} executed, {what} {done.moment - since:.1f} s after the cut")
    return max(moments)


def _check_cut(context: ContainmentContext, device: str, cut: SimulatorObservation, back: SimulatorObservation) -> None:
    """Nothing that was published between the cut and the release may have reached the subscriber."""
    refused = [one for one in context.telemetry_acks(device, NOT_AUTHORIZED, cut.moment) if one.moment < back.moment]
    first, last = cut.data["n"], back.data["n"]
    leaked = [one for one in context.observations.of(device, ARRIVED) if first <= one.data["n"] < last]
    window = refused[-1].moment - cut.moment
    if leaked:
        raise DemoError(f"{len(leaked)} messages of {device} reached the subscriber after the cut")
    if window < context.timings.quiet or len(refused) < _MIN_REFUSED:
        raise DemoError(f"the cut of {device} was observed for {window:.2f} s and {len(refused)} messages only")
    context.say(f"subscriber: none of {len(refused)} messages published in the {window:.1f} s after the cut arrived")


async def _is_released(
    context: ContainmentContext, device: str, passing: SimulatorObservation, back: SimulatorObservation
) -> None:
    seconds = back.moment - passing.moment
    context.say(f"subscriber: its telemetry is back {seconds:.3f} s after the device published its passing report")
    await context.recorded(device, AuditKind.CONTAINMENT_RELEASE_PROVEN)
    await context.listed(device, _is_healthy, "passing and free at the controller's API")
    context.say("controller: released automatically, the release read back at the broker")
    context.metrics.contained[device] = replace(context.metrics.contained[device], to_release=seconds)


async def isolated(context: ContainmentContext) -> None:
    """An open Docker API: banned, its socket closed, its reconnects refused."""
    device, observations = context.roles.docker, context.observations
    report = await context.change(device, {"open_port": DOCKER, "process": "dockerd"})
    context.say(f"{device} offers the Docker API to the network, and reported it")
    cut = await context.observed(device, "disconnected", "its socket closed", since=report.moment, code=KICKED)
    seconds = cut.moment - report.moment
    context.metrics.contained[device] = DemoContainmentTiming(device, "isolated", seconds)
    context.say(f"device: DISCONNECT 152 and its socket closed {seconds:.3f} s after it published that report")

    def refusals() -> list[SimulatorObservation] | None:
        refused = list(observations.of(device, "refused", since=cut.moment, code=BANNED))
        return refused if len(refused) >= context.timings.refusals else None

    refused = await context.until(refusals, f"{context.timings.refusals} reconnects refused with CONNACK 138", device)
    context.say(f"device: {len(refused)} attempts to reconnect, each refused with CONNACK 138")
    nodes = await context.on_every_node(partial(_is_banned, device), f"the ban of {device}")
    context.say(f"broker: Cordon's ban is on all {nodes} nodes")
    await context.recorded(device, AuditKind.CONTAINMENT_PROVEN, level="isolated")
    quiet = cut.moment + _IN_FLIGHT_SECONDS
    await asyncio.sleep(max(0.0, quiet + context.timings.quiet - time.monotonic()))
    if observations.first(device, "connected", since=cut.moment) or observations.first(device, ARRIVED, since=quiet):
        raise DemoError(f"{device} connected or published after it had been isolated")
    context.say(f"subscriber: no telemetry of it in the {time.monotonic() - cut.moment:.1f} s since")


async def stale(context: ContainmentContext) -> None:
    """A device that reports nothing more is stale, although it is connected."""
    device = context.roles.silent
    await context.fleet.silence(device)
    begun = time.monotonic()
    row = await context.listed(device, lambda row: bool(row["stale"]), "stale at the controller's API")
    heard = context.observations.first(device, ARRIVED, since=begun + _IN_FLIGHT_SECONDS)
    client = await context.emqx.api.send(requests.read_client(device))
    if heard or client is None or not client.connected:
        raise DemoError(f"{device} should be connected and publish nothing: {client}")
    context.say(f"{device} publishes nothing: connected at the broker, no telemetry at the subscriber")
    context.say(f"controller: stale after {time.monotonic() - begun:.1f} s, not passing (level: {row['level']})")


async def forged(context: ContainmentContext) -> None:
    """A command with a foreign signature: refused by the broker from MQTT clients, and by the agent in any case."""
    device, topic = context.roles.forged, down(context.roles.forged, DownChannel.COMMAND)
    before = list(context.observations.of(device, "report_sent"))[-1].data["digest"]
    since = time.monotonic()
    if not await context.emqx.api.send(requests.publish(topic, _forged_command(device))):
        raise DemoError(f"the broker had no subscriber for the forged command to {device}")
    refused = await context.observed(device, "command_rejected", "the forged command refused", since=since)
    context.say(f"device: refused the command published over the HTTP API: {refused.data['reason']}")
    async with DemoMqttClient(context.broker, context.options.forger_id, server=1) as forger:
        second = time.monotonic()
        code = await forger.publish(topic, _forged_command(device))
    if code >= NOT_AUTHORIZED:
        context.say(f"broker: refused the command of another MQTT client with PUBACK {code}")
    else:
        await context.observed(device, "command_rejected", "the second forged command refused", since=second)
        context.say("device: refused the command of another MQTT client, which this broker delivered")
    await context.fleet.rescan(device)
    report = await context.observed(device, "report_sent", "a full report", since=second, report="full")
    executed = context.observations.first(device, "command_taken", since=since)
    if executed is not None or report.data["digest"] != before:
        raise DemoError(f"{device} executed a forged command: {context.observations.latest(device)}")
    context.say("device: its posture is unchanged, no command was begun")
    await context.recorded(device, AuditKind.DEVICE_EVENT_REPORTED, event_kind="command_refused")
    context.say("controller: the device reported the attempt")


def _forged_command(device_id: str) -> bytes:
    """A command that would disable the device's SSH, valid but for its signature."""
    now = datetime.now(UTC)
    command = Command(
        command_id=f"forged-{secrets.token_hex(8)}",
        device_id=device_id,
        action="service.disable",
        params={"name": "ssh"},
        issued_at=now,
        expires_at=now + _COMMAND_LIFETIME,
        counter=time.time_ns() // 1_000_000,
    )
    return sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, Ed25519PrivateKey.generate())


async def stepped_down(context: ContainmentContext) -> None:
    """An operator releases the isolated device to a restriction; its passing report releases it completely."""
    device = context.roles.docker
    since = time.monotonic()
    body = {"reason": "the Docker API was closed on site"}
    await context.api.call("POST", f"/quarantine/{segment(device)}/release", body)
    await context.observed(device, "connected", "its reconnect", since=since)
    await context.observed(device, "puback", "its telemetry refused", since=since, code=NOT_AUTHORIZED)
    context.say(f"device: {device} reconnects after the operator's release, its telemetry still refused (PUBACK 135)")
    passing = await context.change(device, {"close_port": DOCKER})
    back = await context.telemetry_arrives(device, passing.moment)
    await _is_released(context, device, passing, back)


async def ending(context: ContainmentContext) -> None:
    """The silent device reports again, and the fleet is healthy as at the beginning."""
    device = context.roles.silent
    await context.fleet.speak(device)
    await context.listed(device, _is_healthy, "reporting again and passing")
    context.say(f"{device} reports again and is no longer stale")
    await _all_arrive(context, time.monotonic())
    rows = await context.api.devices(context.options.prefix)
    unhealthy = sorted(device for device, row in rows.items() if not _is_healthy(row))
    if unhealthy:
        raise DemoError(f"not as at the beginning: {', '.join(unhealthy)}")
    context.say(f"all {len(rows)} devices pass, none contained, telemetry of all arrives")


STEPS: Final = (
    DemoStep("healthy", "A healthy fleet", healthy),
    DemoStep("restricted", "One device opens telnet: restricted, repaired, released", restricted),
    DemoStep("isolated", "One device opens the Docker API: isolated", isolated),
    DemoStep("stale", "One device stops reporting: stale", stale),
    DemoStep("forged", "A forged command: refused", forged),
    DemoStep("stepped_down", "An operator releases the isolated device: repaired, free", stepped_down),
    DemoStep("ending", "The fleet as at the beginning", ending),
)
