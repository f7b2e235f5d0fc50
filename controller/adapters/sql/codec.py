"""Conversion of domain values to rows and JSON and back, without loss.

JSON objects use the field names of the dataclass, so that a field added with a default reads from older rows. A value
that this version does not know is an error.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from controller.domain.device import REPORT_FIELDS, Device
from controller.domain.effects import CommandRecord, Effect
from controller.ports.broker_tables import AccessRule, AccessRules
from controller.ports.errors import StoreError

T = TypeVar("T")

_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode
_encode_ascii: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
# JSON has no infinity: it becomes the text "Infinity".
_CONFIG: Final = ConfigDict(extra="forbid", ser_json_inf_nan="strings")
_NAN: Final = "NaN"
_NOT_OURS: Final = "written by a newer version of Cordon, or damaged"

# The order of a row of `devices`; `state` holds the fields that have no column.
DEVICE_COLUMNS: Final = ("device_id", "first_seen", "last_seen", "online", "stale", "level", "state", *REPORT_FIELDS)
REPORT_COLUMNS: Final = ("device_id", *REPORT_FIELDS, "body")
_REPORTED: Final = len(REPORT_FIELDS)
_ACCEPTED: Final = REPORT_FIELDS.index("accepted")
_REPORTED_AT: Final = REPORT_FIELDS.index("reported_at")
_report_fields: Final[Callable[[Device], tuple[Any, ...]]] = attrgetter(*REPORT_FIELDS)


def dump(value: object) -> str:
    """Returns compact JSON.

    Raises:
        StoreError: not JSON (an unknown type, NaN, infinity, too deep).
    """
    try:
        text = _encode(value)
        return text if text.isascii() or _is_unicode(text) else _encode_ascii(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(error) from error


def _is_unicode(text: str) -> bool:
    """Whether the text can be stored as UTF-8: lone surrogates cannot, and stay escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_json(error: Exception) -> StoreError:
    return StoreError(f"cannot be stored, it is not JSON: {error}")


def _constant(name: str) -> str:
    if name == _NAN:
        raise ValueError("not a number")
    return name


class JsonCodec(Generic[T]):
    """Converts a dataclass to a JSON object and back; fields in `left_out` are stored elsewhere."""

    def __init__(self, kind: type[T], left_out: Iterable[str] = ()) -> None:
        # Optional, because pydantic takes a configuration for any type but a dataclass itself.
        optional: Any = kind | None
        self._adapter: TypeAdapter[T | None] = TypeAdapter(optional, config=_CONFIG)
        self._left_out = set(left_out)

    def dump(self, value: T, *left_out: str) -> str:
        """Returns compact JSON, without the fields in `left_out`.

        Raises:
            StoreError: not JSON.
        """
        excluded = self._left_out.union(left_out) if left_out else self._left_out
        try:
            try:
                text = self._adapter.dump_json(value, exclude=excluded, warnings=False).decode()
            except PydanticSerializationError:
                return self._dump_slowly(value, excluded)
            return self._dump_slowly(value, excluded) if _NAN in text else text
        except (TypeError, ValueError, RecursionError) as error:
            raise _not_json(error) from error

    def _dump_slowly(self, value: T, excluded: set[str]) -> str:
        # Also for text with lone surrogates; and refuses NaN, which `dump_json` writes like the text "NaN".
        text = json.dumps(self._adapter.dump_python(value, mode="json", exclude=excluded, warnings=False))
        return _encode_ascii(json.loads(text, parse_constant=_constant))

    def load(self, what: str, body: str, **more: Any) -> T:
        """Returns the value of a JSON object and of the fields stored elsewhere; `what` names it in the error.

        Raises:
            StoreError: this version does not write such an object.
        """
        return read(what, lambda: self.decode({**json.loads(body), **more}))

    def decode(self, fields: Mapping[str, Any]) -> T:
        """Returns the value with these fields.

        Raises:
            ValueError: an unknown field or value.
        """
        value = self._adapter.validate_python(dict(fields))
        assert value is not None  # of a dict
        return value


_DEVICE: Final = JsonCodec(Device, DEVICE_COLUMNS)
_COMMAND: Final = JsonCodec(CommandRecord)
_EFFECTS: Final[dict[str, JsonCodec[Any]]] = {kind.__name__: JsonCodec(kind) for kind in get_args(Effect)}
_ACCESS_RULE: Final = JsonCodec(AccessRule)


def read(what: str, build: Callable[[], T]) -> T:
    """Returns what `build` makes of a row.

    Raises:
        StoreError: this version does not write such a row.
    """
    try:
        return build()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise StoreError(f"cannot read {what}: {_NOT_OURS} ({problem})") from error
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise StoreError(f"cannot read {what}: {_NOT_OURS} ({type(error).__name__}: {error})") from error


def device_row(device: Device) -> tuple[Any, ...]:
    """Returns a device in the order of `DEVICE_COLUMNS`."""
    return (
        device.device_id,
        device.first_seen,
        device.last_seen,
        device.online,
        device.stale,
        device.level.value,
        # Without rules the field is left out: all such devices share one empty mapping.
        _DEVICE.dump(device) if device.rules else _DEVICE.dump(device, "rules"),
        *_report_fields(device),
    )


def contact_row(device: Device) -> tuple[Any, ...]:
    """Returns what a contact changes: last contact, fields of the last report, device id."""
    return (device.last_seen, *_report_fields(device), device.device_id)


def report_row(device: Device, body: bytes) -> tuple[Any, ...]:
    """Returns a report in the order of `REPORT_COLUMNS`."""
    return (device.device_id, *_report_fields(device), body)


def present_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns a device in the order of `DEVICE_COLUMNS`, in the later of two states: its own or its report's.

    `row` has the `REPORT_FIELDS` of the stored report, if any, after its own columns. The state with more accepted
    reports is the later.
    """
    device_id, first_seen, last_seen, online, stale, level, state, *report_values = row
    fields, stored = report_values[:_REPORTED], report_values[_REPORTED:]
    if stored[_ACCEPTED] is not None and stored[_ACCEPTED] > fields[_ACCEPTED]:
        fields, last_seen, stale = stored, max(last_seen, stored[_REPORTED_AT]), 0
    return device_id, first_seen, last_seen, online, stale, level, state, *fields


def device_from(row: tuple[Any, ...]) -> Device:
    """Returns the device of a row as `present_row` takes it."""
    device_id, first_seen, last_seen, online, stale, _, state, *report_values = present_row(row)
    return _DEVICE.load(
        f"device {device_id}",
        state,
        device_id=device_id,
        first_seen=first_seen,
        last_seen=last_seen,
        online=None if online is None else bool(online),
        stale=bool(stale),
        **dict(zip(REPORT_FIELDS, report_values, strict=True)),
    )


def effect_row(effect: Effect) -> tuple[str, str, str]:
    """Returns effect id, name of its type, and its fields."""
    kind = type(effect).__name__
    return effect.effect_id, kind, _EFFECTS[kind].dump(effect)


def effect_from(effect_id: str, kind: str, body: str) -> Effect:
    """Returns the effect of a row.

    Raises:
        StoreError: an unknown kind. It is not skipped, because that would leave a device uncontained.
    """
    codec = _EFFECTS.get(kind)
    if codec is None:
        raise StoreError(f"effect {effect_id} is of the unknown kind {kind!r}: written by a newer version of Cordon")
    effect: Effect = codec.load(f"effect {effect_id}", body)
    return effect


def command_row(command: CommandRecord) -> tuple[str, str, str, float, str]:
    """Returns command id, device id, state, time of the last change, and all fields."""
    return command.command_id, command.device_id, command.state, command.updated_at, _COMMAND.dump(command)


def command_from(body: str) -> CommandRecord:
    return _COMMAND.load("a command", body)


def dump_rules(rules: AccessRules) -> str:
    return f"[{','.join(map(_ACCESS_RULE.dump, rules))}]"


def load_rules(device_id: str, body: str) -> AccessRules:
    return read(f"the saved rules of {device_id}", lambda: tuple(map(_ACCESS_RULE.decode, json.loads(body))))


def dump_detail(detail: dict[str, object] | None) -> str | None:
    """Returns the detail of an audit entry; None and {} stay different."""
    return None if detail is None else dump(detail)


def load_detail(body: str | None) -> dict[str, object] | None:
    return None if body is None else read("an audit entry", lambda: dict(json.loads(body)))
