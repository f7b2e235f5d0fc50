"""Policies as values: rules, their severity, and the response when they fail."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from controller.domain.policy.cel import CelExpression
from controller.domain.policy.findings import Severity
from controller.domain.policy.knowledge import NO_KNOWLEDGE, RESTS_ON, KnowledgeEntry, KnowledgeOnDay
from schemas.commands import ParamValue

EnforcementMode = Literal["enforce", "shadow"]
_SEPARATOR: Final = "+"  # between the versions of policies, predicates and knowledge
_PREDICATE_DIGITS: Final = 6  # hex digits


class ContainmentLevel(StrEnum):
    """How far a device is cut off from the broker.

    `restricted`: it reaches its own Cordon topics and nothing else. `isolated`: restricted, banned and disconnected.
    """

    NONE = "none"
    RESTRICTED = "restricted"
    ISOLATED = "isolated"

    @property
    def rank(self) -> int:
        """0 for none; a higher level includes the lower ones."""
        return _RANKS[self]


_RANKS = {ContainmentLevel.NONE: 0, ContainmentLevel.RESTRICTED: 1, ContainmentLevel.ISOLATED: 2}


@dataclass(frozen=True, slots=True)
class Remedy:
    """The command that repairs a failing rule."""

    action: str
    params: tuple[tuple[str, ParamValue], ...] = ()


@dataclass(frozen=True, slots=True)
class RepeatOffenderTerms:
    """Extends isolation and cool-down by `factor` for each case that opened within the last `within` seconds.

    Neither is extended beyond `most` seconds.
    """

    within: float = 86_400.0
    factor: float = 2.0
    most: float = 86_400.0

    def extend(self, seconds: float, offences: tuple[float, ...], now: float) -> float:
        """Returns `seconds` extended after these earlier cases (Unix seconds)."""
        if seconds >= self.most:
            return seconds
        count = sum(1 for at in offences if at > now - self.within)
        return float(min(self.most, seconds * self.factor**count))


@dataclass(frozen=True, slots=True)
class RuleResponse:
    """What follows when a rule fails.

    The response is due after `consecutive` failing reports and `grace` seconds since the first of them, both.
    `isolate_for`: seconds until an isolation steps down to a restriction. The device is released after `passing`
    passing reports in a row and `cool_down` seconds since the first of them, both. `rollout`: the update (NAME/VERSION)
    that is rolled out to the devices where the rule fails, or empty.
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
    """How device events are counted, in seconds.

    `within`: counting starts with the first event and restarts after this time. `hold`: how long the response holds
    after the last event, because no report can show that an event did not happen.
    """

    within: float = 600.0
    hold: float = 3600.0


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One check; `key` is `policy/rule-id`, unique among all policies.

    A rule with `event` is evaluated for device events, and its `check` is true of a violation. A `shadow` rule is
    evaluated and recorded, but has no response.
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
    shadow: bool = False

    @property
    def mode(self) -> EnforcementMode:
        """`shadow` in the terms of a policy file."""
        return "shadow" if self.shadow else "enforce"


@dataclass(frozen=True, slots=True)
class DevicePredicate:
    """A named expression over a device's facts besides the policies, for protection and waivers.

    `when_unknown`: the value if a fact is missing or the evaluation fails.
    """

    name: str
    expression: CelExpression
    when_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """A named set of rules for the devices that `applies_to` selects (all devices without it).

    `rules` are evaluated for reports, `events` for device events.
    """

    name: str
    version: int
    title: str
    rules: tuple[PolicyRule, ...]
    applies_to: CelExpression | None = None
    source: str = ""
    events: tuple[PolicyRule, ...] = ()


class EmptyPolicyError(ValueError):
    """There is no policy, or a policy without rules, which would pass every device."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All policies in force; `version` identifies the set, `rules` includes the rules about events.

    `predicates`, and `knowledge` if a rule or predicate rests on it, are part of the version, so that devices are
    evaluated again when they change. `uses` are the facts that rules about reports and predicates refer to.

    Raises:
        EmptyPolicyError: there are no rules.
    """

    policies: tuple[Policy, ...]
    version: str
    predicates: tuple[DevicePredicate, ...] = ()
    knowledge: KnowledgeOnDay = NO_KNOWLEDGE
    rules: dict[str, PolicyRule] = field(init=False, compare=False)
    uses: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.policies:
            raise EmptyPolicyError("no policy is loaded: an empty policy would pass every device")
        for policy in self.policies:
            if not policy.rules and not policy.events:
                raise EmptyPolicyError(f"policy {policy.name!r} has no rules: it would pass every device")
        if not any(policy.rules for policy in self.policies):
            raise EmptyPolicyError("there are rules for events only: they would pass every report")
        rules = {rule.key: rule for policy in self.policies for rule in (*policy.rules, *policy.events)}
        object.__setattr__(self, "rules", rules)
        used = {name for policy in self.policies for rule in policy.rules for name in _uses(policy, rule)}
        used.update(name for predicate in self.predicates for name in predicate.expression.uses)
        object.__setattr__(self, "uses", frozenset(used))

    @property
    def policy_version(self) -> str:
        """The version of the policies without predicates and knowledge."""
        return self.version.partition(_SEPARATOR)[0]

    def with_predicates(self, predicates: tuple[DevicePredicate, ...]) -> "PolicySet":
        return self if predicates == self.predicates else self._with(predicates, self.knowledge)

    def with_knowledge(self, knowledge: KnowledgeOnDay) -> "PolicySet":
        return self if knowledge == self.knowledge else self._with(self.predicates, knowledge)

    def _with(self, predicates: tuple[DevicePredicate, ...], knowledge: KnowledgeOnDay) -> "PolicySet":
        version = self.policy_version
        if predicates:
            text = "\n".join(f"{predicate.name} {predicate.expression.text}" for predicate in predicates)
            version += _SEPARATOR + hashlib.sha256(text.encode()).hexdigest()[:_PREDICATE_DIGITS]
        made = PolicySet(self.policies, version, predicates, knowledge)
        if made.uses.isdisjoint(RESTS_ON) or knowledge is NO_KNOWLEDGE:
            return made
        return PolicySet(self.policies, f"{version}{_SEPARATOR}k{knowledge.version}", predicates, knowledge)

    def rules_resting_on(self, entry: KnowledgeEntry) -> tuple[str, ...]:
        """Returns the keys of the rules with a fact that such an entry may decide, in the order of the policies."""
        facts = {fact for fact, kinds in RESTS_ON.items() if entry.kind in kinds}
        return tuple(
            rule.key for policy in self.policies for rule in policy.rules if not facts.isdisjoint(_uses(policy, rule))
        )


def _uses(policy: Policy, rule: PolicyRule) -> frozenset[str]:
    expressions = (policy.applies_to, rule.applies_if, rule.check)
    return frozenset[str]().union(*(one.uses for one in expressions if one is not None))
