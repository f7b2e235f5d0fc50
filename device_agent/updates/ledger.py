"""Records and reports the progress of updates: the record is on the disk before progress is reported."""

from collections.abc import Callable

from device_agent.host.clock import Clock
from device_agent.updates.records import UpdateRecord, UpdateRecordStore, UpdateTransaction
from schemas.base import clean_text
from schemas.updates import UpdatePhase, UpdateProgress, UpdateRefusalCode

UpdateProgressCallback = Callable[[UpdateProgress], None]


class UpdateLedger:
    """The records of one device; `crash_point` gets the name of each step before it is taken."""

    def __init__(self, records: UpdateRecordStore, clock: Clock, crash_point: Callable[[str], None]) -> None:
        self._records = records
        self._clock = clock
        self._crash_point = crash_point

    def load(self, name: str) -> UpdateRecord:
        """Returns the record of a name, an empty one without updates (JournalError)."""
        return self._records.load(name)

    def names(self) -> list[str]:
        """Returns every name with a record (JournalError)."""
        return self._records.names()

    def save(self, record: UpdateRecord, transaction: UpdateTransaction) -> UpdateRecord:
        """Writes and returns the record with this transaction (JournalError)."""
        record = record.model_copy(update={"transaction": transaction})
        self._records.save(record)
        return record

    def record_phase(
        self, record: UpdateRecord, phase: UpdatePhase, on_progress: UpdateProgressCallback
    ) -> UpdateRecord:
        """Writes the phase of the running update, then reports it (JournalError)."""
        assert record.transaction is not None
        record = self.save(record, record.transaction.model_copy(update={"phase": phase}))
        self.report_progress(record, phase, on_progress)
        self._crash_point(f"phase:{phase}")
        return record

    def report_progress(
        self, record: UpdateRecord, phase: UpdatePhase, on_progress: UpdateProgressCallback, percent: int = 0
    ) -> None:
        """Reports progress without writing it."""
        assert record.transaction is not None
        version, before = record.transaction.version, record.current_version
        on_progress(UpdateProgress(phase=phase, name=record.name, version=version, before=before, percent=percent))

    def record_outcome(
        self, record: UpdateRecord, outcome: UpdatePhase, code: UpdateRefusalCode | None, reason: str
    ) -> UpdateRecord:
        """Writes how the running update ended, and ends its transaction (JournalError)."""
        transaction = record.transaction
        assert transaction is not None
        record = record.model_copy(
            update={
                "transaction": None,
                "outcome": outcome,
                "attempted": transaction.version,
                "code": code,
                "reason": clean_text(reason),
                "command_id": transaction.command_id,
                "updated_at": self._clock.now(),
            }
        )
        self._records.save(record)
        return record

    def progress(self, name: str) -> UpdateProgress:
        """Returns the state of the running, or else the last, update of a name (JournalError)."""
        record = self.load(name)
        transaction = record.transaction
        if transaction is not None:
            version, before = transaction.version, record.current_version
            return UpdateProgress(phase=transaction.phase, name=name, version=version, before=before)
        before = record.previous_version if record.outcome is UpdatePhase.CONFIRMED else record.current_version
        code = record.code or ""
        return UpdateProgress(
            phase=record.outcome, name=name, version=record.attempted, before=before, reason_code=code
        )
