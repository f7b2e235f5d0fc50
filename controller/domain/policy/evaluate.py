"""Evaluates all policies for one device: every rule gets a result, and no rule passes for lack of facts."""

from sys import getsizeof
from typing import Any, Final, Generic, TypeVar

from controller.domain.policy.cel import CelEnvironment, CelExpression, EvaluationError, evaluate
from controller.domain.policy.facts import DeviceFacts, gather_facts
from controller.domain.policy.findings import Finding, RuleResult
from controller.domain.policy.model import DevicePredicate, PolicyRule, PolicySet
from controller.domain.policy.monotonicity import Growth, effect_of_growth
from schemas.posture import ReportSections

MAX_CACHED_BYTES: Final = 32 * 1024 * 1024  # of each cache: a device chooses how large its facts are
_MAX_DETAIL: Final = 200  # characters
_Result = TypeVar("_Result")


def evaluate_policies(policies: PolicySet, language: CelEnvironment, facts: DeviceFacts) -> tuple[Finding, ...]:
    """Returns one finding for each rule of each policy that applies to the device."""
    activation = language.activation(facts.known)
    findings: list[Finding] = []
    for policy in policies.policies:
        if policy.applies_to is not None:
            scope = _evaluate_expression(policy.applies_to, facts, activation, scope=True)
            if scope.result is not RuleResult.PASS:
                outside = RuleResult.NOTAPPLICABLE if scope.result is RuleResult.FAIL else scope.result
                findings.extend(Finding(rule.key, outside, scope.detail or "applies_to") for rule in policy.rules)
                continue
        findings.extend(_evaluate_rule(rule, facts, activation) for rule in policy.rules)
    return tuple(findings)


class _ResultCache(Generic[_Result]):
    """Results by facts, forgotten together when keys and results take `MAX_CACHED_BYTES`."""

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], _Result] = {}
        self.bytes = 0

    def get(self, key: tuple[Any, ...]) -> _Result | None:
        return self._results.get(key)

    def put(self, key: tuple[Any, ...], result: _Result) -> None:
        size = _size_of(key) + _size_of(result)
        if self.bytes + size > MAX_CACHED_BYTES:
            self._results.clear()
            self.bytes = 0
        self._results[key] = result
        self.bytes += size


def _size_of(value: object) -> int:
    """About how many bytes a value holds; shared parts count each time."""
    size = getsizeof(value)
    if isinstance(value, tuple | list | frozenset):
        return size + sum(map(_size_of, value))
    if isinstance(value, Finding):
        return size + getsizeof(value.detail)
    return size


class PolicyEvaluator:
    """`evaluate_policies` with a cache: devices of a fleet are alike, and equal facts have equal findings.

    The cache key is made of the facts that rules use, never of a digest that a device claims.
    """

    def __init__(self, policies: PolicySet, language: CelEnvironment) -> None:
        self.policies = policies
        self._language = language
        self._uses = tuple(sorted(policies.uses))
        self._wanted = frozenset(self._uses)
        self._findings: _ResultCache[tuple[Finding, ...]] = _ResultCache()
        self._predicates: _ResultCache[tuple[str, ...]] = _ResultCache()

    @property
    def cached_bytes(self) -> int:
        """About how much both caches hold."""
        return self._findings.bytes + self._predicates.bytes

    def facts(self, sections: ReportSections, device_id: str, device_class: str, tags: tuple[str, ...]) -> DeviceFacts:
        """Returns the facts of a full report that a rule or predicate uses."""
        return gather_facts(sections, device_id, device_class, tags, self._wanted, self.policies.knowledge)

    def evaluate_report(
        self, sections: ReportSections, device_id: str, device_class: str, tags: tuple[str, ...]
    ) -> tuple[Finding, ...]:
        """Returns the findings of a full report."""
        return self(self.facts(sections, device_id, device_class, tags))

    def __call__(self, facts: DeviceFacts) -> tuple[Finding, ...]:
        key = self._key(facts)
        findings = self._findings.get(key)
        if findings is None:
            findings = evaluate_policies(self.policies, self._language, facts)
            self._findings.put(key, findings)
        return findings

    def evaluate_predicates(self, facts: DeviceFacts) -> tuple[str, ...]:
        """Returns the names of the device predicates that hold for these facts."""
        if not self.policies.predicates:
            return ()
        key = self._key(facts)
        found = self._predicates.get(key)
        if found is None:
            activation = self._language.activation(facts.known)
            found = tuple(each.name for each in self.policies.predicates if _holds(each, facts, activation))
            self._predicates.put(key, found)
        return found

    def _key(self, facts: DeviceFacts) -> tuple[Any, ...]:
        known, missing = facts.known, facts.missing
        values = [known.get(name) if name in known else missing.get(name) for name in self._uses]
        if facts.partial:
            values.append(tuple(sorted(facts.partial.items())))
        return tuple([tuple(value) if type(value) is list else value for value in values])


def _holds(predicate: DevicePredicate, facts: DeviceFacts, activation: Any) -> bool:
    answer = _evaluate_expression(predicate.expression, facts, activation, scope=True)
    return answer.result is RuleResult.PASS or (predicate.when_unknown and answer.result is not RuleResult.FAIL)


def _evaluate_rule(rule: PolicyRule, facts: DeviceFacts, activation: Any) -> Finding:
    if rule.applies_if is not None:
        scope = _evaluate_expression(rule.applies_if, facts, activation, scope=True)
        if scope.result is not RuleResult.PASS:
            outside = RuleResult.NOTAPPLICABLE if scope.result is RuleResult.FAIL else scope.result
            return Finding(rule.key, outside, scope.detail or "applies_if")
    answer = _evaluate_expression(rule.check, facts, activation)
    return Finding(rule.key, answer.result, answer.detail)


def _evaluate_expression(
    expression: CelExpression, facts: DeviceFacts, activation: Any, *, scope: bool = False
) -> Finding:
    """Returns the result as a finding without a rule: pass for true, fail for false.

    With missing or partial facts it is never a pass, and a fail only if no value of them could make the expression
    true: `a && b` fails when `a` is false and `b` unknown. `scope`: the expression selects devices; then its result is
    unknown either way, because "does not apply" would satisfy the rule.
    """
    lacking = _lacking(expression, facts)
    if lacking is not None and (scope or lacking.result is RuleResult.NOTAPPLICABLE):
        return lacking
    try:
        answer = evaluate(expression, activation)
    except EvaluationError as e:
        return lacking or Finding("", RuleResult.ERROR, str(e)[:_MAX_DETAIL])
    if lacking is None:
        return Finding("", RuleResult.PASS if answer else RuleResult.FAIL)
    return Finding("", RuleResult.FAIL) if not answer and _stays_false(expression, facts) else lacking


def _lacking(expression: CelExpression, facts: DeviceFacts) -> Finding | None:
    """Returns a finding with the reason for the first missing or partial fact of the expression, None without one."""
    if facts.missing:
        reasons = [facts.missing[name] for name in sorted(expression.uses) if name in facts.missing]
        if reasons:
            # Unknown takes precedence over not applicable, which would satisfy the rule.
            reason = min(reasons, key=lambda each: each.result is RuleResult.NOTAPPLICABLE)
            return Finding("", reason.result, reason.reason)
    partial = next((facts.partial[name] for name in sorted(expression.uses) if name in facts.partial), None)
    return None if partial is None else Finding("", RuleResult.UNKNOWN, partial)


def _stays_false(expression: CelExpression, facts: DeviceFacts) -> bool:
    partial = frozenset(facts.partial) & expression.uses
    return not partial or effect_of_growth(expression, partial) in {Growth.NONE, Growth.FALLS}
