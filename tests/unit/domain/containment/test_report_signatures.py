"""The replay window and the age limits of signed reports."""

from dataclasses import replace

import hypothesis
from hypothesis import strategies as st

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.report_signatures import MAX_AHEAD, WINDOW, ReplayWindow, age_rejection_reason
from controller.domain.evidence import Evidence
from tests.support.playbook import DIGEST, device, given, reported


@hypothesis.given(st.lists(st.integers(0, 300), max_size=80))
def test_each_number_is_accepted_once_and_none_below_the_window(numbers: list[int]) -> None:
    window, accepted = ReplayWindow(), set[int]()
    for seq in numbers:
        is_new = seq not in accepted and seq > window.highest - WINDOW
        assert (window.rejection_reason(seq) == "") is is_new
        if is_new:
            window = window.accept(seq)
            accepted.add(seq)
            assert window.highest == max(accepted)


def test_window_after_a_restart_rejects_numbers_up_to_the_last_report() -> None:
    window = ReplayWindow.starting_at(500)
    assert all(window.rejection_reason(seq) for seq in (500, 499, 440, 3))
    assert window.rejection_reason(501) == ""


def test_gap_counts_skipped_numbers() -> None:
    assert ReplayWindow().gap_before(77) == 0
    assert ReplayWindow.starting_at(5).gap_before(6) == 0
    assert ReplayWindow.starting_at(5).gap_before(9) == 3
    assert ReplayWindow.starting_at(5).gap_before(4) == 0


def test_reports_too_old_or_too_far_ahead_are_rejected() -> None:
    assert age_rejection_reason(1000.0, 1000.0, 60.0) == ""
    assert "delayed, or a wrong clock" in age_rejection_reason(1000.0, 1061.0, 60.0)
    assert age_rejection_reason(1000.0 + MAX_AHEAD, 1000.0, 60.0) == ""
    assert "clock is wrong" in age_rejection_reason(1001.0 + MAX_AHEAD, 1000.0, 60.0)


def test_signed_report_is_recorded_with_gaps_and_a_missed_receipt() -> None:
    signed = replace(reported(), evidence=Evidence.SIGNED)
    play = given(device()).when(signed)
    play.recorded(AuditKind.REPORT_FIRST_ACCEPTED, AuditKind.REPORT_SIGNING_STARTED)
    assert play.state.signs
    play = play.when(replace(signed, seq=5, missing=3, receipt="sha256:older"))
    play.recorded(AuditKind.REPORT_SEQUENCE_GAP_FOUND, AuditKind.REPORT_RECEIPT_MISSED)
    assert play.state.gaps == 1
    play.when(replace(signed, seq=6, receipt=DIGEST)).recorded()


def test_operator_lifts_the_signature_requirement() -> None:
    lifted = ev.SignatureRequirementLifted("l", "operator:ada", "key lost")
    play = given(device(signs=True)).when(lifted).recorded(AuditKind.REPORT_SIGNING_WAIVED)
    assert not play.state.signs
