"""What a release restores is the same on a controller that does not keep the access rules."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.adapters.access.templates import parse_templates
from controller.adapters.sql.access import SqlAccessStore
from controller.domain.broker.access import AccessGrant
from controller.ports.access import StoredTemplates, WrittenRules, as_broker_rules
from controller.ports.broker_tables import AccessRule, AccessRules
from controller.service.broker.release_rules import ReleaseRules
from tests.support.access_templates import TEMPLATES
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.reports import full, incoming

FOREIGN: AccessRules = (AccessRule("theirs/#", "allow", "all"),)


@dataclass
class Releasing:
    """A device, the stored rules, and what restores them."""

    harness: ControllerHarness
    store: SqlAccessStore
    rules: ReleaseRules

    async def apply(self, text: str = TEMPLATES) -> None:
        await self.store.put_templates(StoredTemplates(text, self.harness.clock.now(), "tests"))

    async def of_template(self) -> AccessRules:
        await self.harness.services.broker.access.access.load()
        manager = self.harness.services.broker.access.access
        device = await self.harness.fleet.find("a")
        assert device is not None
        wanted = manager.desired_rules(device)
        assert wanted is not None
        return as_broker_rules(wanted)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Releasing]:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("a", full("a", 1, 22))])
        store = SqlAccessStore(harness.store)
        rules = ReleaseRules(harness.fleet, store, lambda text: parse_templates(text, "templates"))
        yield Releasing(harness, store, rules)


@pytest.mark.parametrize("kept", [(), FOREIGN])
async def test_without_a_template_a_device_gets_back_what_it_had(place: Releasing, kept: AccessRules) -> None:
    assert await place.rules.rules_after("a", kept) == kept
    assert await place.rules.rules_after("unknown", kept) == kept


async def test_with_a_template_it_gets_the_rules_of_now_which_are_stored_first(place: Releasing) -> None:
    await place.apply()
    wanted = await place.of_template()
    assert await place.rules.rules_after("a", ()) == wanted
    stored = (await place.store.written(["a", "b"]))["a"]
    assert (as_broker_rules(stored.rules), stored.done) == (wanted, False)
    await place.apply(TEMPLATES.replace("fleet/$", "other/$"))
    again = await place.rules.rules_after("a", wanted)
    assert again == await place.of_template()
    assert again != wanted


async def test_rules_of_others_are_given_back(place: Releasing) -> None:
    await place.apply()
    assert await place.rules.rules_after("a", FOREIGN) == FOREIGN
    assert await place.store.written(["a"]) == {}


async def test_rules_of_a_template_that_was_withdrawn_are_not_given_back(place: Releasing) -> None:
    await place.apply()
    wanted = await place.of_template()
    await place.rules.rules_after("a", ())
    await place.store.drop_templates()
    assert await place.rules.rules_after("a", wanted) == ()
    assert await place.rules.rules_after("a", FOREIGN) == FOREIGN


async def test_a_grant_in_force_counts(place: Releasing) -> None:
    now = place.harness.clock.now()
    await place.store.put_grant(AccessGrant("g", "a", "publish", "more/#", "r", "tests", now, now + 60.0))
    granted = await place.rules.rules_after("a", ())
    assert "more/#" in [one.topic for one in granted]
    place.harness.clock.at += 61.0
    assert await place.rules.rules_after("a", granted) == ()


async def test_a_controller_that_keeps_the_rules_uses_its_memory(place: Releasing) -> None:
    await place.apply()
    manager = place.harness.services.broker.access.access
    place.rules.follow(manager)
    assert await place.rules.rules_after("a", FOREIGN) == FOREIGN  # it has not read the templates
    place.rules.follow(None)
    await place.store.begin({"a": WrittenRules(())})
    assert await place.rules.rules_after("a", ()) == await place.of_template()
