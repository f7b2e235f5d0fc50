"""The story, step by step: what happens, and what has to be seen at the broker or at a device before it goes on."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi, find_ban
from controller.demo.forgery import forged_order
from controller.demo.mqtt_client import DemoMqttClient
from controller.demo.observations import ARRIVED, SimulatorObservation
from controller.demo.options import DemoError
from controller.demo.outcome import DemoContainmentTiming
from controller.demo.scene import BANNED, KICKED, NOT_AUTHORIZED, DemoStepContext, ListedDevice
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import restriction
from schemas.topics import DownChannel, down

OLD_OPENSSL: Final = "3.0.11-1~deb12u1"
TELNET: Final = 23
DOCKER: Final = 2375
_ON_ITS_WAY: Final = 0.25  # seconds in which a message published before a cut may still arrive
_FEW: Final = 3  # refused messages that make a cut believable


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step: its name in the result, its title for people, and what is played."""

    name: str
    title: str
    play: Callable[[DemoStepContext], Awaitable[None]]


def _is_well(row: ListedDevice) -> bool:
    return bool(
        row["level"] == "none" and not row["failing"] and not row["stale"] and row["satisfied"] > 0 and row["online"]
    )


async def healthy(scene: DemoStepContext) -> None:
    """Every device has reported, passes, and its messages reach the bystander."""
    devices, chronicle = scene.stage.device_ids, scene.chronicle

    def all_accepted() -> bool | None:
        return all(chronicle.first(device, "receipt", verdict="accepted") for device in devices) or None

    def all_arrive() -> bool | None:
        return all(chronicle.first(device, ARRIVED) for device in devices) or None

    await scene.until(all_accepted, "an accepted report of every device")
    scene.say(f"{len(devices)} full reports sent, each receipt seen at its device")

    async def all_well() -> bool | None:
        rows = await scene.stage.operator.devices(scene.stage.options.prefix)
        return (len(rows) == len(devices) and all(_is_well(row) for row in rows.values())) or None

    await scene.answered(all_well, "every device passing at the controller's API")
    scene.say(f"controller: {len(devices)} devices, all pass, none contained")
    await scene.until(all_arrive, "telemetry of every device at the bystander")
    scene.say(f"bystander: telemetry of all {len(devices)} devices arrives")


async def restricted(scene: DemoStepContext) -> None:
    """Telnet and an old OpenSSL: cut off from everything but repair, repaired by command, free again by itself."""
    device = scene.cast.telnet
    report = await scene.change(device, {"open_port": TELNET, "openssl": OLD_OPENSSL})
    scene.say(f"{device} opened telnet and fell back to OpenSSL {OLD_OPENSSL}, and reported it")
    async with scene.probing(device):
        cut = await scene.until(
            lambda: scene.puback(device, NOT_AUTHORIZED, report.moment), "telemetry refused with PUBACK 135", device
        )
    seconds = cut.moment - report.moment
    scene.figures.contained[device] = DemoContainmentTiming(device, "restricted", seconds)
    scene.say(f"device: PUBACK 135 for its telemetry {seconds:.3f} s after it published that report")
    nodes = await scene.on_every_node(lambda api: _is_restricted(api, device), f"{device}'s three rules")
    scene.say(f"broker: the three rules of a restriction are on all {nodes} nodes")
    repaired = await _repairs(scene, device, cut.moment)
    passing = await scene.seen(device, "report_sent", "the passing report", since=repaired, report="full")
    back = await scene.flows(device, passing.moment)
    _check_quiet(scene, device, cut, back)
    await _is_free(scene, device, passing, back)


async def _is_restricted(api: EmqxApi, device: str) -> bool:
    return await api.send(requests.read_rules(Subject.client(device))) == restriction(device)


async def _is_banned(api: EmqxApi, device: str) -> bool:
    subject = Subject.client(device)
    ban = await find_ban(api, partial(requests.read_ban, subject), subject)
    return ban is not None and ban.is_ours


async def _repairs(scene: DemoStepContext, device: str, since: float) -> float:
    """Wait until both commands did their work at the device; when the later one ended."""
    moments = []
    async with scene.probing(device, every=_ON_ITS_WAY):
        for action, what in (("service.disable", "telnetd disabled"), ("package.upgrade", "openssl upgraded")):
            done = await scene.seen(
                device, "command_done", f"{action} succeeding", since=since, action=action, state="succeeded"
            )
            moments.append(done.moment)
            scene.say(f"device: signed command {action} obeyed, {what} {done.moment - since:.1f} s after the cut")
    return max(moments)


def _check_quiet(scene: DemoStepContext, device: str, cut: SimulatorObservation, back: SimulatorObservation) -> None:
    """Nothing that the broker refused may have reached the bystander."""
    topic = scene.telemetry_topic(device)
    refused = [
        sight
        for sight in scene.chronicle.of(device, "puback", since=cut.moment, code=NOT_AUTHORIZED, topic=topic)
        if sight.moment < back.moment
    ]
    numbers = {sight.data["n"] for sight in refused}
    leaked = [sight for sight in scene.chronicle.of(device, ARRIVED) if sight.data["n"] in numbers]
    window = refused[-1].moment - cut.moment
    early = [s for s in scene.chronicle.of(device, ARRIVED, since=cut.moment + _ON_ITS_WAY) if s.moment < back.moment]
    if leaked or early:
        raise DemoError(f"{len(leaked) + len(early)} messages of {device} reached the bystander after the cut")
    if window < scene.pace.quiet or len(refused) < _FEW:
        raise DemoError(f"the cut of {device} was watched for {window:.2f} s and {len(refused)} messages only")
    scene.say(f"bystander: none of {len(refused)} messages published in the {window:.1f} s after the cut arrived")


async def _is_free(
    scene: DemoStepContext, device: str, passing: SimulatorObservation, back: SimulatorObservation
) -> None:
    seconds = back.moment - passing.moment
    scene.say(f"bystander: its telemetry is back {seconds:.3f} s after the device published its passing report")
    await scene.recorded(device, AuditKind.CONTAINMENT_RELEASE_PROVEN)
    await scene.row(device, _is_well, "passing and free at the controller's API")
    scene.say("controller: released by itself, the release read back at the broker")
    scene.figures.contained[device] = replace(scene.figures.contained[device], to_release=seconds)


async def isolated(scene: DemoStepContext) -> None:
    """An open Docker API: banned, its socket closed, its reconnects refused."""
    device = scene.cast.docker
    report = await scene.change(device, {"open_port": DOCKER, "process": "dockerd"})
    scene.say(f"{device} offers the Docker API to the network, and reported it")
    cut = await scene.seen(device, "disconnected", "its socket closed", since=report.moment, code=KICKED)
    seconds = cut.moment - report.moment
    scene.figures.contained[device] = DemoContainmentTiming(device, "isolated", seconds)
    scene.say(f"device: DISCONNECT 152 and its socket closed {seconds:.3f} s after it published that report")

    def refusals() -> list[SimulatorObservation] | None:
        found = list(scene.chronicle.of(device, "refused", since=cut.moment, code=BANNED))
        return found if len(found) >= scene.pace.refusals else None

    refused = await scene.until(refusals, f"{scene.pace.refusals} reconnects refused with CONNACK 138", device)
    scene.say(f"device: {len(refused)} attempts to reconnect, each refused with CONNACK 138")

    nodes = await scene.on_every_node(lambda api: _is_banned(api, device), f"the ban of {device}")
    scene.say(f"broker: Cordon's ban is on all {nodes} nodes")
    await scene.recorded(device, AuditKind.CONTAINMENT_PROVEN, level="isolated")
    await asyncio.sleep(max(0.0, cut.moment + _ON_ITS_WAY + scene.pace.quiet - time.monotonic()))
    came_in = scene.chronicle.first(device, "connected", since=cut.moment)
    leaked = scene.chronicle.first(device, ARRIVED, since=cut.moment + _ON_ITS_WAY)
    if came_in or leaked:
        raise DemoError(f"{device} came in again or was heard after it was isolated")
    scene.say(f"bystander: nothing of it in the {time.monotonic() - cut.moment:.1f} s since")


async def silent(scene: DemoStepContext) -> None:
    """A device that says nothing more is stale, though it is still connected."""
    device = scene.cast.silent
    begun = time.monotonic()
    await scene.stage.fleet.silence(device)
    row = await scene.row(device, lambda row: bool(row["stale"]), "stale at the controller's API")
    heard = scene.chronicle.first(device, ARRIVED, since=begun + _ON_ITS_WAY)
    client = await scene.stage.broker.api.send(requests.read_client(device))
    if heard or client is None or not client.connected:
        raise DemoError(f"{device} was to be connected and mute, and was not: {client}")
    scene.say(f"{device} fell silent: connected at the broker, nothing of it at the bystander")
    scene.say(f"controller: stale after {time.monotonic() - begun:.1f} s, not a pass (contained: {row['level']})")


async def forged(scene: DemoStepContext) -> None:
    """A command signed by a stranger: the broker does not carry it for clients, and the agent refuses it anyway."""
    device = scene.cast.forged
    known = list(scene.chronicle.of(device, "report_sent"))[-1].data["digest"]
    since = time.monotonic()
    order = forged_order(device, time.time())
    if not await scene.stage.broker.api.send(requests.publish(down(device, DownChannel.COMMAND), order)):
        raise DemoError(f"the broker had no subscriber for the forged command: {device} never got it")
    refused = await scene.seen(device, "command_rejected", "the forged command refused", since=since)
    scene.say(f"device: refused the command published over the HTTP API: {refused.data['reason']}")
    async with DemoMqttClient(scene.stage.access, scene.stage.forger_id, server=1) as forger:
        again = time.monotonic()
        code = await forger.publish(down(device, DownChannel.COMMAND), forged_order(device, time.time()))
    if code >= NOT_AUTHORIZED:
        scene.say(f"broker: refused the command of another MQTT client with PUBACK {code}")
    else:
        await scene.seen(device, "command_rejected", "the second forged command refused", since=again)
        scene.say("device: refused the command of another MQTT client, which this broker let through")
    await scene.stage.fleet.rescan(device)
    report = await scene.seen(device, "report_sent", "a full report", since=again, report="full")
    obeyed = scene.chronicle.first(device, "command_taken", since=since)
    if obeyed is not None or report.data["digest"] != known:
        raise DemoError(f"{device} obeyed a stranger: {scene.chronicle.last_words(device)}")
    scene.say("device: its posture is what it was, no command was begun")
    await scene.recorded(device, AuditKind.DEVICE_EVENT_REPORTED, event_kind="command_refused")
    scene.say("controller: the device told of the attempt")


async def stepped_down(scene: DemoStepContext) -> None:
    """An operator lets the isolated device back as far as repair; its passing report frees it."""
    device = scene.cast.docker
    since = time.monotonic()
    await scene.stage.operator.release(device, "the Docker API was closed on site")
    await scene.seen(device, "connected", "it connecting again", since=since)
    await scene.seen(device, "puback", "its telemetry refused", since=since, code=NOT_AUTHORIZED)
    scene.say(f"device: {device} connects again after the operator's release, its telemetry still refused (PUBACK 135)")
    passing = await scene.change(device, {"close_port": DOCKER})
    back = await scene.flows(device, passing.moment)
    await _is_free(scene, device, passing, back)


async def ending(scene: DemoStepContext) -> None:
    """The silent device speaks again, and the fleet is as it was at the beginning."""
    await scene.stage.fleet.speak(scene.cast.silent)
    await scene.row(scene.cast.silent, _is_well, "heard again and passing")
    scene.say(f"{scene.cast.silent} speaks again and is no longer stale")
    since = time.monotonic()
    devices = scene.stage.device_ids
    await scene.until(
        lambda: all(scene.chronicle.first(device, ARRIVED, since=since) for device in devices) or None,
        "telemetry of every device at the bystander",
    )
    rows = await scene.stage.operator.devices(scene.stage.options.prefix)
    unwell = sorted(device for device, row in rows.items() if not _is_well(row))
    if unwell:
        raise DemoError(f"not as at the beginning: {', '.join(unwell)}")
    scene.say(f"all {len(devices)} devices pass, none contained, telemetry of all arrives")
    await asyncio.sleep(scene.pace.pause)


STORY: Final = (
    DemoStep("healthy", "A healthy fleet", healthy),
    DemoStep("restricted", "One device opens telnet: restricted, repaired, released", restricted),
    DemoStep("isolated", "One device opens the Docker API: isolated", isolated),
    DemoStep("stale", "One device falls silent: stale", silent),
    DemoStep("forged", "A forged command: refused", forged),
    DemoStep("stepped_down", "An operator releases the isolated device: repaired, free", stepped_down),
    DemoStep("ending", "The fleet as at the beginning", ending),
)
