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
class EventTerms:
    """How events of one kind are counted, in seconds.

    `within`: counting starts with the first event and starts anew when this is over. `hold`: how long what follows
    stands after the last event; a device cannot show by a report that an event did not happen.
    """

    within: float = 600.0
    hold: float = 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One check; `key` is `policy/rule-id` and unique over all policies.

    With `event` it is asked of what a device tells between reports, and its `check` is true of what must not happen.
    """

    key: str
    title: str
    check: Expression
    severity: Severity
    applies_if: Expression | None = None
    response: Response = Response()
    why: str = ""
    fix: str = ""
    references: tuple[str, ...] = ()
    event: EventTerms | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of rules for the devices that `applies_to` selects (all, if it is absent).

    `rules` are asked of reports, `events` of single events.
    """

    name: str
    version: int
    title: str
    rules: tuple[Rule, ...]
    applies_to: Expression | None = None
    source: str = ""
    events: tuple[Rule, ...] = ()


class EmptyPolicyError(ValueError):
    """No policy, or a policy without rules: judging by nothing would pass everything."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that devices are judged by; `version` names this exact set, `rules` has those for events too.

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
            if not policy.rules and not policy.events:
                raise EmptyPolicyError(f"policy {policy.name!r} has no rules: it would pass every device")
        if not any(policy.rules for policy in self.policies):
            raise EmptyPolicyError("there are rules for events only: they would pass every report")
        every = {rule.key: rule for policy in self.policies for rule in (*policy.rules, *policy.events)}
        object.__setattr__(self, "rules", every)
