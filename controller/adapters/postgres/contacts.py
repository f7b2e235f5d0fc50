"""The contacts of devices in one transaction: what several callers write of a device is merged into one row.

`contacts.version` is the version of the whole device: whoever changes anything of a device changes its contact too.
Each caller names the version that it decided on, which is the one that the caller before it left.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.adapters.sql import codec
from controller.adapters.sql.statements import SqlRow
from controller.domain.device import REPORT_FIELDS, Device
from controller.ports.errors import ConflictError

Versions = Mapping[str, tuple[int, int]]
# `stale`: `None` leaves it as it is stored.
CONTACT_COLUMNS: Final = ("device_id", "last_seen", "stale", *REPORT_FIELDS)
_LAST_SEEN: Final = CONTACT_COLUMNS.index("last_seen")
_STALE: Final = CONTACT_COLUMNS.index("stale")
_ACCEPTED: Final = CONTACT_COLUMNS.index("accepted")
_REPORTED_AT: Final = CONTACT_COLUMNS.index("reported_at")
_UNCHECKED: Final = (None, None)


def contact_row(device: Device, *, stale: bool | None) -> SqlRow:
    """Returns the last contact of a device in the order of `CONTACT_COLUMNS`."""
    last_seen, *told, device_id = codec.contact_row(device)
    return device_id, last_seen, stale, *told


def reported_row(device: Device) -> SqlRow:
    """Returns the same of a device of which only the values of a report are new."""
    row = list(contact_row(device, stale=False))
    row[_LAST_SEEN] = device.reported_at
    return tuple(row)


def checked_row(device: Device) -> SqlRow:
    """Returns the same of a device of which nothing is new: no contact, and no report of it has as many before it."""
    row = list(contact_row(device, stale=None))
    row[_LAST_SEEN] = 0.0
    return tuple(row)


@dataclass(slots=True)
class Contact:
    """A row to write. `is_decided`: the row in `devices` is written too; `by_report`: nothing is new but a report.

    `expected` and `version`: of the device before and after, `None` if its version is not checked.
    """

    row: SqlRow
    is_decided: bool
    by_report: bool
    expected: int | None
    version: int | None

    @property
    def values(self) -> tuple[Any, ...]:
        """`CONTACT_COLUMNS`, `expected`, `version`, `by_report`."""
        return (*self.row, self.expected, self.version, self.by_report)


class Contacts(dict[str, Contact]):
    """By device id, after all callers that were added, in their order."""

    def add(
        self, decided: Iterable[SqlRow], seen: Iterable[SqlRow], reported: Iterable[SqlRow], given: Versions
    ) -> None:
        """Adds the rows of one caller, with the versions that it names.

        Raises:
            ConflictError: it was decided on another version than the caller before it left.
        """
        mine: set[str] = set()
        for row in decided:
            self._put(row, given, mine, is_decided=True)
        for row in seen:
            before = self.get(row[0])
            stale = None if before is None else before.row[_STALE]
            self._put(row if stale is None else (*row[:_STALE], stale, *row[_STALE + 1 :]), given, mine)
        for row in reported:
            before = self.get(row[0])
            self._put(row if before is None else _later(before.row, row), given, mine, by_report=True)

    def _put(
        self, row: SqlRow, given: Versions, mine: set[str], *, is_decided: bool = False, by_report: bool = False
    ) -> None:
        device_id = row[0]
        expected, version = given.get(device_id, _UNCHECKED)
        before = self.get(device_id)
        if before is None:
            self[device_id] = Contact(row, is_decided, by_report, expected, version)
        else:
            if device_id not in mine and expected != before.version:
                raise ConflictError([device_id])
            before.row, before.version = row, version
            before.is_decided = before.is_decided or is_decided
            before.by_report = before.by_report and by_report
        mine.add(device_id)

    def sorted(self) -> Iterator[Contact]:
        """In the order of ids: writers that lock rows in one order cannot deadlock."""
        return (self[device_id] for device_id in sorted(self))


def _later(before: SqlRow, reported: SqlRow) -> SqlRow:
    """Returns the state after a report: of the two, the one with more accepted reports is the later."""
    if reported[_ACCEPTED] <= before[_ACCEPTED]:
        return before
    row = list(reported)
    row[_LAST_SEEN] = max(before[_LAST_SEEN], reported[_REPORTED_AT])
    return tuple(row)
