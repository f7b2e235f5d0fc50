"""What a containment wrote over or cut, remembered until it is given back."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from controller.adapters.sqlite import codec
from controller.ports.broker import KeptSubscription

_SUBSCRIPTION: Final = codec.Record(KeptSubscription)
_KEEP: Final = (
    "INSERT INTO kept_subscriptions (device_id, case_id, topic, at, body) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (device_id, case_id, topic) DO UPDATE SET at = excluded.at, body = excluded.body"
)


def keep_subscriptions(
    connection: sqlite3.Connection, *, device_id: str, case_id: str, cut: Sequence[KeptSubscription], at: float
) -> None:
    """Remember what is about to be cut."""
    rows = [(device_id, case_id, one.topic, at, codec.dump(_SUBSCRIPTION.encode(one))) for one in cut]
    connection.executemany(_KEEP, rows)


def subscriptions(connection: sqlite3.Connection, *, device_id: str, case_id: str) -> tuple[KeptSubscription, ...]:
    """What was cut, by topic."""
    rows = connection.execute(
        "SELECT body FROM kept_subscriptions WHERE device_id = ? AND case_id = ? ORDER BY topic", (device_id, case_id)
    )
    return tuple(_SUBSCRIPTION.decode(json.loads(body)) for (body,) in rows)


def forget(connection: sqlite3.Connection, *, device_id: str, case_id: str) -> None:
    """The case is over: nothing of it is kept any more."""
    connection.execute("DELETE FROM kept_rules WHERE device_id = ? AND case_id = ?", (device_id, case_id))
    connection.execute("DELETE FROM kept_subscriptions WHERE device_id = ? AND case_id = ?", (device_id, case_id))
