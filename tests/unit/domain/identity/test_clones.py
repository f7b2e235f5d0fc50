"""Two that pass for one device."""

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


def played(
    *peers: str, every: float = 5.0, detector: CloneDetector | None = None, at: float = START
) -> list[CloneSuspicion]:
    detector = detector or CloneDetector()
    found = [detector.observe(SessionTakenOver("d1", at + number * every, peer)) for number, peer in enumerate(peers)]
    return [one for one in found if one is not None]


def test_two_addresses_in_turn_are_two_devices() -> None:
    (found,) = played(A, B, A, B)
    assert (found.device_id, found.peers, found.times) == ("d1", (A, B), SWITCHES + 1)
    assert "in turn" in found.how


@pytest.mark.parametrize("peers", [(A,), (A, B), (A, B, A), (A,) * (MANY - 1), (A, B, "192.0.2.3")], ids=",".join)
def test_a_device_that_moves_or_has_a_bad_network_is_one(peers: tuple[str, ...]) -> None:
    assert played(*peers) == []


def test_many_takeovers_from_one_address_are_told() -> None:
    (found,) = played(*(A,) * MANY)
    assert "again and again" in found.how


def test_what_happens_seldom_is_nothing() -> None:
    assert played(*(A, B) * 10, every=WINDOW) == []


def test_it_is_told_once_an_hour() -> None:
    detector = CloneDetector()
    assert len(played(*(A, B) * 8, detector=detector)) == 1
    assert len(played(*(A, B) * 4, detector=detector, at=START + QUIET + 60)) == 1


def test_memory_is_bounded() -> None:
    detector = CloneDetector()
    for number in range(MAX_DEVICES + 10):
        detector.observe(SessionTakenOver(f"d{number}", START, A))
    assert len(detector) == MAX_DEVICES


def test_a_boot_that_was_over_and_reports_again_is_an_alert_once_an_hour() -> None:
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


def test_a_sequence_that_goes_back_is_an_alert_and_contains_nobody() -> None:
    play = given(device()).when(reported(seq=50)).when(reported(seq=7, boot_id="other", event_id="x"))
    play.then_nothing().recorded(AuditKind.REPORT_SEQUENCE_REGRESSED)
    assert play.outcome is not None
    assert play.outcome.audit[0].alert
    again = play.when(reported(seq=1, boot_id="third", event_id="y"))
    assert again.outcome is not None
    assert not again.outcome.audit[0].alert  # once an hour is enough


def test_what_was_seen_at_the_broker_is_an_alert_and_contains_nobody() -> None:
    event = ev.CloneSuspected("c", "two addresses", (A, B), 4, "proven")
    play = given(device()).when(event).then_nothing().recorded(AuditKind.DEVICE_CLONE_SUSPECTED)
    assert play.outcome is not None
    assert play.outcome.audit[0].alert
    assert play.outcome.audit[0].detail == {"how": "two addresses", "peers": [A, B], "times": 4, "grade": "proven"}
