"""Rules that a leader began to write when it ended."""

from pathlib import Path

import pytest

from controller.domain.events import ContainmentOrdered
from controller.domain.policy.model import ContainmentLevel
from controller.ports.access import WrittenRules, as_broker_rules
from controller.ports.broker_tables import is_restriction
from controller.service.broker.access import AccessRuleManager
from tests.support.controller_harness import open_harness
from tests.support.reports import full, incoming


@pytest.mark.parametrize("done", [False, True])
async def test_the_next_leader_restricts_again_what_a_write_under_way_may_have_replaced(
    tmp_path: Path, *, done: bool
) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("a", full("a", 1, 22))])
        order = ContainmentOrdered(harness.fleet.new_id(), ContainmentLevel.RESTRICTED, "operator:a", "odd", None)
        await harness.fleet.apply_and_commit("a", order)
        await harness.drain()
        manager: AccessRuleManager = harness.services.broker.access.access
        await manager.store.begin({"a": WrittenRules((), None)})
        if done:
            await manager.store.done(["a"])
        harness.broker.rules_held["a"] = as_broker_rules(())  # what the former leader sent last
        await manager.load()
        await manager.tick()
        assert is_restriction(harness.broker.rules_held["a"], "a") is not done
        assert harness.outbox.queue.is_busy("a") is not done, "it is read back"
        calls = len(harness.broker.calls)
        await harness.drain()
        await manager.tick()
        assert (len(harness.broker.calls) == calls) is done
