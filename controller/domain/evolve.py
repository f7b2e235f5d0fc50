"""Changed copies of immutable values, quicker than `dataclasses.replace`: the hot path makes one for every message."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

_T = TypeVar("_T")
_Member = tuple[str, Callable[[Any], Any], Callable[[Any, Any], None]]


@cache
def _members(kind: Any) -> tuple[_Member, ...]:
    # The slots' own descriptors: a frozen dataclass closes only the ordinary way of setting an attribute.
    descriptors = [(one.name, kind.__dict__[one.name]) for one in fields(kind)]
    return tuple((name, descriptor.__get__, descriptor.__set__) for name, descriptor in descriptors)


def evolve(value: _T, **changes: Any) -> _T:
    """A copy of a slotted dataclass with some fields changed; its `__post_init__` is not called.

    Raises:
        TypeError: there is no such field.
    """
    kind: Any = type(value)
    copy: _T = object.__new__(kind)
    left = len(changes)
    for name, get, put in _members(kind):
        if left and name in changes:
            put(copy, changes[name])
            left -= 1
        else:
            put(copy, get(value))
    if left:
        raise TypeError(f"{kind.__name__} has no field {sorted(set(changes) - {one.name for one in fields(kind)})}")
    return copy
