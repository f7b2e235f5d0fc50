"""What `cordon store` does on this machine: over the store's file or its database.

Adapters are imported where they are used: a command loads no more than it needs.
"""

import contextlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from controller.adapters.postgres.address import PostgresAddress
    from controller.domain.audit_anchors import AuditHeads, AuditVerification
    from controller.service.settings.settings import StoreSettings

_SQLITE: Final = "sqlite"


def copy_store(source: str, target: str, passwords: tuple[str, str], progress: Callable[[str, int], None]) -> str:
    """Copies a store to an empty place; returns the ends of the audit log, which both have.

    `source` and `target` are URLs, `sqlite:///PATH` or `postgresql://...`, with a password each, or an empty text.

    Raises:
        ControllerError: nothing was kept.
    """
    places = [_place(url, password) for url, password in zip((source, target), passwords, strict=True)]
    from controller.adapters.store_copy import copy_store

    return str(copy_store(places[0], places[1], progress).heads)


def _place(url: str, password: str) -> "Path | PostgresAddress":
    from controller.ports.errors import SettingsError

    if find_spec("psycopg") is None:
        raise SettingsError("this needs the driver of PostgreSQL: pip install 'emqx-cordon[postgres]'")
    from controller.adapters.postgres.address import PostgresAddress

    parts = urlsplit(url)
    if parts.scheme != _SQLITE:
        return PostgresAddress.parse(url, password)
    if parts.netloc or not parts.path or parts.query or parts.fragment:
        raise SettingsError(f"{url}: a file of SQLite is sqlite:///var/lib/cordon/cordon.db, with three slashes")
    return Path(unquote(parts.path))


def read_password(text: str) -> str:
    """The first line of a secret; `text` says where it is, empty for none.

    Raises:
        SettingsError: it cannot be read.
    """
    from controller.adapters.files import read_line
    from controller.ports.errors import SettingsError
    from schemas.secret_sources import secret_source

    try:
        return read_line(secret_source(text), "the password") if text else ""
    except ValueError as e:
        raise SettingsError(f"the password: {e}") from e


def store_status(place: "StoreSettings") -> dict[str, Any]:
    """What is known of a store, while a controller runs or not.

    Raises:
        ControllerError: it cannot be read.
    """
    if place.url is not None:
        from controller.adapters.postgres.status import status
        from controller.app.adapters import postgres_address

        return status(postgres_address(place))
    from controller.adapters.sql import audit_chain, queries
    from controller.adapters.sqlite.restore import is_at_rest, opened

    path = place.path
    with contextlib.ExitStack() as stack:
        in_use = not is_at_rest(path, stack)
    with opened(path) as connection:
        (version,) = connection.execute("SELECT sqlite_version()").fetchone()
        return {
            "store": str(path),
            "engine": f"SQLite {version}",
            "controllers": [{"name": "this machine's"}] if in_use else [],
            "bytes": path.stat().st_size,
            "audit_head": str(audit_chain.heads(connection)),
            "rows": queries.counts(connection),
        }


def verify_audit(place: "Path | str", password: str, noted: "AuditHeads | None") -> "AuditVerification":
    """Verifies the audit log of a file or of a database (a URL), up to heads that were noted earlier.

    `password`: where the database's password is, empty for none.

    Raises:
        ControllerError: it cannot be read.
    """
    found = place if isinstance(place, Path) else _place(place, read_password(password))
    if isinstance(found, Path):
        from controller.adapters.sqlite.audit_chain import check_file

        return check_file(found, noted)
    from controller.adapters.postgres.audit_chain import check_database

    return check_database(found, noted)
