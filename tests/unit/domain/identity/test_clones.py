"""Detection of two machines with the identity of one device."""

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.identity.clones import (
    MANY,
    MAX_DEVICES,
    QUIET,
    SWITCHES,
    WINDOW,
    CloneDetector,
    CloneSuspicion,
    SessionTakenOver,
)
from tests.support.playbook import START, device, given, reported

A, B = "192.0.2.1", "192.0.2.2"


def suspicions(
    *peers: str, every: float = 5.0, detector: CloneDetector | None = None, at: float = START
) -> list[CloneSuspicion]:
    detector = detector or CloneDetector()
    observed = [
        detector.observe(SessionTakenOver("d1", at + number * every, peer)) for number, peer in enumerate(peers)
    ]
    return [suspicion for suspicion in observed if suspicion is not None]


def test_two_addresses_in_turn_are_suspicious() -> None:
    (suspicion,) = suspicions(A, B, A, B)
    assert (suspicion.device_id, suspicion.peers, suspicion.times) == ("d1", (A, B), SWITCHES + 1)
    assert "in turn" in suspicion.how


@pytest.mark.parametrize("peers", [(A,), (A, B), (A, B, A), (A,) * (MANY - 1), (A, B, "192.0.2.3")], ids=",".join)
def test_single_moves_and_reconnects_are_not_suspicious(peers: tuple[str, ...]) -> None:
    assert suspicions(*peers) == []


def test_many_takeovers_from_one_address_are_suspicious() -> None:
    (suspicion,) = suspicions(*(A,) * MANY)
    assert "again and again" in suspicion.how


def test_rare_takeovers_are_not_suspicious() -> None:
    assert suspicions(*(A, B) * 10, every=WINDOW) == []


def test_suspicion_is_raised_once_an_hour() -> None:
    detector = CloneDetector()
    assert len(suspicions(*(A, B) * 8, detector=detector)) == 1
    assert len(suspicions(*(A, B) * 4, detector=detector, at=START + QUIET + 60)) == 1


def test_memory_is_bounded() -> None:
    detector = CloneDetector()
    for number in range(MAX_DEVICES + 10):
        detector.observe(SessionTakenOver(f"d{number}", START, A))
    assert len(detector) == MAX_DEVICES


def test_report_of_an_ended_boot_is_an_alert_once_an_hour() -> None:
    play = given(device())
    for number, boot in enumerate(("b1", "b2", "b1", "b2")):
        play = play.when(reported(boot_id=boot, seq=number + 1, event_id=f"r{number}"))
        assert play.outcome is not None
        alerts = [entry for entry in play.outcome.audit if entry.kind == AuditKind.DEVICE_CLONE_SUSPECTED]
        assert len(alerts) == (1 if number == 2 else 0)
        assert all(entry.alert for entry in alerts)
    play = play.when(reported(boot_id="b1", seq=9, event_id="x"), at=START + QUIET)
    assert play.outcome is not None
    assert AuditKind.DEVICE_CLONE_SUSPECTED in [entry.kind for entry in play.outcome.audit]


def test_sequence_regression_is_an_alert_without_a_containment() -> None:
    play = given(device()).when(reported(seq=50)).when(reported(seq=7, boot_id="other", event_id="x"))
    play.then_nothing().recorded(AuditKind.REPORT_SEQUENCE_REGRESSED)
    assert play.outcome is not None
    assert play.outcome.audit[0].alert
    again = play.when(reported(seq=1, boot_id="third", event_id="y"))
    assert again.outcome is not None
    assert not again.outcome.audit[0].alert  # once an hour


def test_suspicion_at_the_broker_is_an_alert_without_a_containment() -> None:
    event = ev.CloneSuspected("c", "two addresses", (A, B), 4, "proven")
    play = given(device()).when(event).then_nothing().recorded(AuditKind.DEVICE_CLONE_SUSPECTED)
    assert play.outcome is not None
    assert play.outcome.audit[0].alert
    assert play.outcome.audit[0].detail == {"how": "two addresses", "peers": [A, B], "times": 4, "grade": "proven"}
