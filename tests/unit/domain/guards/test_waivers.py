"""A waived rule goes on failing and nothing follows; when the waiver ends, it bites by itself."""

from dataclasses import replace

import pytest

from controller.domain import events as ev
from controller.domain.containment.deadlines import next_deadline
from controller.domain.effects import ReleaseClient, RestrictClient
from controller.domain.guards.guards import FleetGuards
from controller.domain.guards.waivers import Waiver, Waivers
from controller.domain.policy.model import ContainmentLevel, Remedy, RuleResponse
from controller.domain.step import step
from tests.support.playbook import START, device, policies, reported, rule

RULES = policies(
    rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=Remedy("rescan"))), rule("other")
)
ONE = Waiver("w1", "p/telnet", "owner", "why", "operator:ada", START, START + 100, device="d1")


def _guards(*waivers: Waiver) -> FleetGuards:
    return FleetGuards(waivers=Waivers(waivers))


@pytest.mark.parametrize(
    ("changes", "covers"),
    [
        ({}, True),
        ({"device": "d2"}, False),
        ({"device": "", "tag": "lab"}, True),
        ({"device": "", "tag": "hall"}, False),
        ({"device": "", "expression": "x"}, True),
        ({"device": "", "expression": "x", "waiver_id": "w2"}, False),
        ({"rule": "p/*"}, True),
        ({"rule": "q/*"}, False),
        ({"rule": "p/other"}, False),
        ({"expires_at": START}, False),
    ],
)
def test_whom_and_what_it_covers(changes: dict[str, str], covers: bool) -> None:
    waiver = replace(ONE, **changes)  # type: ignore[arg-type]  # the fields are all texts but one
    mine = device(tags=("lab",), predicates=("waiver:w1",))
    assert (Waivers((waiver,)).covering("p/telnet", mine, START) is not None) is covers
    assert waiver.covers_rule("p/telnet") is (waiver.rule in ("p/telnet", "p/*"))


def test_of_several_the_one_that_lasts_longest_counts() -> None:
    longer = replace(ONE, waiver_id="w2", rule="p/*", expires_at=START + 500)
    waivers = Waivers((ONE, longer))
    assert waivers.covering("p/telnet", device(), START) == longer
    assert waivers.without_waivers("w2").covering("p/telnet", device(), START) == ONE
    assert not waivers.without_waivers("w1", "w2")
    assert Waivers().with_waiver(ONE).all == {"w1": ONE}


def test_a_waived_rule_fails_and_nothing_follows() -> None:
    outcome = step(device(), reported("telnet"), START, RULES, _guards(ONE))
    assert outcome.device.rules["p/telnet"].result.value == "fail"
    assert outcome.device.satisfied == 0
    assert outcome.device.case is None
    assert not outcome.effects


def test_when_it_ends_the_rule_bites_without_a_new_report() -> None:
    waived = step(device(), reported("telnet"), START, RULES, _guards(ONE)).device
    assert next_deadline(waived, RULES, _guards(ONE), START) == START + 100
    early = step(waived, ev.DeadlineReached("t"), START + 99, RULES, _guards(ONE))
    assert early.device.case is None
    outcome = step(waived, ev.DeadlineReached("t"), START + 100, RULES, _guards(ONE))
    assert outcome.device.level is ContainmentLevel.RESTRICTED
    assert isinstance(outcome.effects[0], RestrictClient)
    assert next_deadline(outcome.device, RULES, _guards(ONE), START + 100) != START + 100


def test_a_silent_device_is_not_contained_when_a_waiver_ends() -> None:
    waived = step(device(), reported("telnet"), START, RULES, _guards(ONE)).device
    silent = step(waived, ev.DeviceWentStale("s", 50.0), START + 50, RULES, _guards(ONE)).device
    assert step(silent, ev.DeadlineReached("t"), START + 100, RULES, _guards(ONE)).device.case is None
    unheard = replace(_guards(ONE), fresh_for=60.0)
    assert step(waived, ev.DeadlineReached("t"), START + 100, RULES, unheard).device.case is None


def test_a_device_whose_only_cause_is_waived_is_free_with_its_next_report() -> None:
    contained = step(device(), reported("telnet"), START, RULES).device
    waiver = replace(ONE, expires_at=START + 1000)
    assert step(contained, ev.DeadlineReached("t"), START + 1, RULES, _guards(waiver)).device.case is not None
    outcome = step(contained, reported("telnet", seq=2), START + 5, RULES, _guards(waiver))
    assert outcome.device.case is None
    assert [type(effect) for effect in outcome.effects] == [ReleaseClient]
    assert "p/telnet" in outcome.device.rules
