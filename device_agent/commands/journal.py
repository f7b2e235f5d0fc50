"""What must survive a restart, or a kill in the middle: written down before it is acted on, files replaced as a whole.

`commands.json` holds the highest counter taken and the commands with how far they got: one file, so that a counter is
never stored without its command or the other way round. `reports.json` holds the sequence numbers and what is owed.
"""

import fcntl
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from device_agent.errors import JournalError
from device_agent.host.files import write_whole
from schemas.base import MAX_COUNTER
from schemas.commands import Command, CommandResult, CommandState

MAX_ENTRIES: Final = 64  # commands remembered; the oldest that ended is forgotten first
_MAX_FILE_BYTES: Final = 8 * 1024 * 1024
# Sequence numbers are taken in blocks, so that a heartbeat does not cost a write to flash.
_SEQ_BLOCK: Final = 64
# How far ahead to go when the controller knows of higher numbers than we do.
_SEQ_LEAP: Final = 1_000_000

_KEPT: Final = "_"  # see `actions.base.KEPT`

_Model = TypeVar("_Model", bound=BaseModel)


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


class _OwedReport(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seq: int
    digest: str
    payload: str
    attempts: int = 0
    sent_at: None = None  # monotonic times mean nothing after a restart


class _Reports(BaseModel):
    model_config = ConfigDict(extra="forbid")
    v: Literal[1] = 1
    seq_ceiling: Annotated[int, Field(ge=0, le=MAX_COUNTER)]
    owed: list[_OwedReport] = []
    dropped: Annotated[int, Field(ge=0)] = 0


class Journal:
    """The state folder; one process at a time, any thread.

    Raises:
        JournalError: from every method, when the folder cannot be read or written.
    """

    def __init__(self, folder: Path, *, first_seq: int) -> None:
        """Open the folder, making it where needed; `first_seq` is where sequence numbers start on an empty one."""
        self._folder = folder
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
            self._commands = self._read("commands.json", _Commands) or _Commands()
            self._reports = self._read("reports.json", _Reports) or _Reports(seq_ceiling=first_seq)
        except JournalError:
            self._lock_file.close()
            raise
        self._next_seq = self._reports.seq_ceiling

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

    def take_seq(self) -> int:
        """The next sequence number; never given twice, also after a kill."""
        with self._mutex:
            seq = self._next_seq
            if seq >= self._reports.seq_ceiling:
                self._save_reports(self._reports.model_copy(update={"seq_ceiling": seq + _SEQ_BLOCK}))
            self._next_seq = seq + 1
            return seq

    def leap_seq(self) -> None:
        """Go far ahead: the controller has seen higher numbers than these."""
        with self._mutex:
            self._next_seq += _SEQ_LEAP

    def outbox(self) -> ReportOutbox:
        """What was owed when it was last saved."""
        owed = tuple(
            PendingReport(report.seq, report.digest, report.payload, report.attempts) for report in self._reports.owed
        )
        return ReportOutbox(owed=owed, dropped=self._reports.dropped)

    def save_outbox(self, outbox: ReportOutbox) -> None:
        """Write down what is owed."""
        owed = [_OwedReport.model_validate({**asdict(report), "sent_at": None}) for report in outbox.owed]
        with self._mutex:
            self._save_reports(self._reports.model_copy(update={"owed": owed, "dropped": outbox.dropped}))

    def _change(self, command_id: str, update: dict[str, object]) -> None:
        with self._mutex:
            entries = [
                entry.model_copy(update=update) if entry.command.command_id == command_id else entry
                for entry in self._commands.entries
            ]
            self._save_commands(self._commands.counter, entries)

    def _save_commands(self, counter: int, entries: list[JournalEntry]) -> None:
        commands = _Commands(counter=counter, entries=entries)
        self._write("commands.json", commands)
        self._commands = commands

    def _save_reports(self, reports: _Reports) -> None:
        self._write("reports.json", reports)
        self._reports = reports

    def _read(self, name: str, model: type[_Model]) -> _Model | None:
        path = self._folder / name
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise JournalError(f"{path} is larger than {_MAX_FILE_BYTES} bytes: not written by this agent")
            return model.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as e:
            raise JournalError(f"{path}: {e.strerror}") from e
        except ValidationError as e:
            raise JournalError(
                f"{path} is damaged; without it old commands could run again: look at it, then move it away"
            ) from e

    def _write(self, name: str, content: BaseModel) -> None:
        path, fresh = self._folder / name, self._folder / f".{name}.new"
        try:
            write_whole(path, fresh, content.model_dump_json().encode())
        except OSError as e:
            raise JournalError(f"{path}: {e.strerror}") from e


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
