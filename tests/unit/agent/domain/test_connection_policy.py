"""Which connection is attempted next, and after which wait."""

from device_agent.domain.connection_policy import (
    MQTT5,
    MQTT311,
    RECONNECT,
    STEADY_SECONDS,
    ConnectionAttempt,
    ConnectionOutcome,
)
from schemas.backoff import Backoff


def test_the_wait_doubles_to_its_cap_with_jitter() -> None:
    backoff = Backoff(first=1, cap=60)
    assert [backoff.ceiling(n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.ceiling(10_000) == 60
    assert backoff.delay(3, 0.5) == 4
    assert backoff.delay(3, 0.0) == 0


def test_auto_begins_with_5_and_falls_back_without_a_wait_on_the_same_server() -> None:
    first = ConnectionAttempt.first("auto", 2)
    assert (first.level, first.server, first.wait_ceiling) == (MQTT5, 0, 0.0)
    for outcome in (ConnectionOutcome.MUTE, ConnectionOutcome.UNSUPPORTED):
        second = first.next_attempt(outcome, 0.0)
        assert (second.level, second.server, second.wait_ceiling) == (MQTT311, 0, 0.0)


def test_an_accepted_protocol_version_stays() -> None:
    old = ConnectionAttempt.first("auto", 1).next_attempt(ConnectionOutcome.UNSUPPORTED, 0.0).accepted()
    assert old.next_attempt(ConnectionOutcome.LOST, 100.0).level == MQTT311
    assert old.next_attempt(ConnectionOutcome.MUTE, 0.0).level == MQTT311


def test_a_mute_broker_is_tried_with_both_versions_in_turn() -> None:
    attempt = ConnectionAttempt.first("auto", 1)
    levels = []
    for _ in range(4):
        levels.append(attempt.level)
        attempt = attempt.next_attempt(ConnectionOutcome.MUTE, 0.0)
    assert levels == [MQTT5, MQTT311, MQTT5, MQTT311]
    assert attempt.wait_ceiling > 0


def test_a_fixed_protocol_version_stays() -> None:
    assert ConnectionAttempt.first("5", 1).next_attempt(ConnectionOutcome.UNSUPPORTED, 0.0).level == MQTT5
    assert ConnectionAttempt.first("3.1.1", 1).level == MQTT311


def test_servers_are_tried_in_turn_with_growing_waits() -> None:
    attempt = ConnectionAttempt.first("5", 3)
    attempts = []
    for _ in range(5):
        attempt = attempt.next_attempt(ConnectionOutcome.REFUSED, 0.0)
        attempts.append((attempt.server, attempt.wait_ceiling))
    assert attempts == [(1, 1), (2, 2), (0, 4), (1, 8), (2, 16)]


def test_only_a_steady_connection_resets_the_back_off() -> None:
    attempt = ConnectionAttempt.first("5", 1)
    for _ in range(5):
        attempt = attempt.next_attempt(ConnectionOutcome.UNREACHABLE, 0.0)
    assert attempt.next_attempt(ConnectionOutcome.LOST, STEADY_SECONDS).wait_ceiling == RECONNECT.first
    assert attempt.next_attempt(ConnectionOutcome.LOST, 1.0).wait_ceiling > attempt.wait_ceiling
