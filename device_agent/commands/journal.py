"""The journal of commands: each command is written down before it runs, so that a restart can finish or report it.

`commands.json` holds the highest counter and the commands with their progress: one file, so that a counter is never
stored without its command or the other way round.
"""

import fcntl
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from device_agent.errors import JournalError
from device_agent.host.state_files import read_model, write_model
from schemas.base import MAX_COUNTER
from schemas.commands import Command, CommandResult, CommandState

MAX_ENTRIES: Final = 64  # commands remembered; the oldest that ended is forgotten first
_MAX_FILE_BYTES: Final = 8 * 1024 * 1024
_CONSEQUENCE: Final = "without it old commands could run again"

_KEPT: Final = "_"  # see `actions.base.KEPT`


class JournalEntry(BaseModel):
    """A command that was taken, and how far it got; `told` once the broker holds its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    command: Command
    result: CommandResult
    was: dict[str, str] = {}
    told: bool = False


class _Commands(BaseModel):
    model_config = ConfigDict(extra="forbid")
    v: Literal[1] = 1
    counter: Annotated[int, Field(ge=-1, le=MAX_COUNTER)] = -1
    entries: list[JournalEntry] = []


class Journal:
    """The state folder; one process at a time, any thread.

    Raises:
        JournalError: from every method, when the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the folder, and creates it where needed."""
        self._path = folder / "commands.json"
        self._mutex = Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = (folder / "lock").open("w")
        except OSError as e:
            raise JournalError(f"state folder {folder}: {e.strerror}") from e
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            self._lock_file.close()
            raise JournalError(f"state folder {folder}: another agent is using it") from e
        try:
            self._commands = read_model(self._path, _Commands, _MAX_FILE_BYTES, _CONSEQUENCE) or _Commands()
        except JournalError:
            self._lock_file.close()
            raise

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock_file.close()

    @property
    def counter(self) -> int:
        """The highest counter of any command taken; -1 when there was none."""
        return self._commands.counter

    def known(self) -> frozenset[str]:
        """Ids of the commands that are remembered."""
        with self._mutex:
            return frozenset(entry.command.command_id for entry in self._commands.entries)

    def entry(self, command_id: str) -> JournalEntry | None:
        """What is remembered of a command."""
        with self._mutex:
            return next((e for e in self._commands.entries if e.command.command_id == command_id), None)

    def unfinished(self) -> tuple[JournalEntry, ...]:
        """Commands that were taken and have no end, oldest first."""
        with self._mutex:
            return tuple(entry for entry in self._commands.entries if not entry.result.state.is_end)

    def untold(self) -> tuple[JournalEntry, ...]:
        """Commands that ended and whose end the broker has not confirmed, oldest first."""
        with self._mutex:
            return tuple(e for e in self._commands.entries if e.result.state.is_end and not e.told)

    def begin(self, command: Command, now: datetime) -> JournalEntry:
        """Write down that `command` was taken, and its counter with it; returns once that is on the disk."""
        result = CommandResult(command_id=command.command_id, state=CommandState.EXECUTING, detail={}, at=now)
        entry = JournalEntry(command=command, result=result)
        with self._mutex:
            kept = _make_room(self._commands.entries)
            self._save_commands(max(self._commands.counter, command.counter), [*kept, entry])
        return entry

    def planned(self, command_id: str, was: dict[str, str]) -> None:
        """Write down what was there before the command changed it."""
        self._change(command_id, {"was": was})

    def finish(self, result: CommandResult) -> None:
        """Write down how a command ended; what only undoing it needed is forgotten."""
        entry = self.entry(result.command_id)
        was = {} if entry is None else {key: text for key, text in entry.was.items() if not key.startswith(_KEPT)}
        self._change(result.command_id, {"result": result, "was": was})

    def told(self, command_id: str) -> None:
        """The broker holds the end of this command."""
        self._change(command_id, {"told": True})

    def _change(self, command_id: str, update: dict[str, object]) -> None:
        with self._mutex:
            entries = [
                entry.model_copy(update=update) if entry.command.command_id == command_id else entry
                for entry in self._commands.entries
            ]
            self._save_commands(self._commands.counter, entries)

    def _save_commands(self, counter: int, entries: list[JournalEntry]) -> None:
        commands = _Commands(counter=counter, entries=entries)
        write_model(self._path, commands)
        self._commands = commands


def _make_room(entries: list[JournalEntry]) -> list[JournalEntry]:
    """Forget the oldest entries that ended (told ones first) until one more fits."""
    kept = list(entries)
    for may_go in (lambda e: e.told, lambda e: e.result.state.is_end, lambda _: True):
        for entry in tuple(kept):
            if len(kept) < MAX_ENTRIES:
                return kept
            if may_go(entry):
                kept.remove(entry)
    return kept
