"""The life of a command on the controller's side."""

from typing import Any

import pytest

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind
from controller.domain.commands import COMMAND_TTL, END_GRACE, MAX_OPEN, RESEND_AFTER, due
from controller.domain.effects import SendCommand
from schemas.commands import CommandState
from tests.support.playbook import DIGEST, START, Play, beat, device, given


def order(event_id: str = "a", **changes: Any) -> ev.CommandRequested:
    return ev.CommandRequested(
        event_id, "rescan", (("what", "all"),), "ada", changes.get("ttl", COMMAND_TTL), changes.get("dry_run", False)
    )


def told(state: CommandState, command_id: str = "a-c0", event_id: str = "b") -> ev.CommandReported:
    return ev.CommandReported(event_id, command_id, state, "because", (("is", "done"),))


def sent(counter: int, effect_id: str = "") -> SendCommand:
    return SendCommand(
        effect_id, "d1", "a-c0", "rescan", (("what", "all"),), False, START, START + COMMAND_TTL, counter
    )


def states(play: Play) -> list[tuple[str, str]]:
    assert play.outcome is not None
    return [(record.state, record.reason) for record in play.outcome.commands]


def test_a_command_is_opened_recorded_and_sent() -> None:
    play = given(device()).when(order()).then(sent(int(START * 1000), "a-0"))
    assert states(play) == [("scheduled", "")]
    assert play.state.counter == int(START * 1000)


def test_counters_grow_even_when_the_clock_stands_or_goes_back() -> None:
    play = given(device()).when(order("a"), order("b")).when(order("c"), at=START - 100)
    counters = [command.counter for command in play.state.commands]
    assert counters == sorted(set(counters))


def test_a_device_has_a_bounded_number_of_open_commands() -> None:
    play = given(device()).when(*(order(f"n{number}") for number in range(MAX_OPEN)))
    play.when(order("more")).then_nothing().recorded(AuditKind.COMMAND_NOT_ISSUED)


def test_a_device_that_is_back_hears_again_what_has_not_ended() -> None:
    play = given(device()).when(order())
    counter = play.state.counter
    online = ev.StatusChanged("s", True, "boot")
    play.when(online).then(sent(counter, "s-0"))
    play.when(ev.StatusChanged("s", False, "")).then_nothing()
    play.when(online, at=START + COMMAND_TTL).then_nothing()


@pytest.mark.parametrize(
    "end", [CommandState.SUCCEEDED, CommandState.FAILED, CommandState.REJECTED, CommandState.EXPIRED]
)
def test_an_end_closes_it_and_a_repeated_end_is_nothing(end: CommandState) -> None:
    play = given(device()).when(order()).when(told(end)).recorded(AuditKind(f"command.{end.value}"))
    assert states(play) == [(end.value, "because")]
    assert play.state.commands == ()
    play.when(told(end)).then_nothing().recorded()


def test_a_device_says_that_it_began() -> None:
    play = given(device()).when(order()).when(told(CommandState.EXECUTING))
    assert play.state.commands[0].state is CommandState.EXECUTING
    assert states(play.when(told(CommandState.EXECUTING))) == []


def test_a_word_from_a_newer_agent_changes_only_the_record() -> None:
    play = given(device()).when(order()).when(told(CommandState.UNKNOWN))
    assert states(play) == [("unknown", "because")]
    assert play.state.commands[0].state is CommandState.SCHEDULED


def test_what_is_not_begun_in_time_expires() -> None:
    play = given(device()).when(order()).when(ev.DeadlineReached("t"), at=START + COMMAND_TTL - 1)
    assert len(play.state.commands) == 1
    play = play.when(ev.DeadlineReached("t"), at=START + COMMAND_TTL)
    assert states(play) == [("expired", "not begun in time")]


def test_what_was_begun_gets_time_to_tell_and_no_more() -> None:
    play = given(device()).when(order()).when(told(CommandState.EXECUTING))
    end = START + COMMAND_TTL + END_GRACE
    assert due(play.state.commands[0]) == end
    for at in (START + COMMAND_TTL, end - 1):
        play = play.when(ev.DeadlineReached("t"), at=at)
        assert len(play.state.commands) == 1
    assert states(play.when(ev.DeadlineReached("t"), at=end)) == [("expired", "no result came")]


def test_other_commands_stay_open() -> None:
    play = given(device()).when(order("a"), order("b")).when(told(CommandState.EXECUTING, "b-c0"))
    assert [one.state for one in play.state.commands] == [CommandState.SCHEDULED, CommandState.EXECUTING]
    play = play.when(told(CommandState.FAILED, "a-c0"))
    assert [one.command_id for one in play.state.commands] == ["b-c0"]


def test_an_end_that_was_lost_is_asked_for_by_sending_the_order_again() -> None:
    play = given(device(digest=DIGEST, judged_by="v1")).when(order()).when(told(CommandState.EXECUTING))
    late = START + RESEND_AFTER
    play.when(beat(at=late - 1), at=late - 1).then_nothing()
    (again,) = play.when(beat(at=late), at=late).effects
    assert isinstance(again, SendCommand)
    assert again.command_id == play.state.commands[0].command_id
