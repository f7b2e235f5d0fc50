"""What survives a restart."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_agent.commands.journal import MAX_ENTRIES, Journal
from device_agent.errors import JournalError
from schemas.commands import Command, CommandResult, CommandState

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


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
    assert journal.counter == -1
    journal.begin(_command(5), NOW)
    journal.planned("c5", {"was": "on"})
    journal.close()
    journal = Journal(tmp_path / "state")
    assert journal.counter == 5
    assert journal.known() == {"c5"}
    assert [entry.was for entry in journal.unfinished()] == [{"was": "on"}]
    journal.finish(_end(5))
    assert journal.unfinished() == ()
    assert [entry.result.detail for entry in journal.untold()] == [{"is": "x"}]
    journal.close()
    journal = Journal(tmp_path / "state")
    journal.told("c5")
    journal.close()
    journal = Journal(tmp_path / "state")
    assert journal.untold() == ()
    assert journal.known() == {"c5"}
    journal.close()


def test_the_counter_never_falls(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(_command(9), NOW)
    journal.begin(_command(3), NOW)
    assert journal.counter == 9
    journal.close()


def test_what_is_remembered_is_bounded_and_unfinished_commands_stay_longest(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(_command(0), NOW)
    for number in range(1, MAX_ENTRIES + 10):
        journal.begin(_command(number), NOW)
        journal.finish(_end(number))
        journal.told(f"c{number}")
    assert len(journal.known()) == MAX_ENTRIES
    assert "c0" in journal.known()
    assert "c1" not in journal.known()
    journal.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(JournalError, match="another agent"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v":2}', '{"v":1,"counter":"x"}'])
def test_a_damaged_file_is_said_and_not_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "commands.json").write_text(text)
    with pytest.raises(JournalError, match=r"commands\.json is damaged"):
        Journal(tmp_path)
    assert (tmp_path / "commands.json").read_text() == text


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="state folder"):
        Journal(tmp_path / "file" / "state")


def test_its_files_are_for_nobody_else(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.begin(_command(1), NOW)
    journal.close()
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state" / "commands.json").stat().st_mode & 0o077 == 0
