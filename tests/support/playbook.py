"""Steps a device through events and compares the effects: `given(device).when(event).then(effect)`."""

from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import count
from typing import Any

from controller.domain import events as ev
from controller.domain.audit_kinds import AuditKind, DecisionKind
from controller.domain.device import ContainmentCase, Device
from controller.domain.effects import AuditEntry, Effect, IsolateClient, RestrictClient, SendReceipt
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.facts import TYPES
from controller.domain.policy.findings import Finding, RuleResult, Severity
from controller.domain.policy.model import Policy, PolicyRule, PolicySet, RuleResponse
from controller.domain.step import step
from controller.domain.transition import StepOutcome

START = 1_000_000.0
DIGEST = "sha256:" + "a" * 64
_IDS = ("effect_id", "case_id", "command_id")


@cache
def language() -> CelEnvironment:
    """The expression language with all facts declared; compiled once for all tests."""
    return CelEnvironment(TYPES)


def rule(name: str, response: RuleResponse | None = None, check: str = "firewall_active", **changes: Any) -> PolicyRule:
    """A rule `p/name`; its check matters only to tests that evaluate it."""
    made = PolicyRule(
        f"p/{name}", f"Title of {name}", language().compile(check), Severity.HIGH, response=response or RuleResponse()
    )
    return replace(made, **changes)


def policies(*rules: PolicyRule) -> PolicySet:
    """One policy `p` with these rules."""
    return PolicySet((Policy("p", 1, "Tests", rules),), "v1")


def device(**changes: Any) -> Device:
    """A known device that has not reported."""
    return Device(device_id="d1", first_seen=START, last_seen=START, **changes)


def reported(
    *failing: str,
    passing: tuple[str, ...] = (),
    others: tuple[Finding, ...] = (),
    at: float = START,
    seq: int = 1,
    digest: str = DIGEST,
    boot_id: str = "boot",
    event_id: str = "r",
) -> ev.PostureReported:
    """A full report in which the named rules (without `p/`) fail or pass."""
    findings = (
        *(Finding(f"p/{name}", RuleResult.FAIL, "it does") for name in failing),
        *(Finding(f"p/{name}", RuleResult.PASS) for name in passing),
        *others,
    )
    return ev.PostureReported(event_id, seq, digest, boot_id, "1.0", at, findings, "v1")


def beat(at: float = START, digest: str = DIGEST, event_id: str = "h", **changes: Any) -> ev.HeartbeatReceived:
    """A heartbeat that repeats the last report."""
    return ev.HeartbeatReceived(event_id, 2, digest, at, **changes)


def restrict(*, by_policy: bool = True) -> RestrictClient:
    """A restriction with any ids."""
    return RestrictClient("", "d1", "", by_policy)


def isolate(until: float | None, reason: str, *, by_policy: bool = True) -> IsolateClient:
    """An isolation with any ids."""
    return IsolateClient("", "d1", "", by_policy, until, reason)


@dataclass(frozen=True)
class Play:
    """The state of the device, and the effects of the last events."""

    state: Device
    policies: PolicySet
    now: float
    outcome: StepOutcome | None = None
    effects: tuple[Effect, ...] = ()

    def when(self, *events: ev.DomainEvent, at: float | None = None) -> "Play":
        """Steps `events` in order at `at` (Unix seconds; unchanged if absent)."""
        now = self.now if at is None else at
        state, outcome = self.state, None
        effects: list[Effect] = []
        for event in events:
            outcome = step(state, event, now, self.policies)
            state = outcome.device
            effects.extend(outcome.effects)
        return Play(state, self.policies, now, outcome, tuple(effects))

    @property
    def audit(self) -> tuple[AuditEntry, ...]:
        """The audit entries of the last event."""
        assert self.outcome is not None
        return self.outcome.audit

    @property
    def receipts(self) -> tuple[SendReceipt, ...]:
        """The receipts of the last event."""
        assert self.outcome is not None
        return self.outcome.receipts

    @property
    def case(self) -> ContainmentCase:
        """The case in force."""
        assert self.state.case is not None
        return self.state.case

    def then(self, *expected: Effect) -> "Play":
        """Asserts exactly these effects, in this order; an empty id in an expected effect matches any."""
        compared = tuple(_without_ids(*pair) for pair in zip(self.effects, expected, strict=False))
        assert compared + self.effects[len(expected) :] == expected
        return self

    def then_nothing(self) -> "Play":
        """Asserts that there are no effects."""
        return self.then()

    def recorded(self, *kinds: AuditKind) -> "Play":
        """Asserts the kinds of the audit entries of the last event."""
        assert tuple(entry.kind for entry in self.audit) == kinds
        return self

    def decided(self, decision: DecisionKind | None) -> "Play":
        """Asserts the decision that answers an operator, and that an audit entry of the last event has it."""
        assert self.outcome is not None
        assert self.outcome.decision is decision
        assert decision is None or decision.value in {entry.kind.value for entry in self.outcome.audit}
        return self


def given(state: Device, rules: PolicySet | None = None, *, now: float = START) -> Play:
    """Begins with a device under `rules` (one harmless rule if absent)."""
    return Play(state, rules or policies(rule("harmless")), now)


def _without_ids(effect: Effect, expected: Effect) -> Effect:
    if type(effect) is not type(expected):
        return effect
    blank: dict[str, Any] = {
        field.name: "" for field in fields(effect) if field.name in _IDS and getattr(expected, field.name) == ""
    }
    return replace(effect, **blank)


def numbered(prefix: str = "e") -> Any:
    """Fresh event ids."""
    numbers = count()
    return lambda: f"{prefix}{next(numbers)}"
