"""Whether a device is connected is asked of the broker where messages arrive in no order."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.adapters.sql.controllers import presence_pages
from controller.domain.events import StatusChanged
from controller.ports.errors import BrokerError
from controller.service.presence import SETTLE, PresenceCheck, PresenceSweep
from tests.support.controller_harness import ControllerHarness, open_harness


class Site:
    def __init__(self, harness: ControllerHarness) -> None:
        self.harness = harness
        self.logged: list[str] = []
        self.check = PresenceCheck(harness.fleet, harness.broker, lambda event, _: self.logged.append(event))
        harness.fleet.follow(self.check)
        self.sweep = PresenceSweep(self.check, harness.broker, presence_pages(harness.store), lambda *_: None)

    async def status(self, device_id: str, *, online: bool) -> None:
        event = StatusChanged(self.harness.fleet.new_id(), online, "boot-1")
        await self.harness.fleet.apply_and_commit(device_id, event)

    def online(self, device_id: str) -> bool | None:
        device = self.harness.fleet.get(device_id)
        assert device is not None
        return device.online

    async def settle(self) -> None:
        """Until nothing is left to ask."""
        for _ in range(5):
            self.harness.clock.at += SETTLE
            await self.check.run_once()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_harness(tmp_path / "store.db") as harness:
        yield Site(harness)


async def test_a_will_that_arrives_after_the_next_connection_is_taken_back(site: Site) -> None:
    await site.status("d1", online=True)
    site.harness.broker.online.add("d1")
    await site.status("d1", online=False)
    assert not await site.check.run_once(), "what is under way may still come"
    assert site.online("d1") is False
    await site.settle()
    assert site.online("d1") is True
    assert site.check.corrected == 1


async def test_a_device_that_is_gone_stays_offline(site: Site) -> None:
    await site.status("d1", online=True)
    await site.status("d1", online=False)
    await site.settle()
    assert site.online("d1") is False
    assert site.check.corrected == 0


async def test_a_correction_that_came_too_late_is_undone(site: Site) -> None:
    await site.status("d1", online=True)
    site.harness.broker.online.add("d1")
    await site.status("d1", online=False)
    site.harness.clock.at += SETTLE
    await site.check.run_once()
    site.harness.broker.online.clear()  # its will went to another controller, which decided before
    await site.settle()
    assert site.online("d1") is False
    assert site.check.corrected == 2


async def test_it_asks_again_when_the_broker_does_not_answer(site: Site) -> None:
    await site.status("d1", online=True)
    site.harness.broker.online.add("d1")
    await site.status("d1", online=False)
    site.harness.broker.fails.append(BrokerError("no answer"))
    await site.settle()
    assert site.logged == ["connections not compared with the broker"]
    assert site.online("d1") is True


async def test_who_begins_to_lead_learns_who_is_connected(site: Site) -> None:
    await site.status("came", online=False)
    await site.status("went", online=True)
    await site.status("stays", online=True)
    await site.settle()
    site.harness.broker.online.update(("came", "stays"))
    await site.sweep.sweep()
    await site.settle()
    assert [site.online(name) for name in ("came", "went", "stays")] == [True, False, True]
