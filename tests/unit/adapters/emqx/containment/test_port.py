"""The contract of the port, for the EMQX adapter and for the broker in memory that tests of services use."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from controller.adapters.emqx.client.models import RuleRow, rule_body
from controller.domain.containment.plan import Subject
from controller.ports.broker import BrokerControl
from controller.ports.broker_tables import AccessRule, AccessRules, Ban, restriction
from controller.ports.errors import BrokerRefusedError
from tests.support.clocks import ManualClock
from tests.support.memory_broker import MemoryBroker
from tests.support.scripted_emqx import ScriptedEmqx

NAME = "dev"
DEVICE = Subject.client(NAME)
OWN = (AccessRule("fleet/#", "allow", "all"),)
CHANGED = (AccessRule("other/#", "deny", "all"),)


@dataclass
class Implementation:
    """A broker, and direct access to the rows of `dev`."""

    broker: BrokerControl
    rules: Callable[[], AccessRules]
    set_rules: Callable[[AccessRules], None]
    ban_author: Callable[[], str]
    set_foreign_ban: Callable[[], None]
    saved: list[AccessRules] = field(default_factory=list)

    async def save(self, rules: AccessRules) -> None:
        self.saved.append(rules)


def in_memory() -> Implementation:
    broker = MemoryBroker(ManualClock(1_800_000_000.0))

    def ban_author() -> str:
        ban = broker.bans_held.get(NAME)
        return "" if ban is None else ban.by

    def set_foreign_ban() -> None:
        broker.bans_held[NAME] = Ban("clientid", NAME, "somebody", "", 1.0, None)

    def set_rules(rules: AccessRules) -> None:
        broker.rules_held[NAME] = rules

    return Implementation(broker, lambda: broker.rules_held.get(NAME, ()), set_rules, ban_author, set_foreign_ban)


def over_http() -> Implementation:
    cluster = ScriptedEmqx()
    cluster.session = "none"

    def rules() -> AccessRules:
        tables = [json.dumps(table.get(NAME, [])) for table in cluster.rules.values()]
        assert len(set(tables)) == 1, "every node has the same rules"
        return tuple(RuleRow.model_validate(row).rule() for row in json.loads(tables[0]))

    def set_rules(rules: AccessRules) -> None:
        for table in cluster.rules.values():
            table[NAME] = [rule_body(rule) for rule in rules]

    def set_foreign_ban() -> None:
        cluster.bans[NAME] = {"as": "clientid", "who": NAME, "by": "somebody", "at": 1, "until": "infinity"}

    return Implementation(
        cluster.broker(), rules, set_rules, lambda: str(cluster.bans.get(NAME, {}).get("by", "")), set_foreign_ban
    )


@pytest.fixture(params=[in_memory, over_http])
def it(request: pytest.FixtureRequest) -> Implementation:
    made: Implementation = request.param()
    return made


async def test_a_restriction_saves_the_rules_once(it: Implementation) -> None:
    it.set_rules(OWN)
    for _ in range(2):
        assert (await it.broker.restrict(DEVICE, it.save)).holds
    assert it.rules() == restriction(NAME)
    assert it.saved == [OWN]
    assert it.ban_author() == ""


async def test_an_isolation_bans_above_a_restriction_that_stays_when_it_ends(it: Implementation) -> None:
    it.set_rules(OWN)
    assert (await it.broker.isolate(DEVICE, it.save, case="c", reason="r", until=None)).holds
    assert (it.ban_author(), it.rules(), it.saved) == ("cordon/c", restriction(NAME), [OWN])
    assert (await it.broker.end_isolation(DEVICE, it.save)).holds
    assert (it.ban_author(), it.rules(), it.saved) == ("", restriction(NAME), [OWN])


async def test_the_end_of_an_isolation_that_was_never_carried_out_restricts_and_saves(it: Implementation) -> None:
    it.set_rules(OWN)
    assert (await it.broker.end_isolation(DEVICE, it.save)).holds
    assert (it.rules(), it.saved) == (restriction(NAME), [OWN])


@pytest.mark.parametrize("before", [OWN, ()])
async def test_a_release_restores_the_rules_and_lifts_the_ban(it: Implementation, before: AccessRules) -> None:
    await it.broker.isolate(DEVICE, it.save, case="c", reason="r", until=None)
    for _ in range(2):
        assert (await it.broker.release(DEVICE, before)).holds
        assert (it.ban_author(), it.rules()) == ("", before)


async def test_a_release_leaves_rules_that_others_changed(it: Implementation) -> None:
    await it.broker.restrict(DEVICE, it.save)
    it.set_rules(CHANGED)
    assert (await it.broker.release(DEVICE, OWN)).holds
    assert it.rules() == CHANGED


async def test_a_foreign_ban_is_never_touched(it: Implementation) -> None:
    it.set_foreign_ban()
    assert (await it.broker.isolate(DEVICE, it.save, case="c", reason="r", until=None)).holds
    assert (await it.broker.end_isolation(DEVICE, it.save)).holds
    assert (await it.broker.release(DEVICE, ())).holds
    assert it.ban_author() == "somebody"


async def test_an_invalid_client_id_is_refused(it: Implementation) -> None:
    with pytest.raises(BrokerRefusedError):
        it.broker.check(Subject.client(".."))
