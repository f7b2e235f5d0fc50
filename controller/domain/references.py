"""Reads from a checked CEL expression which declared names it refers to, exactly as the type checker resolved them.

Finding names in the text instead would miss those behind unusual string literals, and a rule that refers to a fact
without Cordon knowing it could pass for want of that fact.
"""

from collections.abc import Iterator
from typing import Final

# google.protobuf.Any.value; cel.expr.CheckedExpr.reference_map, its entries' values, and Reference.name
_ANY_VALUE: Final = 2
_REFERENCE_MAP: Final = 2
_ENTRY_VALUE: Final = 2
_REFERENCE_NAME: Final = 1
_TYPE: Final = b"type.googleapis.com/cel.expr.CheckedExpr"

_VARINT: Final = 0
_BYTES: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}  # wire type: bytes


def references(checked: bytes) -> frozenset[str]:
    """Names of variables and functions in a serialized `CheckedExpr` (protobuf, inside an `Any`).

    Raises:
        ValueError: the bytes are something else.
    """
    if _TYPE not in checked:
        raise ValueError("not a checked CEL expression")
    names: set[str] = set()
    for expression in _fields(checked, _ANY_VALUE):
        for entry in _fields(expression, _REFERENCE_MAP):
            for reference in _fields(entry, _ENTRY_VALUE):
                names.update(name.decode() for name in _fields(reference, _REFERENCE_NAME))
    return frozenset(names)


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _BYTES:
            size, at = _varint(message, at)
            if number == wanted:
                yield message[at : at + size]
            at += size
        elif wire in _FIXED_SIZES:
            at += _FIXED_SIZES[wire]
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("cut off in the middle of a number")
