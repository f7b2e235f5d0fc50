"""Assigns devices to rings by tag, class, id, expression or share. A device belongs to the first ring that matches."""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from controller.domain.policy.cel import CelEnvironment, CelExpression, EvaluationError, ExpressionError, evaluate
from controller.domain.rollout.model import RolloutError

MAX_RINGS: Final = 16
MAX_SELECT: Final = 500  # characters
REST: Final = "rest"
_NAME: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,31}$")
_SHARE: Final = re.compile(r"^(\d{1,3}(?:\.\d{1,2})?)%$")
_FACTS: Final = {"device.id": "string", "device.class": "string", "device.tags": "list(string)"}
_language: Final = CelEnvironment(_FACTS)


@dataclass(frozen=True, slots=True)
class RolloutCandidate:
    """The properties of a device that selectors can use."""

    device_id: str
    device_class: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RingSelector:
    """Selects devices; `kind` is tag, class, id, share, cel or rest."""

    kind: str
    value: str = ""
    share: float = 0.0  # of the devices that no earlier ring selected
    expression: CelExpression | None = None

    def matches(self, device: RolloutCandidate) -> bool:
        """Whether the device is selected; a share matches every device, `assign_rings` applies it."""
        match self.kind:
            case "tag":
                return self.value in device.tags
            case "class":
                return self.value == device.device_class
            case "id":
                return fnmatchcase(device.device_id, self.value)
            case "cel":
                return _evaluate_selector(self.expression, device)
            case _:
                return True


@dataclass(frozen=True, slots=True)
class RolloutRing:
    """A configured ring."""

    name: str
    select: RingSelector


DEFAULT_RINGS: Final = (("test", "tag:ring:test"), ("canary", "tag:ring:canary"), ("fleet", REST))


def parse_ring(name: str, select: str) -> RolloutRing:
    """Returns the ring.

    Raises:
        RolloutError: the name or the selection is invalid.
    """
    if _NAME.fullmatch(name) is None:
        raise RolloutError(f"{name!r} is not a ring name: use lower-case letters, digits, - and _")
    return RolloutRing(name, parse_select(select))


def parse_select(text: str) -> RingSelector:
    """Parses `tag:ring:test`, `class:gateway`, `id:edge-*`, `10%`, `rest` or `cel:"a" in device.tags`.

    Raises:
        RolloutError: the text has another form.
    """
    text = text.strip()
    if len(text) > MAX_SELECT:
        raise RolloutError(f"a selection has at most {MAX_SELECT} characters")
    if text == REST:
        return RingSelector(REST)
    share = _SHARE.fullmatch(text)
    if share is not None:
        part = float(share[1]) / 100
        if not 0 < part <= 1:
            raise RolloutError(f"{text}: a share is more than 0% and at most 100%")
        return RingSelector("share", text, part)
    kind, _, value = text.partition(":")
    if kind == "cel" and value:
        try:
            return RingSelector("cel", value, expression=_language.compile(value))
        except ExpressionError as e:
            raise RolloutError(f"{text!r}: {e}") from e
    if kind not in ("tag", "class", "id") or not value:
        raise RolloutError(f"{text!r}: a selection is tag:NAME, class:NAME, id:PATTERN, cel:EXPRESSION, 10% or rest")
    return RingSelector(kind, value)


def assign_rings(
    devices: Iterable[RolloutCandidate], rings: Sequence[RolloutRing], salt: str
) -> tuple[tuple[str, ...], ...]:
    """Returns the device ids of each ring, shuffled by `salt`; devices that no ring selects are left out.

    Raises:
        RolloutError: there are no rings, too many, or two have the same name.
    """
    if not rings or len(rings) > MAX_RINGS:
        raise RolloutError(f"a rollout has between 1 and {MAX_RINGS} rings")
    if len({ring.name for ring in rings}) != len(rings):
        raise RolloutError("two rings have the same name")
    remaining = sorted(devices, key=lambda device: _shuffle_key(salt, device.device_id))
    assigned: list[tuple[str, ...]] = []
    for ring in rings:
        if ring.select.kind == "share":
            members = remaining[: math.ceil(len(remaining) * ring.select.share)]
            remaining = remaining[len(members) :]
        else:
            members = [device for device in remaining if ring.select.matches(device)]
            member_ids = {device.device_id for device in members}
            remaining = [device for device in remaining if device.device_id not in member_ids]
        assigned.append(tuple(device.device_id for device in members))
    return tuple(assigned)


def _shuffle_key(salt: str, device_id: str) -> bytes:
    return hashlib.sha256(f"{salt}/{device_id}".encode()).digest()


def _evaluate_selector(expression: CelExpression | None, device: RolloutCandidate) -> bool:
    if expression is None:
        return False
    facts = {"device.id": device.device_id, "device.class": device.device_class, "device.tags": list(device.tags)}
    try:
        return evaluate(expression, _language.activation(facts))
    except EvaluationError as e:
        raise RolloutError(f"{expression.text!r} cannot be evaluated for {device.device_id}: {e}") from e
