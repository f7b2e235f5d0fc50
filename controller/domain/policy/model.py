"""Policies as values: what is checked, how much it matters, and what follows when it fails."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from controller.domain.policy.cel import CelExpression
from controller.domain.policy.findings import Severity
from schemas.commands import ParamValue

EnforcementMode = Literal["enforce", "shadow"]
_MARKED: Final = "+"  # between the version of the policies and that of the marks
_MARK_DIGITS: Final = 6  # hex digits


class ContainmentLevel(StrEnum):
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


_RANKS = {ContainmentLevel.NONE: 0, ContainmentLevel.RESTRICTED: 1, ContainmentLevel.ISOLATED: 2}


@dataclass(frozen=True, slots=True)
class Remedy:
    """The command that repairs a failing rule."""

    action: str
    params: tuple[tuple[str, ParamValue], ...] = ()


@dataclass(frozen=True, slots=True)
class RepeatOffenderTerms:
    """Repeat offenders stay longer: isolation and cool-down grow by `factor` for each case within `within` seconds.

    Neither grows beyond `most` seconds. A case that is older than `within` is forgotten.
    """

    within: float = 86_400.0
    factor: float = 2.0
    most: float = 86_400.0

    def extend(self, seconds: float, offences: tuple[float, ...], now: float) -> float:
        """`seconds` as long as they are after these earlier cases (Unix seconds)."""
        if seconds >= self.most:
            return seconds
        count = sum(1 for at in offences if at > now - self.within)
        return float(min(self.most, seconds * self.factor**count))


@dataclass(frozen=True, slots=True)
class RuleResponse:
    """What follows when a rule fails.

    It is due after `consecutive` failing reports and `grace` seconds since the first of them, both.
    `isolate_for` is how long an isolation lasts before it steps down to restricted, in seconds. What it contained is
    released after `passing` reports that pass in a row and `cool_down` seconds since the first of them, both.
    `rollout` is the update (NAME/VERSION) that is rolled out to the devices where it fails; empty: none.
    """

    contain: ContainmentLevel = ContainmentLevel.NONE
    remedy: Remedy | None = None
    consecutive: int = 1
    grace: float = 0.0
    isolate_for: float = 3600.0
    passing: int = 1
    cool_down: float = 0.0
    repeat: RepeatOffenderTerms | None = None
    rollout: str = ""


@dataclass(frozen=True, slots=True)
class EventTerms:
    """How events of one kind are counted, in seconds.

    `within`: counting starts with the first event and starts anew when this is over. `hold`: how long what follows
    stands after the last event; a device cannot show by a report that an event did not happen.
    """

    within: float = 600.0
    hold: float = 3600.0


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One check; `key` is `policy/rule-id` and unique over all policies.

    With `event` it is asked of what a device tells between reports, and its `check` is true of what must not happen.
    """

    key: str
    title: str
    check: CelExpression
    severity: Severity
    applies_if: CelExpression | None = None
    response: RuleResponse = RuleResponse()
    why: str = ""
    fix: str = ""
    references: tuple[str, ...] = ()
    event: EventTerms | None = None
    shadow: bool = False  # judged and recorded, never acted on

    @property
    def mode(self) -> EnforcementMode:
        """The same in the words of a policy file."""
        return "shadow" if self.shadow else "enforce"


@dataclass(frozen=True, slots=True)
class DevicePredicate:
    """A question about a device's facts beside the policies: who is protected, for whom a waiver is.

    `when_unknown`: the answer where a fact is missing or the expression fails.
    """

    name: str
    expression: CelExpression
    when_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of rules for the devices that `applies_to` selects (all, if it is absent).

    `rules` are asked of reports, `events` of single events.
    """

    name: str
    version: int
    title: str
    rules: tuple[PolicyRule, ...]
    applies_to: CelExpression | None = None
    source: str = ""
    events: tuple[PolicyRule, ...] = ()


class EmptyPolicyError(ValueError):
    """No policy, or a policy without rules: judging by nothing would pass everything."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Everything that devices are judged by; `version` names this exact set, `rules` has those for events too.
    `marks` are asked of the same facts, and are part of the version: with other ones devices are judged again.

    Raises:
        EmptyPolicyError: nothing to judge by.
    """

    policies: tuple[Policy, ...]
    version: str
    predicates: tuple[DevicePredicate, ...] = ()
    rules: dict[str, PolicyRule] = field(init=False, compare=False)

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

    @property
    def policy_version(self) -> str:
        """The version of the policies alone, without marks."""
        return self.version.partition(_MARKED)[0]

    def with_predicates(self, marks: tuple[DevicePredicate, ...]) -> "PolicySet":
        """The same policies with these marks."""
        if marks == self.predicates:
            return self
        version = self.policy_version
        if marks:
            asked = "\n".join(f"{one.name} {one.expression.text}" for one in marks)
            version += _MARKED + hashlib.sha256(asked.encode()).hexdigest()[:_MARK_DIGITS]
        return PolicySet(self.policies, version, marks)
