"""Which device is in which ring: by tag, class, id, expression or share; the first ring that takes a device has it."""

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
    """A device as rings see it."""

    device_id: str
    device_class: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RingSelector:
    """One way to choose devices: `kind` is tag, class, id, share, cel or rest."""

    kind: str
    value: str = ""
    share: float = 0.0  # of those that no ring before has taken
    expression: CelExpression | None = None

    def takes(self, device: RolloutCandidate) -> bool:
        """Whether the device is meant; a share is no property of one device."""
        match self.kind:
            case "tag":
                return self.value in device.tags
            case "class":
                return self.value == device.device_class
            case "id":
                return fnmatchcase(device.device_id, self.value)
            case "cel":
                return _answer(self.expression, device)
            case _:
                return True


@dataclass(frozen=True, slots=True)
class RolloutRing:
    """A ring as it is configured."""

    name: str
    select: RingSelector


DEFAULT_RINGS: Final = (("test", "tag:ring:test"), ("canary", "tag:ring:canary"), ("fleet", REST))


def parse_ring(name: str, select: str) -> RolloutRing:
    """A ring of this name.

    Raises:
        RolloutError: no usable name or selection.
    """
    if _NAME.fullmatch(name) is None:
        raise RolloutError(f"{name!r} is not a ring's name: letters, digits, - and _ in lower case")
    return RolloutRing(name, parse_select(select))


def parse_select(text: str) -> RingSelector:
    """Read `tag:ring:test`, `class:gateway`, `id:edge-*`, `10%`, `rest` or `cel:"a" in device.tags`.

    Raises:
        RolloutError: another shape.
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
        raise RolloutError(f"{text!r}: a ring takes tag:NAME, class:NAME, id:PATTERN, cel:EXPRESSION, 10% or rest")
    return RingSelector(kind, value)


def divide(devices: Iterable[RolloutCandidate], rings: Sequence[RolloutRing], salt: str) -> tuple[tuple[str, ...], ...]:
    """The device ids of each ring, in an order that `salt` shuffles; those that no ring takes are left out.

    Raises:
        RolloutError: no rings, two of one name, or a ring without devices.
    """
    if not rings or len(rings) > MAX_RINGS:
        raise RolloutError(f"a rollout has between 1 and {MAX_RINGS} rings")
    if len({ring.name for ring in rings}) != len(rings):
        raise RolloutError("two rings have the same name")
    left = sorted(devices, key=lambda one: _shuffled(salt, one.device_id))
    found: list[tuple[str, ...]] = []
    for ring in rings:
        if ring.select.kind == "share":
            taken = left[: math.ceil(len(left) * ring.select.share)]
            left = left[len(taken) :]
        else:
            taken = [one for one in left if ring.select.takes(one)]
            chosen = {one.device_id for one in taken}
            left = [one for one in left if one.device_id not in chosen]
        found.append(tuple(one.device_id for one in taken))
    return tuple(found)


def _shuffled(salt: str, device_id: str) -> bytes:
    return hashlib.sha256(f"{salt}/{device_id}".encode()).digest()


def _answer(expression: CelExpression | None, device: RolloutCandidate) -> bool:
    if expression is None:
        return False
    facts = {"device.id": device.device_id, "device.class": device.device_class, "device.tags": list(device.tags)}
    try:
        return evaluate(expression, _language.activation(facts))
    except EvaluationError as e:
        raise RolloutError(f"{expression.text!r} has no answer for {device.device_id}: {e}") from e
