"""A thousand devices contained in the same moment, against the bare calls; and a comparison of 10,000 bans.

`python -m tests.bench.contain_many [--devices 1000] [--bans 10000] [--rounds 3] [--store-in FOLDER]`; a part of `make
bench-contain`.

Cordon's side is all of it but MQTT: decisions as an operator makes them, a store with FULL sync, outbox, enforcer and
adapter, over a stand-in of three nodes in a process of its own; from the first decision until the last device is proven
on every node. The bare side makes the calls of the same plan, as `cordon quarantine plan` shows them, with an HTTP
client that does nothing else and keeps nothing: the same order for each device, as many in flight, rules in bulk of
100, what is the same for all devices once. No device is connected, so that the stand-in's work is the same for both.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx
import uvloop

from controller.adapters.emqx.client.http import AT_ONCE
from controller.adapters.emqx.client.models import rule_body
from controller.adapters.emqx.client.requests import RULES_AT_ONCE
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.tables import EmqxTables
from controller.adapters.revocation_marks import marks_path
from controller.adapters.sqlite.store import SqliteStore, open_store
from controller.adapters.system import SystemClock, UlidGenerator
from controller.app.adapters import Adapters, emqx_adapters
from controller.app.build import build
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.plan import ContainmentGoal, Subject
from controller.domain.device import ContainmentCase, Device
from controller.domain.events import ContainmentOrdered, ReleaseOrdered
from controller.domain.guards.guards import NO_GUARDS
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import PlannedCall, PlanParameters
from controller.ports.broker_tables import restriction
from controller.service.containment.outbox import Outbox
from controller.service.containment.reconciler import Reconciler
from controller.service.fleet_state import FleetState
from controller.service.rollout.observations import PublishedTargets
from controller.service.settings.settings import Settings
from tests.support.controller_harness import SETTINGS, MemoryLink, starter
from tests.support.emqx_calls import ban_of
from tests.support.fleet_devices import add_devices
from tests.support.memory_broker import MemorySetup
from tests.support.memory_sender import MemorySender
from tests.support.playbook import language
from tests.support.standin import StandInProcess

NODES: Final = 3
POLL: Final = 0.005  # seconds
PATIENCE: Final = 600.0  # seconds
UNTIL: Final = 4_000_000_000.0  # Unix seconds, of every ban
_RULES: Final = "/authorization/sources/built_in_database/rules/clients"
# Asked once for all devices by both sides.
_SETTINGS: Final = (
    "/api/v5/authorization/sources",
    "/api/v5/authentication",
    "/api/v5/authorization/settings",
    "/api/v5/mqtt/auto_subscribe",
    "/api/v5/mqtt/delayed/messages",
)


@dataclass(slots=True)
class Side:
    """Cordon, without MQTT."""

    emqx: StandInProcess
    broker: EmqxBroker
    store: SqliteStore
    fleet: FleetState
    outbox: Outbox
    tables: EmqxTables
    reconciler: Reconciler

    async def contain(self, names: Sequence[str], level: ContainmentLevel) -> float:
        """Seconds until all are proven."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for name in names:
                event = ContainmentOrdered(self.fleet.new_id(), level, "operator:bench", "bench", None)
                group.create_task(self.fleet.apply_and_commit(name, event))
        await self.until(lambda: all(self._is_proven(name, level) for name in names))
        return time.monotonic() - begun

    def _is_proven(self, name: str, level: ContainmentLevel) -> bool:
        device = self.fleet.cache.peek(name)
        return device is not None and device.case is not None and device.case.proven_level is level

    async def let_out(self, names: Sequence[str]) -> None:
        """Free all of them, as an operator does."""
        for _ in range(2):  # an isolation steps down first
            for name in names:
                device = self.fleet.cache.peek(name)
                if device is not None and device.case is not None:
                    event = ReleaseOrdered(self.fleet.new_id(), "operator:bench", "bench")
                    await self.fleet.apply_and_commit(name, event)
            await self.until(lambda: not self.outbox.queue.pending)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait.

        Raises:
            TimeoutError: it did not become true.
        """
        async with asyncio.timeout(PATIENCE):
            while not true():
                await asyncio.sleep(POLL)


@asynccontextmanager
async def cordon(folder: Path, emqx: StandInProcess) -> AsyncIterator[Side]:
    """Everything of one controller but the link."""
    clock, policies = SystemClock(), starter()
    settings = Settings.model_validate({**SETTINGS, "identity": {"watch_presence": False}})
    store = await open_store(folder / "bench.db", now=clock.now, log=_quiet)
    try:
        async with open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=clock) as broker:
            tables = EmqxTables(broker.api, broker.cluster, broker.prefixes)
            adapters = Adapters(
                clock=clock,
                ids=UlidGenerator(),
                rand=lambda: 0.0,
                log=lambda _part: _quiet,
                store=store,
                revocation_marks=marks_path(store.path),
                messages=MemoryLink(),
                broker=replace(emqx_adapters(broker, settings), setup=MemorySetup(), tables=tables),
                language=language(),
                load_policies=lambda: policies,
                sign=lambda payload: payload,
                command_keys=(),
                updates=None,
                targets=PublishedTargets(None),
                sender=MemorySender(),
            )
            services = (await build(settings, adapters, policies, NO_GUARDS)).services
            async with asyncio.TaskGroup() as group:
                running = group.create_task(services.containment.outbox.run())
                yield Side(
                    emqx, broker, store, services.fleet, services.containment.outbox, tables, services.broker.reconciler
                )
                running.cancel()
    finally:
        await store.close()


def _quiet(_event: str, _fields: Mapping[str, object]) -> None:
    """Logs nothing."""


class Bare:
    """An HTTP client that makes calls and looks at nothing but their status."""

    def __init__(self, emqx: StandInProcess, client: httpx.AsyncClient) -> None:
        """Use this client."""
        self._urls = emqx.api_urls
        self._client = client
        self._room = asyncio.Semaphore(AT_ONCE)

    async def call(self, method: str, path: str, body: object = None, node: int = 0) -> None:
        """One call."""
        async with self._room:
            answer = await self._client.request(method, f"{self._urls[node]}{path}", json=body)
            assert answer.status_code < 500, answer.text

    async def planned(self, call: PlannedCall) -> None:
        """A call of a plan, at each node where it says so."""
        nodes = range(len(self._urls)) if call.where == "each node" else (0,)
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(self.call(call.method, call.path, call.body, node))

    async def in_turn(self, planned: Iterable[PlannedCall]) -> None:
        """The calls of one device."""
        for call in planned:
            await self.planned(call)

    async def all_at_once(self, plans: Iterable[Sequence[PlannedCall]]) -> None:
        """Every device side by side."""
        async with asyncio.TaskGroup() as group:
            for planned in plans:
                group.create_task(self.in_turn(planned))


def calls_of(broker: EmqxBroker, name: str, goal: ContainmentGoal) -> list[PlannedCall]:
    """What a plan asks for a device without rules, session and ban, but the write of its rules and the settings."""
    stages = broker.planned(Subject.client(name), PlanParameters(goal, "bench", "bench", UNTIL))
    every = [call for stage in stages for _, calls in stage.acts + stage.looks for call in calls]
    return [call for call in every if not call.only and call.path.partition("?")[0] not in _SETTINGS]


async def bare(side: Side, names: Sequence[str], goal: ContainmentGoal) -> float:
    """Seconds of the bare calls for all devices."""
    plans = {name: calls_of(side.broker, name, goal) for name in names}
    before = (
        2 if goal is ContainmentGoal.ISOLATE else 1
    )  # the ban, and the read of the rules, come before they are written
    rules = [{"clientid": name, "rules": [rule_body(rule) for rule in restriction(name)]} for name in names]
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    auth = (side.emqx.key, side.emqx.secret)
    async with httpx.AsyncClient(auth=auth, limits=limits, timeout=60, trust_env=False) as client:
        one = Bare(side.emqx, client)
        begun = time.monotonic()
        await one.all_at_once(plan[:before] for plan in plans.values())
        for first in range(0, len(names), RULES_AT_ONCE):
            await one.call("POST", f"/api/v5{_RULES}", rules[first : first + RULES_AT_ONCE])
        for path in _SETTINGS:
            await one.call("GET", path)
        await one.all_at_once(plan[before:] for plan in plans.values())
        took = time.monotonic() - begun
        for name in names:
            await one.call("DELETE", f"/api/v5{_RULES}/{name}")
            await one.call("DELETE", f"/api/v5/banned/clientid/{name}")
    return took


async def compare(side: Side, goal: ContainmentGoal, devices: int, rounds: int) -> tuple[float, float, float]:
    """Medians: seconds of Cordon, seconds of the bare calls, their ratio."""
    level = ContainmentLevel.ISOLATED if goal is ContainmentGoal.ISOLATE else ContainmentLevel.RESTRICTED
    ours, theirs = [], []
    for number in range(rounds):
        names = [f"many-{goal.value}-{number}-{n}" for n in range(devices)]
        theirs.append(await bare(side, names, goal))
        ours.append(await side.contain(names, level))
        await side.let_out(names)
        print(f"{goal.value} {devices}: Cordon {ours[-1]:.2f} s, bare {theirs[-1]:.2f} s", flush=True)
    mine, other = statistics.median(ours), statistics.median(theirs)
    return mine, other, statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


async def one_drifted_row(side: Side, bans: int) -> tuple[float, float, int]:
    """Seconds of a pass with nothing to do; seconds and requests until a row that was deleted is found and back."""
    now = side.fleet.clock.now()
    names = [f"drift-{n}" for n in range(bans)]
    rules = [{"clientid": name, "rules": [rule_body(rule) for rule in restriction(name)]} for name in names]
    async with httpx.AsyncClient(auth=(side.emqx.key, side.emqx.secret), timeout=60, trust_env=False) as client:
        one = Bare(side.emqx, client)
        for first in range(0, bans, RULES_AT_ONCE):
            await one.call("POST", f"/api/v5{_RULES}", rules[first : first + RULES_AT_ONCE])
        async with asyncio.TaskGroup() as group:
            for name in names:
                body = {"as": "clientid", "who": name, "by": f"cordon/{name}", "until": "2096-10-02T07:06:40Z"}
                group.create_task(one.call("POST", "/api/v5/banned", body))
        end = 4_000_000_000.0
        case = [
            ContainmentCase(name, ContainmentLevel.ISOLATED, (), "operator:bench", "bench", now, now, isolate_until=end,
                 proven_level=ContainmentLevel.ISOLATED, proven_at=now)
            for name in names
        ]  # fmt: skip
        known = (Device(name, now, now, case=one_case) for name, one_case in zip(names, case, strict=True))
        await add_devices(side.fleet, *known)
        begun = time.monotonic()
        assert await side.reconciler.reconcile() == []
        quiet = time.monotonic() - begun
        await one.call("DELETE", f"/api/v5/banned/clientid/{names[bans // 2]}")
    asked, begun = side.tables.requests, time.monotonic()
    found = await side.reconciler.reconcile()
    assert [one.device_id for one in found] == [names[bans // 2]]
    await side.until(lambda: not side.outbox.queue.pending)
    took = time.monotonic() - begun
    assert await ban_of(side.broker.api, names[bans // 2]) is not None
    (line,) = await side.store.audit(device_id=names[bans // 2], kind=AuditKind.CONTAINMENT_PROVEN, limit=1)
    steps = (line.entry.detail or {}).get("steps")
    assert isinstance(steps, list)
    made = sum(bool(step["call"]) for step in steps)
    return quiet, took, side.tables.requests - asked + made


async def measure(folder: Path, devices: int, bans: int, rounds: int) -> str:
    """All of it; the last line."""
    with StandInProcess(nodes=NODES) as emqx:
        async with cordon(folder, emqx) as side:
            restricted = await compare(side, ContainmentGoal.RESTRICT, devices, rounds)
            isolated = await compare(side, ContainmentGoal.ISOLATE, devices, rounds)
    with StandInProcess(nodes=NODES) as emqx:  # a table without what the rounds before left
        (folder / "drift").mkdir()
        async with cordon(folder / "drift", emqx) as side:
            quiet, drifted, requests = await one_drifted_row(side, bans)
    print(
        f"comparison of {bans} bans: {quiet:.2f} s; one row gone, found and back: {drifted:.2f} s, {requests} requests"
    )
    return (
        f"restrict_{devices}_s={restricted[0]:.2f} restrict_ratio={restricted[2]:.2f} "
        f"isolate_{devices}_s={isolated[0]:.2f} isolate_ratio={isolated[2]:.2f} "
        f"reconcile_{bans}_s={quiet:.2f} reconcile_drifted_s={drifted:.2f} reconcile_requests={requests}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--bans", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store-in", type=Path, default=Path("/var/tmp"), help="folder of the store: a real disk")
    chosen = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(dir=chosen.store_in) as folder:
        print(uvloop.run(measure(Path(folder), chosen.devices, chosen.bans, chosen.rounds)))


if __name__ == "__main__":
    main()
