"""How the value of a rule changes when a list of which only a part is known gets more entries.

A list fact may be incomplete: the device read a part of it. `!services.exists(s, s == "telnetd")` that is false for the
part stays false for the whole list: the rule fails. `targets.size() > 0` that is false for the part may be true for the
whole: the rule is unknown. `effect_of_growth` tells both apart from the serialized checked expression
(`cel.expr.CheckedExpr` inside an `Any`; field numbers of cel-spec's `checked.proto` and `syntax.proto`).
"""

from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Final

from controller.domain.policy.cel import CelExpression, protobuf_fields
from controller.domain.policy.facts import FALLING_FACTS

_KEPT: Final = 4096  # entries: expressions times the sets of partial facts that occur


class Growth(Enum):
    """What more entries do to a value: a boolean that rises can only become true, a list or number only larger."""

    NONE = 0
    RISES = 1
    FALLS = -1
    EITHER = 2


@lru_cache(maxsize=_KEPT)
def effect_of_growth(expression: CelExpression, partial: frozenset[str]) -> Growth:
    """Returns what more entries in the lists behind the `partial` facts do to the value of the expression."""
    for checked in protobuf_fields(expression.compiled.serialize(), 2):  # Any.value
        for expr in protobuf_fields(checked, 4):  # CheckedExpr.expr
            return _effect(expr, {name: Growth.FALLS if name in FALLING_FACTS else Growth.RISES for name in partial})
    return Growth.EITHER


_Scope = Mapping[str, Growth]


def _one(message: bytes, number: int) -> bytes:
    return next(protobuf_fields(message, number), b"")


def _flip(growth: Growth) -> Growth:
    return {Growth.RISES: Growth.FALLS, Growth.FALLS: Growth.RISES}.get(growth, growth)


def _join(*effects: Growth) -> Growth:
    found = set(effects) - {Growth.NONE}
    if not found:
        return Growth.NONE
    return found.pop() if len(found) == 1 else Growth.EITHER


def _only_none(*effects: Growth) -> Growth:
    return Growth.NONE if all(effect is Growth.NONE for effect in effects) else Growth.EITHER


def _effect(expr: bytes, scope: _Scope) -> Growth:
    for ident in protobuf_fields(expr, 4):
        return scope.get(_one(ident, 1).decode(), Growth.NONE)
    for select in protobuf_fields(expr, 5):
        return _only_none(_effect(_one(select, 1), scope))
    for call in protobuf_fields(expr, 6):
        return _call(call, scope)
    for elements in protobuf_fields(expr, 7):
        return _only_none(*(_effect(element, scope) for element in protobuf_fields(elements, 1)))
    for comprehension in protobuf_fields(expr, 9):
        return _comprehension(comprehension, scope)
    is_map = next(protobuf_fields(expr, 8), None) is not None
    return Growth.EITHER if is_map else Growth.NONE  # else a constant


def _call(call: bytes, scope: _Scope) -> Growth:
    target = list(protobuf_fields(call, 1))
    arguments = [*target, *protobuf_fields(call, 3)]
    effects = [_effect(argument, scope) for argument in arguments]
    function = _one(call, 2).decode()
    if function in {"_==_", "_!=_"}:
        return _comparison_with_zero(function, arguments, effects)
    combine = _CALLS.get((function, len(arguments)))
    return combine(effects) if combine else _only_none(*effects)


def _conditional(effects: list[Growth]) -> Growth:
    condition, *branches = effects
    return _join(*branches) if condition is Growth.NONE else Growth.EITHER


def _membership(effects: list[Growth]) -> Growth:
    element, container = effects
    return container if element is Growth.NONE else Growth.EITHER


_CALLS: Final[Mapping[tuple[str, int], Callable[[list[Growth]], Growth]]] = {
    ("!_", 1): lambda effects: _flip(effects[0]),
    ("_&&_", 2): lambda effects: _join(*effects),
    ("_||_", 2): lambda effects: _join(*effects),
    ("_+_", 2): lambda effects: _join(*effects),
    ("_?_:_", 3): _conditional,
    ("@in", 2): _membership,
    ("size", 1): lambda effects: effects[0],
    ("_>_", 2): lambda effects: _join(effects[0], _flip(effects[1])),
    ("_>=_", 2): lambda effects: _join(effects[0], _flip(effects[1])),
    ("_<_", 2): lambda effects: _join(_flip(effects[0]), effects[1]),
    ("_<=_", 2): lambda effects: _join(_flip(effects[0]), effects[1]),
    ("@not_strictly_false", 1): lambda effects: effects[0],
}


def _comparison_with_zero(function: str, arguments: list[bytes], effects: list[Growth]) -> Growth:
    """`size(list) == 0` can only become false: a number of entries is never below 0."""
    if all(effect is Growth.NONE for effect in effects):
        return Growth.NONE
    for (size, effect), (other, _) in (
        (pair, rest) for pair, rest in _both_ways(list(zip(arguments, effects, strict=True)))
    ):
        is_size = any(_one(call, 2) == b"size" for call in protobuf_fields(size, 6))
        if is_size and effect is Growth.RISES and _is_zero(other):
            return Growth.FALLS if function == "_==_" else Growth.RISES
    return Growth.EITHER


def _both_ways(
    pair: list[tuple[bytes, Growth]],
) -> tuple[tuple[tuple[bytes, Growth], tuple[bytes, Growth]], ...]:
    first, second = pair
    return (first, second), (second, first)


def _is_zero(expr: bytes) -> bool:
    # A constant's value is a oneof: int64_value is field 3, present with the value 0.
    return any(constant == b"\x18\x00" for constant in protobuf_fields(expr, 3))


def _comprehension(message: bytes, scope: _Scope) -> Growth:
    """The macros: `exists` (accumulator || p), `all` (accumulator && p), `filter` and `map` (accumulator + [...])."""
    entries = _effect(_one(message, 2), scope)
    accumulator = _one(message, 3).decode()
    inner = {**scope, _one(message, 1).decode(): Growth.NONE, accumulator: Growth.NONE}
    initial = _effect(_one(message, 4), inner)
    step = _one(message, 6)
    body = _effect(step, inner)
    result = _one(message, 7)
    if _only_none(entries, initial, body, _effect(result, inner)) is Growth.NONE:
        return Growth.NONE
    if not _is_ident(result, accumulator) or initial is not Growth.NONE:
        return Growth.EITHER
    for call in protobuf_fields(step, 6):
        arguments = list(protobuf_fields(call, 3))
        function = _one(call, 2)
        if function in {b"_||_", b"_&&_"} and _is_ident(arguments[0], accumulator):
            return _join(entries if function == b"_||_" else _flip(entries), body)
        if function == b"_+_" and _is_ident(arguments[0], accumulator) and body is Growth.NONE:
            return entries
        if function == b"_?_:_" and _is_ident(arguments[2], accumulator) and body is Growth.NONE:
            return entries if _appends(arguments[1], accumulator) else Growth.EITHER
    return Growth.EITHER


def _appends(expr: bytes, accumulator: str) -> bool:
    for call in protobuf_fields(expr, 6):
        arguments = list(protobuf_fields(call, 3))
        is_list = len(arguments) == 2 and next(protobuf_fields(arguments[1], 7), None) is not None
        return _one(call, 2) == b"_+_" and is_list and _is_ident(arguments[0], accumulator)
    return False


def _is_ident(expr: bytes, name: str) -> bool:
    return any(_one(ident, 1).decode() == name for ident in protobuf_fields(expr, 4))
