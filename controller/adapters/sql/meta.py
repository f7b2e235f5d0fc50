"""Single values of a store, by key, in the table `meta`."""

from typing import Final

from controller.adapters.sql.connection import SqlConnection

PUT: Final = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


def get(connection: SqlConnection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def put(connection: SqlConnection, key: str, value: str) -> None:
    connection.execute(PUT, (key, value))
