"""Writes down how far an update is, and tells it: the record is on the disk before anybody hears of it."""

from collections.abc import Callable

from device_agent.host.clock import Clock
from device_agent.updates.records import UpdateRecord, UpdateRecordStore, UpdateTransaction
from schemas.base import clean_text
from schemas.updates import UpdatePhase, UpdateProgress, UpdateRefusalCode

UpdateProgressCallback = Callable[[UpdateProgress], None]


class UpdateLedger:
    """The records of one device; `step` hears the name of each step before the next one."""

    def __init__(self, records: UpdateRecordStore, clock: Clock, step: Callable[[str], None]) -> None:
        self._records = records
        self._clock = clock
        self._step = step

    def load(self, name: str) -> UpdateRecord:
        """What is known of a name."""
        return self._records.load(name)

    def names(self) -> list[str]:
        """Every name with a record."""
        return self._records.names()

    def save(self, record: UpdateRecord, transaction: UpdateTransaction) -> UpdateRecord:
        """Write down what an update is about to do."""
        record = record.model_copy(update={"transaction": transaction})
        self._records.save(record)
        return record

    def phase(self, record: UpdateRecord, phase: UpdatePhase, tell: UpdateProgressCallback) -> UpdateRecord:
        """Write down how far it is, and tell it."""
        assert record.transaction is not None
        record = self.save(record, record.transaction.model_copy(update={"phase": phase}))
        self.tell(record, phase, tell)
        self._step(f"phase:{phase}")
        return record

    def tell(self, record: UpdateRecord, phase: UpdatePhase, tell: UpdateProgressCallback, percent: int = 0) -> None:
        """Tell it without writing."""
        assert record.transaction is not None
        before = "" if record.current is None else record.current.version
        wanted = record.transaction.wanted
        tell(UpdateProgress(phase=phase, name=record.name, version=wanted, before=before, percent=percent))

    def end(
        self, record: UpdateRecord, outcome: UpdatePhase, code: UpdateRefusalCode | None, reason: str
    ) -> UpdateRecord:
        """Write down how it ended."""
        transaction = record.transaction
        assert transaction is not None
        record = record.model_copy(
            update={
                "transaction": None,
                "outcome": outcome,
                "attempted": transaction.wanted,
                "code": code,
                "reason": clean_text(reason),
                "command_id": transaction.command_id,
                "at": self._clock.now(),
            }
        )
        self._records.save(record)
        return record

    def progress(self, name: str) -> UpdateProgress:
        """How the last, or the present, update of a name stands."""
        record = self.load(name)
        transaction = record.transaction
        before = "" if record.current is None else record.current.version
        if transaction is not None:
            return UpdateProgress(phase=transaction.phase, name=name, version=transaction.wanted, before=before)
        if record.outcome is UpdatePhase.CONFIRMED:
            before = "" if record.previous is None else record.previous.version
        code = record.code or ""
        return UpdateProgress(
            phase=record.outcome, name=name, version=record.attempted, before=before, reason_code=code
        )
