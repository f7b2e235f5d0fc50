"""What is lost when a backup replaces the present store, for the operator who restores it."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.adapters.files import as_owner
from controller.adapters.sql.options import StoreOptions
from controller.adapters.sqlite.schema import connect
from controller.ports.errors import StoreError

_MAX_NAMES: Final = 10_000  # of each kind

# What is in the present store (`main`) and is not, or is otherwise, in the backup (`fresh`).
_QUERIES: Final = (
    (
        "revoked since; revoked again when the controller starts",
        (
            "SELECT name || ' ' || serial FROM main.certificates AS old WHERE revoked_at IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM fresh.certificates AS new WHERE new.serial = old.serial AND new.revoked_at IS NOT NULL)"
        ),
    ),
    (
        "certificates issued since, unknown now: their devices need `cordon enrol token --device ... --replace`",
        (
            "SELECT name || ' ' || serial FROM main.certificates AS old WHERE NOT EXISTS"
            " (SELECT 1 FROM fresh.certificates AS new WHERE new.serial = old.serial)"
        ),
    ),
    (
        "contained since, released by the controller until their next report",
        (
            "SELECT device_id || ' ' || level FROM main.devices AS old WHERE level <> 'none' AND NOT EXISTS"
            " (SELECT 1 FROM fresh.devices AS new WHERE new.device_id = old.device_id AND new.level = old.level)"
        ),
    ),
    (
        "enrolment tokens used or withdrawn since, usable again: `cordon enrol withdraw`",
        (
            "SELECT new.token_id FROM fresh.enrolment_tokens AS new LEFT JOIN main.enrolment_tokens AS old"
            " USING (token_id) WHERE new.uses_left > coalesce(old.uses_left, 0)"
        ),
    ),
    (
        "API tokens withdrawn or replaced since, valid again: `cordon token revoke`",
        (
            "SELECT new.name FROM fresh.tokens AS new WHERE NOT EXISTS"
            " (SELECT 1 FROM main.tokens AS old WHERE old.name = new.name AND old.digest = new.digest)"
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class RestoreLoss:
    """One kind of loss: what it is and what to do, and the names."""

    what: str
    names: tuple[str, ...]


def losses_between(present: Path, backup: Path) -> Sequence[RestoreLoss]:
    """Compares the present store with the backup that will replace it; kinds without a loss are left out.

    Raises:
        StoreError: one of them cannot be read.
    """
    try:
        with as_owner(present):
            connection = connect(present.absolute(), StoreOptions(), read_only=True)
        try:
            connection.execute("ATTACH DATABASE ? AS fresh", (f"{backup.absolute().as_uri()}?mode=ro",))
            found = [
                RestoreLoss(what, tuple(str(name) for (name,) in connection.execute(query).fetchmany(_MAX_NAMES)))
                for what, query in _QUERIES
            ]
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as e:
        raise StoreError(f"{present} cannot be compared with {backup}: {e}") from e
    return [one for one in found if one.names]
