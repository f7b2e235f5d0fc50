"""`cordon demo`: devices of a simulated fleet break rules, are contained, repaired and released."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from controller.adapters.emqx.containment.authentication import read_settings
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.system import SystemClock
from controller.demo.broker import NODES, DemoBroker, external, start_stand_in
from controller.demo.cleanup import BrokerFootprint, allow_telemetry, clean_up
from controller.demo.containment_context import ContainmentContext, DemoDeviceRoles, DemoMetrics, DemoOptions
from controller.demo.containment_steps import STEPS
from controller.demo.controller_process import prepare, serve
from controller.demo.mqtt_client import REFUSED, telemetry_subscriber
from controller.demo.options import DemoError
from controller.demo.results import DemoResult
from controller.demo.runner import DemoRun
from controller.demo.simulator import start_simulator
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import ControllerError

_PICTURE_SECONDS: Final = 0.5


class ContainmentDemo:
    """One run with these options."""

    steps = frozenset({"broker", "setup", "as_found", *(step.name for step in STEPS)})

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._metrics = DemoMetrics()

    async def run(self, run: DemoRun) -> None:
        async with run.step("broker", "A broker"):
            broker, emqx = await self._open_broker(run)
        async with run.step("setup", "Controller, fleet and a subscriber"):
            context = await self._start(run, broker, emqx)
        if run.view.wants_fleet:
            run.task(_show_fleet(context), "picture")
        try:
            for step in STEPS:
                async with run.step(step.name, step.title):
                    await step.work(context)
                await asyncio.sleep(context.timings.pause)
        finally:
            accepted = (run.observations.of(one, "receipt", verdict="accepted") for one in self._options.device_ids)
            self._metrics.reports = sum(1 for receipts in accepted for _ in receipts)

    async def _open_broker(self, run: DemoRun) -> tuple[DemoBroker, EmqxBroker]:
        if self._options.broker is None:
            broker = await start_stand_in(run)
        else:
            broker = external(self._options.broker)
        opened = open_emqx(broker.api, broker.api_key, broker.api_secret, clock=SystemClock())
        emqx = await run.stack.enter_async_context(opened)
        answers = await emqx.ping()
        silent = [f"{url}: {text}" for url, is_up, text in answers if not is_up]
        if silent:
            raise DemoError(f"the broker's API does not answer: {'; '.join(silent)}")
        if self._options.broker is None:
            run.say(f"stand-in for EMQX with {NODES} nodes at {', '.join(broker.api)}; TLS with client certificates")
        else:
            run.say(f"broker: {', '.join(f'{url} ({text})' for url, _, text in answers)}")
        return broker, emqx

    async def _start(self, run: DemoRun, broker: DemoBroker, emqx: EmqxBroker) -> ContainmentContext:
        options, timings = self._options, self._options.timings
        footprint = BrokerFootprint(
            options.controller_id,
            options.device_ids,
            (options.subscriber_id, options.forger_id),
            AccessRule(options.telemetry_topic("+"), "allow", "all"),
            await EmqxSetup(emqx.api).state(options.controller_id),
        )
        run.stack.push_async_callback(_restore, run, broker, emqx, footprint)
        # First, as it is the fastest way to find out whether the credentials are right.
        subscriber = telemetry_subscriber(broker, options.subscriber_id, run.observations)
        await run.stack.enter_async_context(subscriber)
        more = ["[identity]\nunsafe_accept_claimed = true"] if await _authenticates_nobody(run, broker, emqx) else []
        prepared = await prepare(run, broker, options.controller_id, timings, *more)
        if options.broker is not None:
            await allow_telemetry(emqx, footprint.telemetry_rule)
        controller, api = await serve(run, prepared)
        run.say(f"controller serves {api.url}")
        code = await subscriber.subscribe(options.telemetry_topic("+"))
        if code >= REFUSED:
            raise DemoError(f"the subscription to telemetry was refused by the broker: reason {code}")
        fleet = await start_simulator(
            run, broker, options.device_ids, options.prefix, timings,
            "--seed", str(options.seed), "--controller-key", prepared.public_key,
            "--action-time", timings.action_time, "--telemetry-every", timings.telemetry_every,
            "--telemetry-topic", options.telemetry_topic("{id}"),
        )  # fmt: skip
        run.watch(controller)
        servers = ", ".join(map(str, broker.servers))
        run.say(f"{options.devices} devices {options.prefix}* connected over {servers}")
        roles = DemoDeviceRoles.assign(options.device_ids, options.seed)
        return ContainmentContext(run, options, roles, broker, emqx, api, fleet, self._metrics)

    def figures(self) -> dict[str, Any]:
        options, contained = self._options, list(self._metrics.contained.values())
        containments = [
            {
                "device": one.device,
                "level": one.level,
                "seconds_to_contain": round(one.to_contain, 3),
                "seconds_to_release": None if one.to_release is None else round(one.to_release, 3),
            }
            for one in contained
        ]
        released = [one["seconds_to_release"] for one in containments if one["seconds_to_release"] is not None]
        return {
            "devices": options.devices,
            "reports": self._metrics.reports,
            "contained": len(contained),
            "released": len(released),
            "seconds_to_contain": [one["seconds_to_contain"] for one in containments],
            "seconds_to_release": released,
            "broker": "stand-in" if options.broker is None else ", ".join(options.broker.api),
            "run": options.run,
            "containments": containments,
        }

    def summary(self, result: DemoResult) -> RenderableType:
        """The seconds of each containment, and the verdict."""
        table = Table(title="Seconds to contain and to release", title_justify="left", show_edge=False, pad_edge=False)
        for name in ("device", "containment"):
            table.add_column(name)
        for name in ("to contain", "to release"):
            table.add_column(name, justify="right")
        for one in self._metrics.contained.values():
            release = "-" if one.to_release is None else f"{one.to_release:.3f}"
            table.add_row(Text(one.device), one.level, f"{one.to_contain:.3f}", release)
        notes = Text(
            "to contain: from the device publishing the violating report to the cut seen at the device\n"
            "to release: from the device publishing the passing report to its telemetry at the subscriber",
            style="dim",
        )
        observed = (
            f"All {len(result.steps)} steps were observed, {self._metrics.reports} reports, {result.seconds:.1f} s."
        )
        return Group(Text(), table, Text(), notes, Text(), result.verdict(observed))


async def _restore(run: DemoRun, broker: DemoBroker, emqx: EmqxBroker, footprint: BrokerFootprint) -> None:
    async with run.step("as_found", "The broker as it was before"):
        await clean_up(broker, emqx, footprint)
        run.say("read back at the broker: no ban, rule, session or retained message of this run; settings as before")


async def _authenticates_nobody(run: DemoRun, broker: DemoBroker, emqx: EmqxBroker) -> bool:
    """Whether devices connect without proof of their identity; containing them is a setting then."""
    if broker.own_certificates or not (await read_settings(emqx.api)).is_open:
        return False
    run.say("at this broker clients choose their id: the run sets identity.unsafe_accept_claimed = true")
    return True


async def _show_fleet(context: ContainmentContext) -> None:
    """Updates the picture; without an answer the old one stays."""
    while True:
        with contextlib.suppress(ControllerError):
            rows = await context.api.devices(context.options.prefix)
            context.run.view.fleet({one: _state(rows.get(one)) for one in context.options.device_ids})
        await asyncio.sleep(_PICTURE_SECONDS)


def _state(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "unknown"
    if row["level"] == "none":
        return "stale" if row["stale"] else "free"
    return str(row["level"])
