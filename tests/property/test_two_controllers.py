"""Two controllers on one PostgreSQL end where one ends that is given the same: same levels, effects and audit lines."""

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.sql.store import SqlStore
from controller.domain import events as ev
from controller.domain.device import Device
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.model import ContainmentLevel
from controller.ports.messages import IncomingMessage
from controller.ports.store import StoreWrites
from schemas.posture import digest_of
from schemas.topics import UpChannel
from tests.support import reports
from tests.support.clocks import ManualClock
from tests.support.postgres import WHEEL, PostgresServers
from tests.support.postgres_store import opened as opened_postgres
from tests.support.reports import full, heartbeat, incoming
from tests.support.shared_store import OneController, SharedStore, controller_over
from tests.support.store import opened

pytestmark = pytest.mark.postgres

DEVICES = tuple(f"edge-{number}" for number in range(6))
PORTS = ((22,), (22, 23), (22, 2375), (23, 2375))  # none, telnet, docker, both
KINDS = ("report",) * 4 + ("beat", "status", "label", "contain", "release")
BOTH = 2
# What happens at once: to each device at most one thing, which comes to the first controller, the second, or to both.
ROUNDS = st.lists(
    st.dictionaries(
        st.sampled_from(DEVICES),
        st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, BOTH)),
        min_size=1,
    ),
    min_size=4,
    max_size=14,
)
Round = dict[str, tuple[str, int, int]]


def _message(device_id: str, kind: str, about: int, seq: int, at: float) -> IncomingMessage | None:
    match kind:
        case "report":
            payload = full(device_id, seq, *PORTS[about])
        case "beat":
            payload = heartbeat(device_id, seq, digest_of(reports.sections(*PORTS[about])))
        case "status":
            state = "online" if about % 2 else "offline"
            body = f'{{"v": 1, "state": "{state}", "boot_id": "boot"}}'.encode()
            return incoming(device_id, body, UpChannel.STATUS, at=at)
        case _:
            return None
    return incoming(device_id, payload, at=at)


def _order(kind: str, about: int, event_id: str) -> ev.DomainEvent:
    if kind == "label":
        return ev.DeviceLabelled(event_id, "camera", ("a", "b", "c")[:about], "operator:ada")
    if kind == "contain":
        level = ContainmentLevel.RESTRICTED if about % 2 else ContainmentLevel.ISOLATED
        return ev.ContainmentOrdered(event_id, level, "operator:ada", "r", None)
    return ev.ReleaseOrdered(event_id, "operator:ada", "r")


async def _play(controllers: Sequence[OneController], clock: ManualClock, rounds: list[Round]) -> None:
    """What comes to both comes twice to one that is alone."""
    for number, one in enumerate(rounds, 1):
        clock.at += 5.0
        batches: defaultdict[int, list[IncomingMessage]] = defaultdict(list)
        orders: list[Awaitable[Any]] = []
        for device_id, (kind, about, where) in one.items():
            message = _message(device_id, kind, about, number, clock.monotonic())
            for target in (0, 1) if where == BOTH and message is not None else (where % BOTH,):
                if message is not None:
                    batches[target].append(message)
                else:
                    event = _order(kind, about, f"{device_id}-{number}")
                    fleet = controllers[target % len(controllers)].fleet
                    orders.append(fleet.apply_and_commit(device_id, event))
        working = [
            controllers[target % len(controllers)].ingest.process_batch(batch) for target, batch in batches.items()
        ]
        if len(controllers) > 1:
            await asyncio.gather(*working, *orders)
        else:
            for work in (*working, *orders):
                await work


def _seen(device: Device, *, is_counted: bool) -> tuple[object, ...]:
    return (
        device.level, device.case and device.case.causes, device.pending, device.online, device.device_class,
        device.tags, device.report_seq, device.digest, is_counted and device.accepted, device.satisfied,
        {key: (state.result, state.streak, state.since) for key, state in device.rules.items()},
    )  # fmt: skip


async def _end(store: SqlStore, rounds: list[Round]) -> dict[str, Any]:
    """What is stored: each device, its effects, and the kinds of its audit lines in order.

    A report that came to two controllers at the same moment may count once or twice.
    """
    twice = {one for among in rounds for one, (_, _, where) in among.items() if where == BOTH}
    devices = {device.device_id: device for device, _ in await store.load(DEVICES)}
    effects = await store.effects()
    lines = await store.audit(newest_first=False, limit=10_000)
    assert (await store.check_audit()).is_intact
    return {
        one: (
            _seen(device, is_counted=one not in twice),
            sorted(type(effect).__name__ for effect in effects if effect.device_id == one),
            [line.entry.kind.value for line in lines if line.entry.device_id == one],
        )
        for one, device in devices.items()
    }


async def _alone(folder: Path, rounds: list[Round]) -> dict[str, Any]:
    clock = ManualClock()
    async with opened(folder / "one.db") as store:
        await _play([await controller_over(SharedStore(store), 1, clock)], clock, rounds)
        return await _end(store, rounds)


async def _two(
    url: str, rounds: list[Round], guards: FleetGuards = NO_GUARDS, known: Sequence[str] = ()
) -> dict[str, Any]:
    clock = ManualClock()
    async with opened_postgres(url, "c1") as first, opened_postgres(url, "c2") as second:
        await first.commit(StoreWrites(devices=tuple(Device(one, clock.at, clock.at) for one in known)))
        stores = enumerate((first, second), 1)
        await _play([await controller_over(store, writer, clock, guards) for writer, store in stores], clock, rounds)
        return await _end(first, rounds)


@given(rounds=ROUNDS)
@settings(max_examples=30)
def test_two_controllers_end_where_one_ends(postgres_servers: PostgresServers, rounds: list[Round]) -> None:
    server = postgres_servers[WHEEL]
    database = server.new_database()
    with tempfile.TemporaryDirectory() as folder:
        alone = asyncio.run(_alone(Path(folder), rounds))
    assert asyncio.run(_two(server.url(database), rounds)) == alone
    server.query("postgres", f"DROP DATABASE {database}")


@given(split=st.lists(st.integers(0, 1), min_size=6, max_size=6))
@settings(max_examples=10)
def test_the_limit_of_the_fleet_is_one_limit(postgres_servers: PostgresServers, split: list[int]) -> None:
    """Six devices violate at once, two may be contained: however they come to the controllers, two are."""
    server = postgres_servers[WHEEL]
    database = server.new_database()
    rounds: list[Round] = [{one: ("report", 1, where) for one, where in zip(DEVICES, split, strict=True)}]
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(2, 100.0, 600.0)))
    ends = asyncio.run(_two(server.url(database), rounds, guards, DEVICES))
    assert [level for (level, *_), _, _ in ends.values()].count(ContainmentLevel.RESTRICTED) == 2
    assert sum(pending is not None for (_, _, pending, *_), _, _ in ends.values()) == 4
    server.query("postgres", f"DROP DATABASE {database}")
