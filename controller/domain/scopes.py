"""Scopes of API tokens: a stolen token gives no more access than its work needs."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """One kind of work; every API route needs exactly one scope, and no scope includes another."""

    READ = "read"  # read everything except secrets
    CONTAIN = "contain"  # restrict, isolate, release, label
    COMMAND = "command"  # send commands to devices
    POLICY = "policy"  # policies and waivers, limits of automatic containment
    ROLLOUT = "rollout"  # start and control rollouts
    IDENTITY = "identity"  # enrolment tokens, certificates
    AUDIT = "audit"  # verify and export the record
    ADMIN = "admin"  # accounts, API tokens, keys that sign commands, the broker's settings


ALL: Final = tuple(Scope)


def ordered(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """Returns each scope once, in the order in which scopes are listed everywhere."""
    wanted = frozenset(scopes)
    return tuple(scope for scope in ALL if scope in wanted)


def scopes_exceeding(wanted: Iterable[Scope], held: Iterable[Scope]) -> tuple[Scope, ...]:
    """Returns the wanted scopes that are not held: no token may create one with more scopes than its own."""
    return ordered(frozenset(wanted) - frozenset(held))
