"""What the leader compares the broker with is what other controllers decided."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

from controller.ports.broker_tables import BrokerTables
from controller.service.containment import comparison
from tests.support.clocks import ManualClock
from tests.support.controller_harness import open_harness
from tests.support.reports import full, incoming
from tests.support.shared_store import controller_over


class _EmptyTables:
    """A broker without bans and rules."""

    prefixes: frozenset[str] = frozenset()

    async def bans(self, *_arguments: object) -> AsyncIterator[object]:
        for nothing in tuple[object, ...]():
            yield nothing

    rules = bans


async def test_a_restriction_that_another_controller_wrote_and_the_broker_lost_is_missed(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        clock = ManualClock()
        leader, other = [await controller_over(harness.store, number, clock) for number in (2, 3)]
        await leader.ingest.process_batch([incoming("d", full("d", 1, 22))])
        await other.ingest.process_batch([incoming("d", full("d", 2, 23))])
        tables = cast("BrokerTables", _EmptyTables())
        found = await comparison.compare("node", tables, leader.fleet, {}, lambda _: False)
        assert [(one.device.device_id, one.what) for one in found.suspects] == [("d", comparison.RULES_MISSING)]
