"""A recorded good report frees nobody: a release needs a report that answers what was asked after the containment."""

from dataclasses import replace

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.challenge import may_release, must_answer, nonce_of
from controller.domain.device import ContainmentCase
from controller.domain.effects import ReleaseClient, RestrictClient, SendReceipt
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from controller.domain.step import step
from schemas.events import ReceiptVerdict
from tests.support.playbook import DIGEST, START, Play, beat, device, given, policies, reported, rule

RULES = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)))
GOOD = "sha256:" + "b" * 64


def told(play: Play) -> list[tuple[ReceiptVerdict, str]]:
    """Verdicts and nonces of the last receipts."""
    assert play.outcome is not None
    return [(one.verdict, one.nonce) for one in play.outcome.receipts]


def bad(answers: str | None = "", seq: int = 1, event_id: str = "bad") -> ev.PostureReported:
    return replace(reported("telnet", seq=seq, event_id=event_id), answers=answers)


def good(answers: str | None, seq: int, event_id: str) -> ev.PostureReported:
    return replace(reported(passing=("telnet",), seq=seq, digest=GOOD, event_id=event_id), answers=answers)


def contained() -> Play:
    """A device whose agent answers, restricted."""
    return given(device(), RULES).when(bad()).then(RestrictClient("", "d1", "", True))


def test_the_receipt_of_the_violation_carries_the_nonce_and_its_answer_frees() -> None:
    play = contained()
    nonce = nonce_of("bad")
    assert told(play) == [(ReceiptVerdict.ACCEPTED, nonce)]
    assert play.state.case is not None
    assert play.state.case.nonce == nonce
    play.when(good(nonce, 2, "good")).then(ReleaseClient("", "d1", ""))


@pytest.mark.parametrize("answers", [None, "", "0" * 32, nonce_of("earlier")])
def test_a_good_report_that_answers_nothing_of_now_frees_nobody_and_another_is_asked_for(answers: str | None) -> None:
    play = contained().when(good(answers, 2, "recorded")).then_nothing()
    assert told(play) == [(ReceiptVerdict.ACCEPTED, nonce_of("bad")), (ReceiptVerdict.RESEND_FULL, nonce_of("bad"))]
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(good(nonce_of("bad"), 3, "fresh")).then(ReleaseClient("", "d1", ""))


def test_the_answer_to_an_earlier_case_frees_nobody() -> None:
    first = contained()
    answered = good(nonce_of("bad"), 2, "answer")
    free = first.when(answered).then(ReleaseClient("", "d1", ""))
    again = free.when(bad(nonce_of("bad"), 3, "bad2"))
    replayed = again.when(replace(answered, boot_id="", seq=4, event_id="replayed"))
    assert replayed.state.level is ContainmentLevel.RESTRICTED


def test_an_answer_that_does_not_free_uses_its_nonce_up() -> None:
    play = contained().when(bad(nonce_of("bad"), 2, "still-bad"))
    assert told(play) == [(ReceiptVerdict.ACCEPTED, nonce_of("still-bad"))]
    held = play.when(good(nonce_of("bad"), 3, "late")).then_nothing()
    held.when(good(nonce_of("still-bad"), 4, "fresh")).then(ReleaseClient("", "d1", ""))


def test_a_heartbeat_after_a_hold_is_answered_with_the_question() -> None:
    held = given(device(answers=True), RULES).when(good("", 1, "first"))
    held = held.when(ev.ContainmentOrdered("op", ContainmentLevel.RESTRICTED, "operator:ada", "odd", 60.0))
    early = held.when(beat(digest=GOOD, event_id="early"), at=START + 30)
    assert told(early) == []
    late = held.when(beat(digest=GOOD, event_id="late"), at=START + 61).then_nothing()
    assert told(late) == [(ReceiptVerdict.RESEND_FULL, nonce_of("late"))]
    late.when(good(nonce_of("late"), 3, "fresh")).then(ReleaseClient("", "d1", ""))


def test_a_heartbeat_of_another_posture_is_asked_for_a_fresh_one() -> None:
    assert told(contained().when(beat(digest=GOOD))) == [(ReceiptVerdict.RESEND_FULL, nonce_of("bad"))]


def test_a_failing_heartbeat_is_asked_nothing() -> None:
    assert told(contained().when(beat(digest=DIGEST))) == []


def test_a_lost_receipt_is_told_again_with_its_nonce() -> None:
    play = contained()
    assert told(play.when(replace(bad(), event_id="redelivered"))) == [(ReceiptVerdict.ACCEPTED, nonce_of("bad"))]


def test_an_older_agent_is_sent_no_nonce_and_freed_as_before() -> None:
    play = given(device(), RULES).when(bad(None)).then(RestrictClient("", "d1", "", True))
    assert told(play) == [(ReceiptVerdict.ACCEPTED, "")]
    play.when(good(None, 2, "good")).then(ReleaseClient("", "d1", ""))


def test_an_agent_that_answered_once_is_not_believed_without() -> None:
    play = given(device(), RULES).when(good("", 1, "new agent")).when(bad(None, 2, "bad"))
    held = play.when(good(None, 3, "as an older agent says it")).then_nothing()
    assert held.state.level is ContainmentLevel.RESTRICTED
    freed = held.when(ev.ReleaseOrdered("op", "operator:ada", "set back to the older version"))
    freed.then(ReleaseClient("", "d1", ""))
    assert not freed.state.answers


def test_outside_a_case_nothing_is_asked() -> None:
    play = given(device(), RULES).when(good("", 1, "good"))
    assert play.outcome is not None
    assert play.outcome.receipts == (SendReceipt("d1", 1, ReceiptVerdict.ACCEPTED, GOOD),)


def test_required_of_all_an_older_agent_needs_an_operator() -> None:
    case = ContainmentCase("c", ContainmentLevel.RESTRICTED, ("p/telnet",), "policy", "", START, START)
    state = device(case=case)
    assert may_release(state, START, None)
    assert must_answer(state, required=True)
    assert not may_release(state, START, None, required=True)
    assert not may_release(state, START, "", required=True)  # no nonce was given: nothing answers it


def test_required_of_all_the_report_of_an_older_agent_frees_nobody() -> None:
    guards = FleetGuards(must_answer=True)
    held = step(device(), bad(None), START, RULES, guards).device
    first = step(held, good(None, 2, "good"), START + 1, RULES, guards)
    assert (first.device.level, first.effects) == (ContainmentLevel.RESTRICTED, ())
    assert [(one.kind, one.alert) for one in first.audit if one.kind.value.startswith("containment.release")] == [
        (AuditKind.CONTAINMENT_RELEASE_BLOCKED, True)
    ]
    again = step(first.device, good(None, 3, "again"), START + 2, RULES, guards)
    quiet = step(again.device, beat(digest=GOOD), START + 3, RULES, guards)
    assert quiet.device.level is ContainmentLevel.RESTRICTED
    assert [one.kind for one in (*again.audit, *quiet.audit)] == []
    freed = step(quiet.device, ev.ReleaseOrdered("op", "operator:ada", "seen by hand"), START + 4, RULES, guards)
    assert freed.device.level is ContainmentLevel.NONE


def test_required_of_all_an_agent_that_answers_is_freed_by_its_answer() -> None:
    guards = FleetGuards(must_answer=True)
    held = step(device(), bad(""), START, RULES, guards).device
    free = step(held, good(nonce_of("bad"), 2, "good"), START + 1, RULES, guards)
    assert free.device.level is ContainmentLevel.NONE
