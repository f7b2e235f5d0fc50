"""The life cycle of a command in the controller."""

from dataclasses import replace
from typing import Any

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.commands import (
    COMMAND_TTL,
    END_GRACE,
    MAX_OPEN,
    MAX_OPEN_BY_HAND,
    RESEND_AFTER,
    deadline_of,
)
from controller.domain.effects import SendCommand
from schemas.commands import OLD_COMMAND, CommandState
from tests.support.playbook import DIGEST, START, Play, beat, device, given


def request(event_id: str = "a", **changes: Any) -> ev.CommandRequested:
    return ev.CommandRequested(
        event_id, "rescan", (("what", "all"),), "ada", changes.get("ttl", COMMAND_TTL), changes.get("dry_run", False)
    )


def result(state: CommandState, command_id: str = "a-c0", event_id: str = "b") -> ev.CommandReported:
    return ev.CommandReported(event_id, command_id, state, "because", (("is", "done"),))


def sent(counter: int, effect_id: str = "") -> SendCommand:
    return SendCommand(
        effect_id, "d1", "a-c0", "rescan", (("what", "all"),), False, START, START + COMMAND_TTL, counter
    )


def states(play: Play) -> list[tuple[str, str]]:
    assert play.outcome is not None
    return [(record.state, record.reason) for record in play.outcome.commands]


def test_requested_command_is_opened_recorded_and_sent() -> None:
    play = given(device()).when(request()).then(sent(int(START * 1000), "a-0"))
    assert states(play) == [("scheduled", "")]
    assert play.state.counter == int(START * 1000)


def test_counters_grow_even_if_the_clock_stands_or_goes_back() -> None:
    play = given(device()).when(request("a"), request("b")).when(request("c"), at=START - 100)
    counters = [command.counter for command in play.state.commands]
    assert counters == sorted(set(counters))


def test_number_of_open_commands_is_limited() -> None:
    play = given(device()).when(*(request(f"n{number}") for number in range(MAX_OPEN)))
    play.when(request("more")).then_nothing().recorded(AuditKind.COMMAND_NOT_ISSUED)


def test_open_commands_are_sent_again_when_the_device_connects() -> None:
    play = given(device()).when(request())
    counter = play.state.counter
    online = ev.StatusChanged("s", True, "boot")
    play.when(online).then(sent(counter, "s-0"))
    play.when(ev.StatusChanged("s", False, "")).then_nothing()
    play.when(online, at=START + COMMAND_TTL).then_nothing()


@pytest.mark.parametrize(
    "end", [CommandState.SUCCEEDED, CommandState.FAILED, CommandState.REJECTED, CommandState.EXPIRED]
)
def test_final_result_closes_the_command_and_its_repetition_changes_nothing(end: CommandState) -> None:
    play = given(device()).when(request()).when(result(end)).recorded(AuditKind(f"command.{end.value}"))
    assert states(play) == [(end.value, "because")]
    assert play.state.commands == ()
    play.when(result(end)).then_nothing().recorded()


def test_executing_is_recorded_once() -> None:
    play = given(device()).when(request()).when(result(CommandState.EXECUTING))
    assert play.state.commands[0].state is CommandState.EXECUTING
    assert states(play.when(result(CommandState.EXECUTING))) == []


def test_unknown_state_of_a_newer_agent_is_only_recorded() -> None:
    play = given(device()).when(request()).when(result(CommandState.UNKNOWN))
    assert states(play) == [("unknown", "because")]
    assert play.state.commands[0].state is CommandState.SCHEDULED


def test_command_that_is_not_begun_in_time_expires() -> None:
    play = given(device()).when(request()).when(ev.DeadlineReached("t"), at=START + COMMAND_TTL - 1)
    assert len(play.state.commands) == 1
    play = play.when(ev.DeadlineReached("t"), at=START + COMMAND_TTL)
    assert states(play) == [("expired", "not begun in time")]


def test_begun_command_expires_after_a_grace_period() -> None:
    play = given(device()).when(request()).when(result(CommandState.EXECUTING))
    end = START + COMMAND_TTL + END_GRACE
    assert deadline_of(play.state.commands[0]) == end
    for at in (START + COMMAND_TTL, end - 1):
        play = play.when(ev.DeadlineReached("t"), at=at)
        assert len(play.state.commands) == 1
    assert states(play.when(ev.DeadlineReached("t"), at=end)) == [("expired", "no result came")]


def test_result_changes_only_its_own_command() -> None:
    play = given(device()).when(request("a"), request("b")).when(result(CommandState.EXECUTING, "b-c0"))
    assert [command.state for command in play.state.commands] == [CommandState.SCHEDULED, CommandState.EXECUTING]
    play = play.when(result(CommandState.FAILED, "a-c0"))
    assert [command.command_id for command in play.state.commands] == ["b-c0"]


def test_command_without_a_result_is_sent_again_after_a_heartbeat() -> None:
    play = given(device(digest=DIGEST, judged_by="v1")).when(request()).when(result(CommandState.EXECUTING))
    late = START + RESEND_AFTER
    play.when(beat(at=late - 1), at=late - 1).then_nothing()
    (again,) = play.when(beat(at=late), at=late).effects
    assert isinstance(again, SendCommand)
    assert again.command_id == play.state.commands[0].command_id


def test_held_command_is_sent_once_an_operator_has_signed_it() -> None:
    held = replace(request(), held=True)
    play = given(device()).when(held).then_nothing()
    command_id = play.state.commands[0].command_id
    signature = ev.CommandCountersigned("s", command_id, "ada-1", "c2ln", "operator:ada")
    signed = play.when(signature).recorded(AuditKind.COMMAND_COUNTERSIGNED)
    (effect,) = signed.effects
    assert isinstance(effect, SendCommand)
    assert effect.signatures == (("ada-1", "c2ln"),)
    signed.when(signature).then_nothing().recorded()
    play.when(signature, at=START + COMMAND_TTL).then_nothing().recorded()
    play.when(replace(signature, command_id="other")).then_nothing().recorded()


def test_withdrawn_command_ends_as_expired() -> None:
    withdrawal = ev.CommandWithdrawn("w", "a-c0", "operator:ada", "not needed")
    play = given(device()).when(request()).when(withdrawal)
    play.recorded(AuditKind.COMMAND_WITHDRAWN, AuditKind.COMMAND_EXPIRED)
    assert states(play) == [("expired", "not needed")]
    play.when(withdrawal).then_nothing().recorded()


def test_replay_that_a_device_rejected_is_recorded() -> None:
    rejected = ev.CommandReported("b", "forged", CommandState.REJECTED, f"counter: {OLD_COMMAND}", ())
    given(device()).when(rejected).recorded(AuditKind.COMMAND_REPLAY_REFUSED)


def test_progress_of_an_executing_command_is_recorded() -> None:
    play = given(device()).when(request()).when(result(CommandState.EXECUTING))
    progress = ev.CommandReported("p", "a-c0", CommandState.EXECUTING, "", (("phase", "downloading"),))
    assert states(play.when(progress)) == [("executing", "")]


@pytest.mark.parametrize(("at", "clock"), [(COMMAND_TTL - 1.0, (("reason_code", "clock"),)), (COMMAND_TTL, ())])
def test_command_that_a_device_calls_expired_before_it_is_tells_of_its_clock(
    at: float, clock: tuple[tuple[str, str], ...]
) -> None:
    play = given(device()).when(request()).when(result(CommandState.EXPIRED), at=START + at)
    assert play.outcome is not None
    assert [record.detail for record in play.outcome.commands] == [(("is", "done"), *clock)]


def test_operators_leave_places_for_the_remedies_of_policies() -> None:
    by_hand = [replace(request(f"n{number}"), by="operator:ada") for number in range(MAX_OPEN_BY_HAND)]
    play = given(device()).when(*by_hand)
    more = replace(request("more"), by="operator:eve")
    play.when(more).then_nothing().recorded(AuditKind.COMMAND_NOT_ISSUED)
    after = play.when(replace(request("remedy"), by="policy"))
    assert len(after.state.commands) == MAX_OPEN_BY_HAND + 1
