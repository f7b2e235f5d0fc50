"""Saved state of containments: overwritten rules, ended subscriptions, and cases of users."""

from collections.abc import Sequence
from typing import Final

from controller.adapters.sql import codec
from controller.adapters.sql.connection import SqlConnection
from controller.domain.containment.users import UserCase
from controller.ports.broker import SavedSubscription

_SUBSCRIPTION: Final = codec.JsonCodec(SavedSubscription)
_USER_CASE: Final = codec.JsonCodec(UserCase)
_USER: Final = "username"  # the only kind: a certificate resolves to a client id or a user name
_PUT_IDENTITY: Final = (
    "INSERT INTO identity_cases (kind, name, case_id, body) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (kind, name) DO UPDATE SET case_id = excluded.case_id, body = excluded.body"
)
_DROP_IDENTITY: Final = "DELETE FROM identity_cases WHERE kind = ? AND name = ?"
_KEEP: Final = (
    "INSERT INTO kept_subscriptions (device_id, case_id, client_id, topic, at, body) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (device_id, case_id, client_id, topic) DO UPDATE SET at = excluded.at, body = excluded.body"
)


def keep_subscriptions(
    connection: SqlConnection, device_id: str, case_id: str, cut: Sequence[SavedSubscription], at: float
) -> None:
    rows = [(device_id, case_id, one.client, one.topic, at, _SUBSCRIPTION.dump(one)) for one in cut]
    connection.executemany(_KEEP, rows)


def subscriptions(connection: SqlConnection, device_id: str, case_id: str) -> tuple[SavedSubscription, ...]:
    """Returns the saved subscriptions by client and topic."""
    rows = connection.execute(
        "SELECT body FROM kept_subscriptions WHERE device_id = ? AND case_id = ? ORDER BY client_id, topic",
        (device_id, case_id),
    )
    return tuple(_SUBSCRIPTION.load(f"a saved subscription of {device_id}", body) for (body,) in rows)


def forget(connection: SqlConnection, device_id: str, case_id: str) -> None:
    """Deletes the saved state of a case."""
    connection.execute("DELETE FROM kept_rules WHERE device_id = ? AND case_id = ?", (device_id, case_id))
    connection.execute("DELETE FROM kept_subscriptions WHERE device_id = ? AND case_id = ?", (device_id, case_id))


def user_rows(cases: Sequence[UserCase]) -> tuple[tuple[str, list[tuple[str, ...]]], ...]:
    """Returns the statements that store open cases and delete ended ones, with their rows."""
    kept = [(_USER, one.name, one.case_id, _USER_CASE.dump(one)) for one in cases if not one.is_over]
    gone = [(_USER, one.name) for one in cases if one.is_over]
    return (_PUT_IDENTITY, list[tuple[str, ...]](kept)), (_DROP_IDENTITY, list[tuple[str, ...]](gone))


def user_cases(connection: SqlConnection) -> list[UserCase]:
    """Returns every user that is contained or being released, by name.

    Raises:
        StoreError: written by a newer version of Cordon, or damaged.
    """
    rows = connection.execute("SELECT name, body FROM identity_cases WHERE kind = ? ORDER BY name", (_USER,))
    return [_USER_CASE.load(f"the case of the user {name!r}", body) for name, body in rows]
