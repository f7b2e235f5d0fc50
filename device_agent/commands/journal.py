"""The journal of commands: each command is written down before it runs, so that a restart can finish or report it.

`commands.json` holds the highest counters and the commands with their progress: one file, so that a counter is never
stored without its command or the other way round. `commands.spare` keeps space for the result of an accepted command.
"""

import fcntl
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from device_agent.domain.command_counters import CommandCounters
from device_agent.errors import JournalError
from device_agent.host import files
from device_agent.host.files import read_model, write_model
from schemas.base import MAX_COUNTER
from schemas.commands import Command, CommandResult, CommandState

MAX_SPACES: Final = 1024  # counters; more than a device can ever have keys, revoked ones included
MAX_ENTRIES: Final = 64  # commands remembered; the oldest finished ones are evicted first
_MAX_FILE_BYTES: Final = 8 * 1024 * 1024
_RESULT_BYTES: Final = 64 * 1024  # kept free for the result of an accepted command, besides the file itself
_CONSEQUENCE: Final = "without it old commands could run again"
_JOURNAL_ONLY: Final = "_"  # see `actions.base.JOURNAL_ONLY`


class JournalEntry(BaseModel):
    """An accepted command and its progress.

    `before` is the state before the command changed it; `result_confirmed` once the broker has the final result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)
    command: Command
    result: CommandResult
    before: Annotated[dict[str, str], Field(alias="was")] = {}
    result_confirmed: Annotated[bool, Field(alias="told")] = False


_Counter = Annotated[int, Field(ge=-1, le=MAX_COUNTER)]
_CounterSpace = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}(:keys)?$")]


class _Commands(BaseModel):
    """`counters`: the highest by space; `counter`: of a space that has none, from before each key had its own."""

    model_config = ConfigDict(extra="forbid")
    v: Literal[1] = 1
    counter: _Counter = -1
    counters: Annotated[dict[_CounterSpace, _Counter], Field(max_length=MAX_SPACES)] = {}
    entries: list[JournalEntry] = []


class Journal:
    """The state folder, locked for one process at a time, and `commands.json` in it; any thread.

    Raises:
        JournalError: from every method, when the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the folder, and creates it where needed."""
        self._path = folder / "commands.json"
        self._spare = folder / "commands.spare"  # given up for a result where the disk is full
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
        """Releases the lock of the folder."""
        self._lock_file.close()

    @property
    def counters(self) -> CommandCounters:
        """The highest counters of accepted commands."""
        return CommandCounters(self._commands.counters, self._commands.counter)

    def command_ids(self) -> frozenset[str]:
        """Returns the ids of the remembered commands."""
        with self._mutex:
            return frozenset(entry.command.command_id for entry in self._commands.entries)

    def entry(self, command_id: str) -> JournalEntry | None:
        """Returns the entry of a command, None when it is not remembered."""
        with self._mutex:
            return next((e for e in self._commands.entries if e.command.command_id == command_id), None)

    def unfinished(self) -> tuple[JournalEntry, ...]:
        """Returns accepted commands without a final result, oldest first."""
        with self._mutex:
            return tuple(entry for entry in self._commands.entries if not entry.result.state.is_end)

    def unconfirmed_results(self) -> tuple[JournalEntry, ...]:
        """Returns finished commands whose result the broker has not confirmed, oldest first."""
        with self._mutex:
            return tuple(e for e in self._commands.entries if e.result.state.is_end and not e.result_confirmed)

    def record_accepted(self, command: Command, spaces: frozenset[str], now: datetime) -> JournalEntry:
        """Writes an accepted command together with its counter in `spaces`; both are on the disk when this returns."""
        result = CommandResult(command_id=command.command_id, state=CommandState.EXECUTING, detail={}, at=now)
        entry = JournalEntry(command=command, result=result)
        with self._mutex:
            entries = _evict_finished(self._commands.entries)
            self._keep_spare(entry)
            self._save(self.counters.with_accepted(command.counter, spaces), [*entries, entry])
        return entry

    def record_before(self, command_id: str, before: dict[str, str]) -> None:
        """Writes the state before the command changes it."""
        self._update(command_id, {"before": before})

    def record_result(self, result: CommandResult) -> None:
        """Writes the final result, into the space kept for it if need be, and forgets what only undoing needed."""
        entry = self.entry(result.command_id)
        state = {} if entry is None else entry.before
        before = {key: text for key, text in state.items() if not key.startswith(_JOURNAL_ONLY)}
        try:
            self._update(result.command_id, {"result": result, "before": before})
        except JournalError:
            if not self._spare.exists():
                raise
            self._spare.unlink()
            self._update(result.command_id, {"result": result, "before": before})

    def mark_result_confirmed(self, command_id: str) -> None:
        """Records that the broker has the final result."""
        self._update(command_id, {"result_confirmed": True})

    def _update(self, command_id: str, update: dict[str, Any]) -> None:
        with self._mutex:
            entries = [
                entry.model_copy(update=update) if entry.command.command_id == command_id else entry
                for entry in self._commands.entries
            ]
            self._save(self.counters, entries)

    def _keep_spare(self, entry: JournalEntry) -> None:
        """Keeps space for the file with one more command and its result: without a result it could run twice."""
        size = self._path.stat().st_size if self._path.exists() else 0
        needed = size + len(entry.model_dump_json()) + _RESULT_BYTES
        try:
            if not self._spare.exists() or self._spare.stat().st_size < needed:
                files.write_whole(self._spare, self._spare.with_name(".commands.spare.new"), bytes(needed))
        except OSError as e:
            raise JournalError(f"{self._spare}: {e.strerror}") from e

    def _save(self, counters: CommandCounters, entries: list[JournalEntry]) -> None:
        commands = _Commands(counter=counters.floor, counters=dict(counters.highest), entries=entries)
        write_model(self._path, commands)
        self._commands = commands


def _evict_finished(entries: list[JournalEntry]) -> list[JournalEntry]:
    """Removes the oldest entries until one more fits: confirmed ones first, then finished ones, then any."""
    kept = list(entries)
    for may_go in (lambda e: e.result_confirmed, lambda e: e.result.state.is_end, lambda _: True):
        for entry in tuple(kept):
            if len(kept) < MAX_ENTRIES:
                return kept
            if may_go(entry):
                kept.remove(entry)
    return kept
