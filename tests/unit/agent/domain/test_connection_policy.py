"""Which connection is tried next, and after which wait."""

from device_agent.domain.connection_policy import (
    MQTT5,
    MQTT311,
    RECONNECT,
    STEADY_SECONDS,
    ConnectionAttempt,
    ConnectionOutcome,
)
from schemas.backoff import Backoff


def test_the_wait_doubles_to_its_cap_and_chance_spreads_it() -> None:
    backoff = Backoff(first=1, cap=60)
    assert [backoff.ceiling(n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.ceiling(10_000) == 60
    assert backoff.delay(3, 0.5) == 4
    assert backoff.delay(3, 0.0) == 0


def test_auto_begins_with_5_and_falls_back_at_once_on_the_same_server() -> None:
    first = ConnectionAttempt.first("auto", 2)
    assert (first.level, first.server, first.wait_ceiling) == (MQTT5, 0, 0.0)
    for outcome in (ConnectionOutcome.MUTE, ConnectionOutcome.UNSUPPORTED):
        second = first.after(outcome, 0.0)
        assert (second.level, second.server, second.wait_ceiling) == (MQTT311, 0, 0.0)


def test_what_worked_is_remembered() -> None:
    old = ConnectionAttempt.first("auto", 1).after(ConnectionOutcome.UNSUPPORTED, 0.0).worked()
    assert old.after(ConnectionOutcome.LOST, 100.0).level == MQTT311
    assert old.after(ConnectionOutcome.MUTE, 0.0).level == MQTT311


def test_a_mute_broker_is_tried_in_turn_until_one_protocol_works() -> None:
    attempt = ConnectionAttempt.first("auto", 1)
    levels = []
    for _ in range(4):
        levels.append(attempt.level)
        attempt = attempt.after(ConnectionOutcome.MUTE, 0.0)
    assert levels == [MQTT5, MQTT311, MQTT5, MQTT311]
    assert attempt.wait_ceiling > 0


def test_a_fixed_protocol_stays() -> None:
    assert ConnectionAttempt.first("5", 1).after(ConnectionOutcome.UNSUPPORTED, 0.0).level == MQTT5
    assert ConnectionAttempt.first("3.1.1", 1).level == MQTT311


def test_servers_in_turn_and_longer_waits_while_nothing_works() -> None:
    attempt = ConnectionAttempt.first("5", 3)
    seen = []
    for _ in range(5):
        attempt = attempt.after(ConnectionOutcome.REFUSED, 0.0)
        seen.append((attempt.server, attempt.wait_ceiling))
    assert seen == [(1, 1), (2, 2), (0, 4), (1, 8), (2, 16)]


def test_a_steady_connection_starts_the_waits_again_and_a_short_one_does_not() -> None:
    tired = ConnectionAttempt.first("5", 1)
    for _ in range(5):
        tired = tired.after(ConnectionOutcome.UNREACHABLE, 0.0)
    assert tired.after(ConnectionOutcome.LOST, STEADY_SECONDS).wait_ceiling == RECONNECT.first
    assert tired.after(ConnectionOutcome.LOST, 1.0).wait_ceiling > tired.wait_ceiling
