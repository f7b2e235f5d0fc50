"""The journal survives restarts, and is bounded."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_agent.commands.journal import MAX_ENTRIES, Journal
from device_agent.errors import JournalError
from schemas.commands import Command, CommandResult, CommandState

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)

SPACES = frozenset(["0000000000000000"])


def _command(number: int) -> Command:
    return Command(
        command_id=f"c{number}",
        device_id="edge-1",
        action="rescan",
        params={},
        issued_at=NOW,
        expires_at=NOW + timedelta(minutes=5),
        counter=number,
    )


def _end(number: int) -> CommandResult:
    return CommandResult(command_id=f"c{number}", state=CommandState.SUCCEEDED, detail={"is": "x"}, at=NOW)


def test_commands_and_their_counter_survive(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    assert journal.counters.highest_of(SPACES) == -1
    journal.record_accepted(_command(5), SPACES, NOW)
    journal.record_before("c5", {"was": "on"})
    journal.close()
    journal = Journal(tmp_path / "state")
    assert journal.counters.highest_of(SPACES) == 5
    assert journal.command_ids() == {"c5"}
    assert [entry.before for entry in journal.unfinished()] == [{"was": "on"}]
    journal.record_result(_end(5))
    assert journal.unfinished() == ()
    assert [entry.result.detail for entry in journal.unconfirmed_results()] == [{"is": "x"}]
    journal.close()
    journal = Journal(tmp_path / "state")
    journal.mark_result_confirmed("c5")
    journal.close()
    journal = Journal(tmp_path / "state")
    assert journal.unconfirmed_results() == ()
    assert journal.command_ids() == {"c5"}
    journal.close()


def test_the_counter_never_falls(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record_accepted(_command(9), SPACES, NOW)
    journal.record_accepted(_command(3), SPACES, NOW)
    assert journal.counters.highest_of(SPACES) == 9
    journal.close()


def test_entries_are_bounded_and_unfinished_commands_stay_longest(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record_accepted(_command(0), SPACES, NOW)
    for number in range(1, MAX_ENTRIES + 10):
        journal.record_accepted(_command(number), SPACES, NOW)
        journal.record_result(_end(number))
        journal.mark_result_confirmed(f"c{number}")
    assert len(journal.command_ids()) == MAX_ENTRIES
    assert "c0" in journal.command_ids()
    assert "c1" not in journal.command_ids()
    journal.close()


def test_only_one_process_may_open_the_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(JournalError, match="another agent"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v":2}', '{"v":1,"counter":"x"}'])
def test_a_damaged_file_is_an_error_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "commands.json").write_text(text)
    with pytest.raises(JournalError, match=r"commands\.json is damaged"):
        Journal(tmp_path)
    assert (tmp_path / "commands.json").read_text() == text


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="state folder"):
        Journal(tmp_path / "file" / "state")


def test_folder_and_file_are_private(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.record_accepted(_command(1), SPACES, NOW)
    journal.close()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state" / "commands.json").stat().st_mode & 0o077 == 0


def test_the_file_keeps_its_format(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record_accepted(_command(5), SPACES, NOW)
    journal.record_before("c5", {"was": "on"})
    journal.mark_result_confirmed("c5")
    journal.close()
    (entry,) = json.loads((tmp_path / "commands.json").read_text())["entries"]
    assert set(entry) == {"command", "result", "was", "told"}
    assert (entry["was"], entry["told"]) == ({"was": "on"}, True)
