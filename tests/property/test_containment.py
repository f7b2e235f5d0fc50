"""Invariants of containment over any sequence of events."""

from dataclasses import replace
from math import inf
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controller.domain import events as ev
from controller.domain.containment.cases import POLICY, PROBATION
from controller.domain.containment.deadlines import next_deadline
from controller.domain.device import Device
from controller.domain.effects import EndIsolation, IsolateClient, ReleaseClient, RestrictClient, SendCommand
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import ContainmentLevel, Remedy, RuleResponse
from controller.domain.step import step
from controller.domain.transition import StepOutcome
from schemas.commands import CommandState
from tests.support.playbook import START, device, policies
from tests.support.playbook import rule as policy_rule

pytestmark = pytest.mark.slow

REPAIR: Final = Remedy("service.disable", (("name", "telnetd"),))
POLICIES: Final = policies(
    policy_rule("restrict", RuleResponse(contain=ContainmentLevel.RESTRICTED, remedy=REPAIR)),
    policy_rule("slow", RuleResponse(contain=ContainmentLevel.RESTRICTED, consecutive=2, grace=120.0)),
    policy_rule("isolate", RuleResponse(contain=ContainmentLevel.ISOLATED, isolate_for=300.0)),
    policy_rule(
        "patient", RuleResponse(contain=ContainmentLevel.ISOLATED, consecutive=3, grace=600.0, isolate_for=60.0)
    ),
    policy_rule("note", RuleResponse(remedy=REPAIR)),
)
DIGESTS: Final = tuple(f"sha256:{c * 64}" for c in "ab")
results = st.sampled_from(
    [RuleResult.PASS, RuleResult.PASS, RuleResult.FAIL, RuleResult.UNKNOWN, RuleResult.ERROR, RuleResult.NOTAPPLICABLE]
)
findings = st.fixed_dictionaries(dict.fromkeys(POLICIES.rules, results)).map(
    lambda chosen: tuple(Finding(key, result) for key, result in chosen.items())
)
holds = st.one_of(st.none(), st.sampled_from([1.0, 60.0, 3600.0]))
REQUESTS: Final = (ev.ContainmentOrdered, ev.ReleaseOrdered, ev.ContainmentApproved, ev.ContainmentDismissed)
FRESH: Final = (ev.PostureReported, ev.HeartbeatReceived)


class Containment(RuleBasedStateMachine):
    """Steps a device through events and checks each transition against the invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.device = device()
        self.now = START
        self.events = 0
        self.effect_ids: set[str] = set()
        self.counters: dict[str, int] = {}
        self.held_until = 0.0

    def apply(self, kind: Any, **values: Any) -> None:
        self.events += 1
        event = kind(event_id=f"e{self.events}", **values)
        before = self.device
        outcome = step(before, event, self.now, POLICIES)
        assert step(before, event, self.now, POLICIES) == outcome, "the same event stepped twice differs"
        self.device = outcome.device
        self._check_decision(event, outcome)
        self._check_containment(before, event)
        self._follow_operator(event)
        self._check_effects(outcome.effects)
        self._check_levels_have_their_effects(before, event, outcome.effects)

    def _check_decision(self, event: ev.DomainEvent, outcome: StepOutcome) -> None:
        is_request = isinstance(event, REQUESTS)
        assert (outcome.decision is not None) == is_request, "exactly the requests of operators have a decision"
        if outcome.decision is not None:
            assert outcome.decision.value in {entry.kind.value for entry in outcome.audit}

    def _check_containment(self, before: Device, event: ev.DomainEvent) -> None:
        was, now = before.level, self.device.level
        if now.rank > was.rank and not isinstance(event, ev.ContainmentOrdered):
            causes = self.device.case.causes if self.device.case is not None else ()
            due = [key for key in causes if self._is_due(key)]
            assert any(POLICIES.rules[key].response.contain.rank >= now.rank for key in due), (
                "contained without a rule that is due"
            )
            assert self.now >= before.refused_until, "contained again at once after a refusal"
            assert before.case is None or self.now >= before.case.probation_until, "isolated during its probation"
        if was is not ContainmentLevel.NONE and now is ContainmentLevel.NONE:
            assert was is ContainmentLevel.RESTRICTED or isinstance(event, ev.ContainmentRefused), (
                "isolation went straight to none"
            )
            if isinstance(event, ev.ContainmentRefused):
                assert before.case is not None
                assert before.case.by == POLICY
                assert before.case.proven_level is ContainmentLevel.NONE
            else:
                assert isinstance(event, (*FRESH, ev.ReleaseOrdered)), "released without evidence"
                if isinstance(event, FRESH):
                    assert before.case is not None
                    assert self.now >= self.held_until, "released while an operator holds it"
                    assert not set(before.case.causes) & set(self.device.rules), "released while a cause is open"
        if was is ContainmentLevel.ISOLATED and now is ContainmentLevel.RESTRICTED:
            assert isinstance(event, (ev.DeadlineReached, ev.ReleaseOrdered, ev.ContainmentRefused))

    def _is_due(self, key: str) -> bool:
        """Independent of the domain, so that a mistake there is found."""
        state, response = self.device.rules.get(key), POLICIES.rules[key].response
        if state is None or state.result is not RuleResult.FAIL:
            return False
        return state.streak >= response.consecutive and self.now >= state.since + response.grace

    def _follow_operator(self, event: ev.DomainEvent) -> None:
        case = self.device.case
        if isinstance(event, ev.ReleaseOrdered) or case is None:
            self.held_until = 0.0
        elif isinstance(event, ev.ContainmentOrdered) and case.level is event.level:
            self.held_until = inf if event.hold is None else self.now + event.hold

    def _check_effects(self, effects: Any) -> None:
        ids = [effect.effect_id for effect in effects]
        assert len(set(ids)) == len(ids)
        assert not self.effect_ids & set(ids), "an effect's id was used before"
        self.effect_ids.update(ids)
        for effect in effects:
            if isinstance(effect, SendCommand) and effect.command_id not in self.counters:
                assert effect.counter > max(self.counters.values(), default=-1), "a counter did not grow"
                self.counters[effect.command_id] = effect.counter
            elif isinstance(effect, SendCommand):
                assert effect.counter == self.counters[effect.command_id]

    def _check_levels_have_their_effects(self, before: Device, event: ev.DomainEvent, effects: Any) -> None:
        kinds = {type(effect) for effect in effects}
        was, now = before.level, self.device.level
        if isinstance(event, ev.ContainmentRefused):
            # What an operator holds and nobody carried out yet is asked for again.
            assert kinds <= {RestrictClient}
            assert not kinds or self.held_until > self.now
        elif now.rank > was.rank:
            assert (IsolateClient if now is ContainmentLevel.ISOLATED else RestrictClient) in kinds
        elif now.rank < was.rank:
            assert (ReleaseClient if now is ContainmentLevel.NONE else EndIsolation) in kinds

    @rule(
        found=findings,
        seq=st.integers(0, 6),
        digest=st.sampled_from(DIGESTS),
        boot_id=st.sampled_from(["", "x", "y"]),
    )
    def report(self, found: tuple[Finding, ...], seq: int, digest: str, boot_id: str) -> None:
        self.apply(
            ev.PostureReported,
            seq=seq,
            digest=digest,
            boot_id=boot_id,
            agent="1",
            received_at=self.now,
            findings=found,
            judged_by="v1",
        )

    @rule(found=findings)
    def report_in_order(self, found: tuple[Finding, ...]) -> None:
        self.report(found, self.device.report_seq + 1, DIGESTS[0], "x")

    @rule(digest=st.sampled_from(DIGESTS), found=st.none() | findings)
    def heartbeat(self, digest: str, found: tuple[Finding, ...] | None) -> None:
        self.apply(ev.HeartbeatReceived, seq=1, digest=digest, received_at=self.now, findings=found, judged_by="v1")

    @rule(seconds=st.sampled_from([0.0, 1.0, 60.0, PROBATION, 300.0, 700.0, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.apply(ev.DeadlineReached)

    @rule()
    def deadline_passes(self) -> None:
        due = next_deadline(self.device, POLICIES)
        if due is not None:
            self.now = max(self.now, due)
            self.apply(ev.DeadlineReached)

    @rule()
    def device_becomes_stale(self) -> None:
        self.apply(ev.DeviceWentStale, after=300.0)

    @rule(online=st.booleans())
    def status(self, online: bool) -> None:
        self.apply(ev.StatusChanged, online=online, boot_id="x")

    @rule(level=st.sampled_from([ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]), hold=holds)
    def operator_contains(self, level: ContainmentLevel, hold: float | None) -> None:
        self.apply(ev.ContainmentOrdered, level=level, by="ada", reason="r", hold=hold)

    @rule()
    def operator_releases(self) -> None:
        self.apply(ev.ReleaseOrdered, by="ada", reason="r")

    @rule(ttl=st.sampled_from([1.0, 600.0]))
    def operator_commands(self, ttl: float) -> None:
        self.apply(ev.CommandRequested, action="rescan", params=(), by="ada", ttl=ttl, dry_run=False)

    @precondition(lambda self: self.device.commands)
    @rule(state=st.sampled_from(list(CommandState)), pick=st.integers(0, 99))
    def device_reports_result(self, state: CommandState, pick: int) -> None:
        command = self.device.commands[pick % len(self.device.commands)]
        self.apply(ev.CommandReported, command_id=command.command_id, state=state, reason="", detail=())

    @precondition(lambda self: self.device.case is not None)
    @rule(level=st.sampled_from([ContainmentLevel.RESTRICTED, ContainmentLevel.ISOLATED]))
    def proven(self, level: ContainmentLevel) -> None:
        assert self.device.case is not None
        self.apply(ev.ContainmentProven, case_id=self.device.case.case_id, level=level, cut_at=self.now, steps=())

    @precondition(lambda self: self.device.case is not None)
    @rule()
    def refused(self) -> None:
        assert self.device.case is not None
        self.apply(ev.ContainmentRefused, case_id=self.device.case.case_id, reason="claimed")

    @invariant()
    def passed_deadline_changes_something(self) -> None:
        """A passed deadline that changes nothing would be due again and again."""
        due = next_deadline(self.device, POLICIES)
        if due is None:
            return
        now = max(self.now, due)
        after = step(self.device, ev.DeadlineReached("probe"), now, POLICIES).device
        later = next_deadline(after, POLICIES)
        assert later is None or later > now or replace(after) != self.device, "a deadline that never ends"

    @invariant()
    def unknown_and_error_never_satisfy_a_rule(self) -> None:
        assert all(not state.result.is_satisfied for state in self.device.rules.values())

    @invariant()
    def isolation_by_policy_has_an_end(self) -> None:
        case = self.device.case
        if case is not None and case.level is ContainmentLevel.ISOLATED and case.by == POLICY:
            assert case.isolate_until is not None


TestContainment = Containment.TestCase
TestContainment.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
