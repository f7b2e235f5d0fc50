"""Audit entries in the log: a log collector can follow one device or one case."""

from collections.abc import Awaitable, Callable
from typing import Final

from controller.domain.effects import AuditEntry, Effect, SendCommand
from controller.ports.log import Log
from controller.service.unit_of_work import UnitOfWork

MOST_TEXT: Final = 200  # characters of one value; some are written by devices
_OWN: Final = frozenset({"event", "level", "timestamp", "part", "actor", "alert", "logger"})  # names of the log line
AuditRecorder = Callable[[AuditEntry], Awaitable[None]]  # commits an entry that follows from no event


class AuditLogger:
    """Writes each committed audit entry to the log."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def on_commit(self, batch: UnitOfWork) -> None:
        for _, entry in batch.audit:
            self._log(entry.kind.value, fields_of(entry))


def fields_of(entry: AuditEntry) -> dict[str, object]:
    """`device`, `case`, `actor` and `alert` where set, and the detail's single values; lists are left out."""
    fields: dict[str, object] = {"device": entry.device_id, "case": entry.case_id, "actor": entry.actor}
    fields = {name: value for name, value in fields.items() if value}
    if entry.alert:
        fields["alert"] = True
    for name, value in (entry.detail or {}).items():
        field = f"{name}_" if name in _OWN or name in fields else name
        if isinstance(value, str):
            fields[field] = value[:MOST_TEXT]
        elif isinstance(value, bool | int | float):
            fields[field] = value
    return fields


def effect_fields(effect: Effect) -> dict[str, object]:
    """The fields of a log line about an effect: `device`, `effect`, and `case` or `command`."""
    fields: dict[str, object] = {"device": effect.device_id, "effect": type(effect).__name__}
    if isinstance(effect, SendCommand):
        return {**fields, "command": effect.command_id}
    return {**fields, "case": effect.case_id} if effect.case_id else fields
