"""Nonce challenge: a recorded or delayed good report releases no device."""

from dataclasses import replace

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.challenge import is_release_evidence, nonce_for, requires_challenge
from controller.domain.device import ContainmentCase
from controller.domain.effects import ReleaseClient, RestrictClient, SendReceipt
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.model import ContainmentLevel, RuleResponse
from controller.domain.step import step
from schemas.events import ReceiptVerdict
from tests.support.playbook import DIGEST, START, Play, beat, device, given, policies, reported, rule

RULES = policies(rule("telnet", RuleResponse(contain=ContainmentLevel.RESTRICTED)))
GOOD = "sha256:" + "b" * 64


def receipts(play: Play) -> list[tuple[ReceiptVerdict, str]]:
    """Verdicts and nonces of the last step's receipts."""
    assert play.outcome is not None
    return [(receipt.verdict, receipt.nonce) for receipt in play.outcome.receipts]


def bad(answers: str | None = "", seq: int = 1, event_id: str = "bad") -> ev.PostureReported:
    return replace(reported("telnet", seq=seq, event_id=event_id), answers=answers)


def good(answers: str | None, seq: int, event_id: str) -> ev.PostureReported:
    return replace(reported(passing=("telnet",), seq=seq, digest=GOOD, event_id=event_id), answers=answers)


def contained() -> Play:
    """A restricted device whose agent answers nonces."""
    return given(device(), RULES).when(bad()).then(RestrictClient("", "d1", "", True))


def test_receipt_of_the_failing_report_has_a_nonce_whose_answer_releases() -> None:
    play = contained()
    nonce = nonce_for("bad")
    assert receipts(play) == [(ReceiptVerdict.ACCEPTED, nonce)]
    assert play.state.case is not None
    assert play.state.case.nonce == nonce
    play.when(good(nonce, 2, "good")).then(ReleaseClient("", "d1", ""))


@pytest.mark.parametrize("answers", [None, "", "0" * 32, nonce_for("earlier")])
def test_good_report_without_the_current_nonce_releases_no_device_and_another_is_requested(answers: str | None) -> None:
    play = contained().when(good(answers, 2, "recorded")).then_nothing()
    assert receipts(play) == [
        (ReceiptVerdict.ACCEPTED, nonce_for("bad")),
        (ReceiptVerdict.RESEND_FULL, nonce_for("bad")),
    ]
    assert play.state.level is ContainmentLevel.RESTRICTED
    play.when(good(nonce_for("bad"), 3, "fresh")).then(ReleaseClient("", "d1", ""))


def test_answer_to_the_nonce_of_an_earlier_case_releases_no_device() -> None:
    first = contained()
    answered = good(nonce_for("bad"), 2, "answer")
    free = first.when(answered).then(ReleaseClient("", "d1", ""))
    again = free.when(bad(nonce_for("bad"), 3, "bad2"))
    replayed = again.when(replace(answered, boot_id="", seq=4, event_id="replayed"))
    assert replayed.state.level is ContainmentLevel.RESTRICTED


def test_answered_nonce_is_replaced_even_without_a_release() -> None:
    play = contained().when(bad(nonce_for("bad"), 2, "still-bad"))
    assert receipts(play) == [(ReceiptVerdict.ACCEPTED, nonce_for("still-bad"))]
    held = play.when(good(nonce_for("bad"), 3, "late")).then_nothing()
    held.when(good(nonce_for("still-bad"), 4, "fresh")).then(ReleaseClient("", "d1", ""))


def test_heartbeat_after_a_hold_is_answered_with_a_challenge() -> None:
    held = given(device(answers=True), RULES).when(good("", 1, "first"))
    held = held.when(ev.ContainmentOrdered("op", ContainmentLevel.RESTRICTED, "operator:ada", "odd", 60.0))
    early = held.when(beat(digest=GOOD, event_id="early"), at=START + 30)
    assert receipts(early) == []
    late = held.when(beat(digest=GOOD, event_id="late"), at=START + 61).then_nothing()
    assert receipts(late) == [(ReceiptVerdict.RESEND_FULL, nonce_for("late"))]
    late.when(good(nonce_for("late"), 3, "fresh")).then(ReleaseClient("", "d1", ""))


def test_heartbeat_with_another_digest_is_answered_with_a_challenge() -> None:
    assert receipts(contained().when(beat(digest=GOOD))) == [(ReceiptVerdict.RESEND_FULL, nonce_for("bad"))]


def test_heartbeat_of_a_failing_posture_is_not_challenged() -> None:
    assert receipts(contained().when(beat(digest=DIGEST))) == []


def test_redelivered_report_gets_the_same_nonce_again() -> None:
    play = contained()
    assert receipts(play.when(replace(bad(), event_id="redelivered"))) == [(ReceiptVerdict.ACCEPTED, nonce_for("bad"))]


def test_agent_without_nonces_gets_none_and_is_released_by_a_passing_report() -> None:
    play = given(device(), RULES).when(bad(None)).then(RestrictClient("", "d1", "", True))
    assert receipts(play) == [(ReceiptVerdict.ACCEPTED, "")]
    play.when(good(None, 2, "good")).then(ReleaseClient("", "d1", ""))


def test_agent_that_answered_once_is_not_released_without_an_answer() -> None:
    play = given(device(), RULES).when(good("", 1, "new agent")).when(bad(None, 2, "bad"))
    held = play.when(good(None, 3, "as an older agent sends it")).then_nothing()
    assert held.state.level is ContainmentLevel.RESTRICTED
    freed = held.when(ev.ReleaseOrdered("op", "operator:ada", "downgraded"))
    freed.then(ReleaseClient("", "d1", ""))
    assert not freed.state.answers


def test_device_without_a_case_gets_no_nonce() -> None:
    play = given(device(), RULES).when(good("", 1, "good"))
    assert play.outcome is not None
    assert play.outcome.receipts == (SendReceipt("d1", 1, ReceiptVerdict.ACCEPTED, GOOD),)


def test_must_answer_rejects_release_evidence_without_a_nonce() -> None:
    case = ContainmentCase("c", ContainmentLevel.RESTRICTED, ("p/telnet",), "policy", "", START, START)
    state = device(case=case)
    assert is_release_evidence(state, START, None)
    assert requires_challenge(state, required=True)
    assert not is_release_evidence(state, START, None, required=True)
    assert not is_release_evidence(state, START, "", required=True)  # the case has no nonce yet


def test_must_answer_leaves_an_agent_without_nonces_to_an_operator() -> None:
    guards = FleetGuards(must_answer=True)
    held = step(device(), bad(None), START, RULES, guards).device
    first = step(held, good(None, 2, "good"), START + 1, RULES, guards)
    assert (first.device.level, first.effects) == (ContainmentLevel.RESTRICTED, ())
    assert [
        (entry.kind, entry.alert) for entry in first.audit if entry.kind.value.startswith("containment.release")
    ] == [(AuditKind.CONTAINMENT_RELEASE_BLOCKED, True)]
    again = step(first.device, good(None, 3, "again"), START + 2, RULES, guards)
    quiet = step(again.device, beat(digest=GOOD), START + 3, RULES, guards)
    assert quiet.device.level is ContainmentLevel.RESTRICTED
    assert [entry.kind for entry in (*again.audit, *quiet.audit)] == []
    freed = step(quiet.device, ev.ReleaseOrdered("op", "operator:ada", "inspected"), START + 4, RULES, guards)
    assert freed.device.level is ContainmentLevel.NONE


def test_must_answer_lets_an_answering_agent_be_released() -> None:
    guards = FleetGuards(must_answer=True)
    held = step(device(), bad(""), START, RULES, guards).device
    free = step(held, good(nonce_for("bad"), 2, "good"), START + 1, RULES, guards)
    assert free.device.level is ContainmentLevel.NONE
