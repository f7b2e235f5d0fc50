"""Domain values as rows and JSON and back, without loss; a value this version does not know is an error, not a guess.

Each JSON object names its fields as the dataclass does, so that a field added with a default reads from older rows.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from controller.domain.device import (
    REPORT_FIELDS,
    ContainmentCase,
    Device,
    HoldReason,
    OpenCommand,
    PendingContainment,
    RuleState,
)
from controller.domain.effects import (
    CommandRecord,
    Effect,
    EndIsolation,
    IsolateClient,
    ReleaseClient,
    RestrictClient,
    SendCommand,
)
from controller.domain.evidence import Evidence
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRule, AccessRules
from controller.ports.errors import StoreError
from schemas.commands import CommandState

T = TypeVar("T")
FieldConversion = Callable[[Any], Any]

_INFINITE: Final = "inf"  # JSON has no word for it, and a file that other tools read should hold nothing but JSON
_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_LEVELS: Final = {level.value: level for level in ContainmentLevel}
_EVIDENCE: Final = {one.value: one for one in Evidence}
_WAITS: Final = {one.value: one for one in HoldReason}
_RESULTS: Final = {result.value: result for result in RuleResult}
_COMMAND_STATES: Final = {state.value: state for state in CommandState}
_NO_RULES: Final[Mapping[str, RuleState]] = MappingProxyType({})

# The order of a row of `devices`; `state` holds the fields that have no column.
DEVICE_COLUMNS: Final = ("device_id", "first_seen", "last_seen", "online", "stale", "level", "state", *REPORT_FIELDS)
REPORT_COLUMNS: Final = ("device_id", *REPORT_FIELDS, "body")
_IN_COLUMNS: Final = frozenset(DEVICE_COLUMNS)
_REPORTED: Final = len(REPORT_FIELDS)
_of_a_report: Final[Callable[[Device], tuple[Any, ...]]] = attrgetter(*REPORT_FIELDS)


class DataclassCodec(Generic[T]):
    """One dataclass as a JSON object; `to_json` and `from_json` change the fields that JSON would change."""

    def __init__(
        self,
        kind: type[T],
        *,
        leave_out: frozenset[str] = frozenset(),
        to_json: Mapping[str, FieldConversion] | None = None,
        from_json: Mapping[str, FieldConversion] | None = None,
    ) -> None:
        names = [one.name for one in fields(kind) if one.name not in leave_out]  # type: ignore[arg-type]  # T is one
        self._kind = kind
        self._names = tuple(names)
        self._values: Callable[[T], tuple[Any, ...]] = attrgetter(*names)
        self._to_json = tuple((to_json or {}).items())
        self._from_json = tuple((from_json or {}).items())

    def encode(self, value: T) -> dict[str, Any]:
        """The fields by name, fit for JSON."""
        found = dict(zip(self._names, self._values(value), strict=True))
        for name, change in self._to_json:
            found[name] = change(found[name])
        return found

    def decode(self, found: Mapping[str, Any], **more: Any) -> T:
        """The value again; `more` are the fields that were kept elsewhere."""
        values = {**found, **more}
        for name, change in self._from_json:
            if name in values:
                values[name] = change(values[name])
        return self._kind(**values)


def _pairs(found: list[list[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((name, value) for name, value in found)


def _wide(value: float | None) -> float | str | None:
    return _INFINITE if value is not None and math.isinf(value) and value > 0 else value


def _narrow(found: float | str | None) -> float | None:
    return math.inf if found == _INFINITE else found  # type: ignore[return-value]  # the only text it can be


_RULE: Final = DataclassCodec(RuleState, from_json={"result": _RESULTS.__getitem__})
_CASE: Final = DataclassCodec(
    ContainmentCase,
    to_json={"hold_until": _wide, "isolate_until": _wide},
    from_json={
        "hold_until": _narrow,
        "isolate_until": _narrow,
        "level": _LEVELS.__getitem__,
        "proven_level": _LEVELS.__getitem__,
        "causes": tuple,
        "evidence": _EVIDENCE.__getitem__,
    },
)
_OPEN: Final = DataclassCodec(
    OpenCommand, from_json={"params": _pairs, "signatures": _pairs, "state": _COMMAND_STATES.__getitem__}
)
_PENDING: Final = DataclassCodec(
    PendingContainment,
    from_json={"why": _WAITS.__getitem__, "level": _LEVELS.__getitem__, "causes": tuple},
)
_DEVICE: Final = DataclassCodec(
    Device,
    leave_out=_IN_COLUMNS,
    to_json={
        "rules": lambda rules: {key: _RULE.encode(state) for key, state in rules.items()},
        "case": lambda case: None if case is None else _CASE.encode(case),
        "commands": lambda commands: [_OPEN.encode(one) for one in commands],
        "pending": lambda pending: None if pending is None else _PENDING.encode(pending),
    },
    from_json={
        "tags": tuple,
        "rules": lambda found: (
            MappingProxyType({key: _RULE.decode(state) for key, state in found.items()}) if found else _NO_RULES
        ),
        "case": lambda found: None if found is None else _CASE.decode(found),
        "commands": lambda found: tuple(map(_OPEN.decode, found)),
        "pending": lambda found: None if found is None else _PENDING.decode(found),
        "predicates": tuple,
        "offences": tuple,
    },
)
_ACCESS_RULE: Final = DataclassCodec(AccessRule, from_json={"qos": tuple})
_COMMAND: Final = DataclassCodec(CommandRecord, from_json={"params": _pairs, "detail": _pairs})
_EFFECTS: Final[dict[str, DataclassCodec[Any]]] = {
    kind.__name__: DataclassCodec(kind, **changes)
    for kind, changes in (
        (RestrictClient, {"from_json": {"evidence": _EVIDENCE.__getitem__}}),
        (
            IsolateClient,
            {
                "to_json": {"until": _wide},
                "from_json": {"until": _narrow, "evidence": _EVIDENCE.__getitem__},
            },
        ),
        (EndIsolation, {}),
        (ReleaseClient, {}),
        (SendCommand, {"from_json": {"params": _pairs, "signatures": _pairs}}),
    )
}


def dump(value: object) -> str:
    """Compact JSON.

    Raises:
        StoreError: not JSON's (an unknown type, a number that is none, too deep).
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"cannot be kept, it is not JSON: {error}") from error


def read(what: str, build: Callable[[], T]) -> T:
    """What `build` makes of a row.

    Raises:
        StoreError: it is not what this version writes.
    """
    try:
        return build()
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"cannot read {what}: written by a newer version of Cordon, or damaged ({type(error).__name__}: {error})"
        ) from error


def device_row(device: Device) -> tuple[Any, ...]:
    """A device in the order of `DEVICE_COLUMNS`."""
    return (
        device.device_id,
        device.first_seen,
        device.last_seen,
        device.online,
        device.stale,
        device.level.value,
        dump(_DEVICE.encode(device)),
        *_of_a_report(device),
    )


def seen_row(device: Device) -> tuple[Any, ...]:
    """What a contact changes: last contact, what the last report says, device id."""
    return (device.last_seen, *_of_a_report(device), device.device_id)


def report_row(device: Device, body: bytes) -> tuple[Any, ...]:
    """A report in the order of `REPORT_COLUMNS`."""
    return (device.device_id, *_of_a_report(device), body)


def device_from(row: tuple[Any, ...]) -> Device:
    """The device of a row in the order of `DEVICE_COLUMNS`, then the `OF_A_REPORT` of its stored report, if any.

    The one of the two that counts more reports is the later one.
    """
    device_id, first_seen, last_seen, online, stale, _, state, *more = row
    told, reported = (
        dict(zip(REPORT_FIELDS, more, strict=False)),
        dict(zip(REPORT_FIELDS, more[_REPORTED:], strict=True)),
    )
    if reported["accepted"] is not None and reported["accepted"] > told["accepted"]:
        told, last_seen, stale = reported, max(last_seen, reported["reported_at"]), False
    return read(
        f"device {device_id}",
        lambda: _DEVICE.decode(
            json.loads(state),
            device_id=device_id,
            first_seen=first_seen,
            last_seen=last_seen,
            online=None if online is None else bool(online),
            stale=bool(stale),
            **told,
        ),
    )


def effect_row(effect: Effect) -> tuple[str, str, str]:
    """Effect id, name of its type, its fields."""
    kind = type(effect).__name__
    return effect.effect_id, kind, dump(_EFFECTS[kind].encode(effect))


def effect_from(effect_id: str, kind: str, body: str) -> Effect:
    """The effect of a row.

    Raises:
        StoreError: a kind this version does not know: leaving it out would leave a device uncontained in silence.
    """
    record = _EFFECTS.get(kind)
    if record is None:
        raise StoreError(f"effect {effect_id} is of the unknown kind {kind!r}: written by a newer version of Cordon")
    effect: Effect = read(f"effect {effect_id}", lambda: record.decode(json.loads(body)))
    return effect


def command_row(command: CommandRecord) -> tuple[str, str, str, float, str]:
    """Command id, device id, state, when it changed, all fields."""
    body = dump(_COMMAND.encode(command))
    return command.command_id, command.device_id, command.state, command.updated_at, body


def command_from(body: str) -> CommandRecord:
    """The command of a row."""
    return read("a command", lambda: _COMMAND.decode(json.loads(body)))


def dump_rules(rules: AccessRules) -> str:
    """A client's access rules."""
    return dump([_ACCESS_RULE.encode(rule) for rule in rules])


def load_rules(device_id: str, found: str) -> AccessRules:
    """The rules again."""
    return read(f"the rules kept for {device_id}", lambda: tuple(map(_ACCESS_RULE.decode, json.loads(found))))


def dump_detail(detail: dict[str, object] | None) -> str | None:
    """The detail of a line of the record; no detail and an empty one are two things."""
    return None if detail is None else dump(detail)


def load_detail(found: str | None) -> dict[str, object] | None:
    """The detail again."""
    return None if found is None else read("a line of the record", lambda: dict(json.loads(found)))
