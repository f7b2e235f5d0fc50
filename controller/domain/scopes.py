"""What an API token may be used for: a laptop that is stolen should open no more than its owner's work needed."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """One kind of work; every route of the API needs exactly one, and none includes another."""

    READ = "read"  # look at everything but secrets
    CONTAIN = "contain"  # restrict, isolate, release, label
    COMMAND = "command"  # have a device do something
    POLICY = "policy"  # what devices are judged by, and how many may be contained at once
    ROLLOUT = "rollout"  # updates to many devices
    IDENTITY = "identity"  # enrol, renew, revoke devices
    ADMIN = "admin"  # API tokens, keys that sign commands, the broker's settings


ALL: Final = tuple(Scope)


def ordered(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """Each once, in the order they are told in everywhere."""
    wanted = frozenset(scopes)
    return tuple(scope for scope in ALL if scope in wanted)


def scopes_exceeding(wanted: Iterable[Scope], held: Iterable[Scope]) -> tuple[Scope, ...]:
    """What is wanted and not held: nobody makes a token that opens more than their own."""
    return ordered(frozenset(wanted) - frozenset(held))
