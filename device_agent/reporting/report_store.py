"""What reporting keeps across restarts: sequence numbers, and reports that the controller has not confirmed."""

import logging
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from device_agent.domain.report_outbox import PendingReport, ReportOutbox
from device_agent.errors import JournalError
from device_agent.host.files import is_full, read_model, write_model
from schemas.base import MAX_COUNTER

_log = logging.getLogger(__name__)
_MAX_FILE_BYTES: Final = 8 * 1024 * 1024
# Sequence numbers are taken in blocks, so that a heartbeat does not cost a write to flash.
_SEQ_BLOCK: Final = 64
# How far ahead to go when the controller knows of higher numbers than we do.
_SEQ_SKIP: Final = 1_000_000


class _PendingReport(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seq: int
    digest: str
    payload: str
    attempts: int = 0
    sent_at: None = None  # monotonic times mean nothing after a restart


class _Reports(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)
    v: Literal[1] = 1
    seq_ceiling: Annotated[int, Field(ge=0, le=MAX_COUNTER)]
    pending: Annotated[list[_PendingReport], Field(alias="owed")] = []
    dropped: Annotated[int, Field(ge=0)] = 0


class ReportStore:
    """`reports.json` in the state folder that the agent's journal holds the lock of; any thread.

    While the disk is full the reports are kept in memory only: a device that reports less reliably is better than one
    that is silent. Sequence numbers that a kill loses then are skipped once the controller refuses them as stale.

    Raises:
        JournalError: from every method, when the file cannot be read or written for another reason.
    """

    def __init__(self, folder: Path, *, first_seq: int) -> None:
        """Reads the file; sequence numbers start at `first_seq` when there is none."""
        self._path = folder / "reports.json"
        self._mutex = Lock()
        self._is_full = False
        self._reports = read_model(self._path, _Reports, _MAX_FILE_BYTES) or _Reports(seq_ceiling=first_seq)
        self._next_seq = self._reports.seq_ceiling

    def next_seq(self) -> int:
        """Returns the next sequence number; no number is returned twice, not even after a kill."""
        with self._mutex:
            seq = self._next_seq
            if seq >= self._reports.seq_ceiling:
                self._save(self._reports.model_copy(update={"seq_ceiling": seq + _SEQ_BLOCK}))
            self._next_seq = seq + 1
            return seq

    def skip_seq_ahead(self) -> None:
        """Continues with much higher numbers, because the controller has seen higher ones."""
        with self._mutex:
            self._next_seq += _SEQ_SKIP

    def outbox(self) -> ReportOutbox:
        """Returns the outbox as it was last saved."""
        reports = tuple(
            PendingReport(report.seq, report.digest, report.payload, report.attempts)
            for report in self._reports.pending
        )
        return ReportOutbox(reports=reports, dropped=self._reports.dropped)

    def save_outbox(self, outbox: ReportOutbox) -> None:
        """Writes the outbox."""
        pending = [_PendingReport.model_validate({**asdict(report), "sent_at": None}) for report in outbox.reports]
        with self._mutex:
            self._save(self._reports.model_copy(update={"pending": pending, "dropped": outbox.dropped}))

    def _save(self, reports: _Reports) -> None:
        try:
            write_model(self._path, reports)
        except JournalError as e:
            if not is_full(e):
                raise
            if not self._is_full:
                _log.error("%s: reports go on, and those without a receipt would not survive a restart", e)
            self._is_full = True
        else:
            self._is_full = False
        self._reports = reports
