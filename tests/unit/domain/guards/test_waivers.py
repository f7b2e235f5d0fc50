"""Waivers: a waived rule fails without a response until the waiver ends."""

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
WAIVER = Waiver("w1", "p/telnet", "owner", "why", "operator:ada", START, START + 100, device="d1")


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
def test_waiver_covers_its_rule_and_devices(changes: dict[str, str], covers: bool) -> None:
    waiver = replace(WAIVER, **changes)  # type: ignore[arg-type]  # the fields are all texts but one
    target = device(tags=("lab",), predicates=("waiver:w1",))
    assert (Waivers((waiver,)).covering("p/telnet", target, START) is not None) is covers
    assert waiver.covers_rule("p/telnet") is (waiver.rule in ("p/telnet", "p/*"))


def test_waiver_that_ends_last_counts() -> None:
    longer = replace(WAIVER, waiver_id="w2", rule="p/*", expires_at=START + 500)
    waivers = Waivers((WAIVER, longer))
    assert waivers.covering("p/telnet", device(), START) == longer
    assert waivers.without_waivers("w2").covering("p/telnet", device(), START) == WAIVER
    assert not waivers.without_waivers("w1", "w2")
    assert Waivers().with_waiver(WAIVER).all == {"w1": WAIVER}


def test_waived_rule_fails_without_a_response() -> None:
    outcome = step(device(), reported("telnet"), START, RULES, _guards(WAIVER))
    assert outcome.device.rules["p/telnet"].result.value == "fail"
    assert outcome.device.satisfied == 0
    assert outcome.device.case is None
    assert not outcome.effects


def test_end_of_a_waiver_contains_without_a_new_report() -> None:
    waived = step(device(), reported("telnet"), START, RULES, _guards(WAIVER)).device
    assert next_deadline(waived, RULES, _guards(WAIVER), START) == START + 100
    early = step(waived, ev.DeadlineReached("t"), START + 99, RULES, _guards(WAIVER))
    assert early.device.case is None
    outcome = step(waived, ev.DeadlineReached("t"), START + 100, RULES, _guards(WAIVER))
    assert outcome.device.level is ContainmentLevel.RESTRICTED
    assert isinstance(outcome.effects[0], RestrictClient)
    assert next_deadline(outcome.device, RULES, _guards(WAIVER), START + 100) != START + 100


def test_end_of_a_waiver_does_not_contain_a_silent_device() -> None:
    waived = step(device(), reported("telnet"), START, RULES, _guards(WAIVER)).device
    silent = step(waived, ev.DeviceWentStale("s", 50.0), START + 50, RULES, _guards(WAIVER)).device
    assert step(silent, ev.DeadlineReached("t"), START + 100, RULES, _guards(WAIVER)).device.case is None
    not_fresh = replace(_guards(WAIVER), fresh_for=60.0)
    assert step(waived, ev.DeadlineReached("t"), START + 100, RULES, not_fresh).device.case is None


def test_next_report_releases_a_device_whose_only_cause_is_waived() -> None:
    contained = step(device(), reported("telnet"), START, RULES).device
    waiver = replace(WAIVER, expires_at=START + 1000)
    assert step(contained, ev.DeadlineReached("t"), START + 1, RULES, _guards(waiver)).device.case is not None
    outcome = step(contained, reported("telnet", seq=2), START + 5, RULES, _guards(waiver))
    assert outcome.device.case is None
    assert [type(effect) for effect in outcome.effects] == [ReleaseClient]
    assert "p/telnet" in outcome.device.rules
