"""The rule engine: SELECT over events of clients, whose rows are republished as messages.

Of EMQX's SQL it has `SELECT fields FROM "$events/..." WHERE field = 'text' AND ...`; anything else is refused.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CONNACK: Final = "$events/client_connack"
AUTHN: Final = "$events/client_check_authn_complete"
AUTHZ: Final = "$events/client_check_authz_complete"
EVENTS: Final = frozenset({CONNACK, AUTHN, AUTHZ})
_SELECT: Final = re.compile(
    r"\s*select\s+(?P<fields>.+?)\s+from\s+(?P<events>.+?)(?:\s+where\s+(?P<where>.+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_AND: Final = re.compile(r"\band\b", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED: Final = re.compile(r'"([^"]+)"')
_CONDITION: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=|!=|<>)\s*'([^']*)'\s*")
_PLACEHOLDER: Final = re.compile(r"\$\{([^}]*)\}")


class UnsupportedSqlError(ValueError):
    """The stand-in has no such SQL."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A parsed SELECT; no `fields` means all of them."""

    events: tuple[str, ...]
    fields: tuple[str, ...]
    conditions: tuple[tuple[str, bool, str], ...]  # field, whether it equals, text

    def of(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the selected fields of an event; None when a condition does not hold."""
        if any((str(event.get(name)) == text) is not equals for name, equals, text in self.conditions):
            return None
        return dict(event) if not self.fields else {name: event.get(name, "undefined") for name in self.fields}


def parse_select(sql: str) -> Selection:
    """Parses a SELECT.

    Raises:
        UnsupportedSqlError: anything but what the module's text says.
    """
    parts = _SELECT.fullmatch(sql)
    if parts is None:
        raise UnsupportedSqlError("not a SELECT ... FROM ...")
    events = [name.strip() for name in parts["events"].split(",")]
    quoted = [_QUOTED.fullmatch(name) for name in events]
    if any(name is None or name[1] not in EVENTS for name in quoted):
        raise UnsupportedSqlError(f"FROM has only {', '.join(sorted(EVENTS))}")
    fields = [] if parts["fields"].strip() == "*" else [name.strip() for name in parts["fields"].split(",")]
    if not all(_NAME.fullmatch(name) for name in fields):
        raise UnsupportedSqlError("SELECT has only * or names of fields")
    conditions = [_CONDITION.fullmatch(text) for text in _AND.split(parts["where"] or "")]
    if parts["where"] is not None and None in conditions:
        raise UnsupportedSqlError("WHERE has only field = 'text' and field != 'text', joined by AND")
    return Selection(
        tuple(name[1] for name in quoted if name is not None),
        tuple(fields),
        tuple((found[1], found[2] == "=", found[3]) for found in conditions if found is not None),
    )


@dataclass(frozen=True, slots=True)
class Republish:
    """An action that publishes a selected row; `${field}` and `${.}` are replaced by values of the row."""

    topic: str
    payload: str
    qos: int
    retain: bool

    def message(self, row: Mapping[str, Any]) -> tuple[str, bytes]:
        """Returns topic and payload."""
        return _render(self.topic, row), _render(self.payload or "${.}", row).encode()


def _render(template: str, row: Mapping[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        one = dict(row) if found[1] == "." else row.get(found[1], "undefined")
        return one if isinstance(one, str) else json.dumps(one, separators=(",", ":"))

    return _PLACEHOLDER.sub(value, template)


@dataclass(slots=True)
class EventRule:
    """One rule; times are Unix seconds, `matched` and `passed` count by node."""

    id: str
    name: str
    sql: str
    selection: Selection
    actions: tuple[Republish, ...]
    enable: bool
    description: str
    created_at: float
    modified_at: float
    matched: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)

    def rows(self, name: str, node: str, event: Mapping[str, Any]) -> Iterable[tuple[Republish, dict[str, Any]]]:
        """Yields what is to be published for an event of this name at a node."""
        if not self.enable or name not in self.selection.events:
            return
        self.matched[node] = self.matched.get(node, 0) + 1
        row = self.selection.of(event)
        if row is None:
            return
        self.passed[node] = self.passed.get(node, 0) + 1
        for action in self.actions:
            yield action, row
