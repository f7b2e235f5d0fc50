"""Policies as values: what is checked, how much it matters, and what follows when it fails."""

from dataclasses import dataclass, field
from enum import StrEnum

from controller.domain.findings import Severity
from controller.domain.rules import Expression
from schemas.commands import ParamValue


class Level(StrEnum):
    """How far a device is cut off.

    `restricted`: it reaches its own Cordon branch and nothing else. `isolated`: restricted, banned and disconnected.
    """

    NONE = "none"
    RESTRICTED = "restricted"
    ISOLATED = "isolated"

    @property
    def rank(self) -> int:
        """0 for none; a higher one includes the lower."""
        return _RANKS[self]


_RANKS = {Level.NONE: 0, Level.RESTRICTED: 1, Level.ISOLATED: 2}


@dataclass(frozen=True, slots=True)
class Remedy:
    """The command that repairs a failing rule."""

    action: str
    params: tuple[tuple[str, ParamValue], ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """What follows when a rule fails.

    It is due after `consecutive` failing reports and `grace` seconds since the first of them, both.
    `isolate_for` is how long an isolation lasts before it steps down to restricted, in seconds.
    """

    contain: Level = Level.NONE
    remedy: Remedy | None = None
    consecutive: int = 1
    grace: float = 0.0
    isolate_for: float = 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One check; `key` is `policy/rule-id` and unique over all policies."""

    key: str
    title: str
    check: Expression
    severity: Severity
    applies_if: Expression | None = None
    response: Response = Response()
    why: str = ""
    fix: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of rules for the devices that `applies_to` selects (all, if it is absent)."""

    name: str
    version: int
    title: str
    rules: tuple[Rule, ...]
    applies_to: Expression | None = None
    source: str = ""


class EmptyPolicyError(ValueError):
    """No policy, or a policy without rules: judging by nothing would pass everything."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that devices are judged by; `version` names this exact set.

    Raises:
        EmptyPolicyError: nothing to judge by.
    """

    policies: tuple[Policy, ...]
    version: str
    rules: dict[str, Rule] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.policies:
            raise EmptyPolicyError("no policy is loaded: an empty policy would pass every device")
        for policy in self.policies:
            if not policy.rules:
                raise EmptyPolicyError(f"policy {policy.name!r} has no rules: it would pass every device")
        object.__setattr__(self, "rules", {rule.key: rule for policy in self.policies for rule in policy.rules})
