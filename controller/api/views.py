"""Views of devices, cases, commands and audit entries."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AliasPath, BeforeValidator, Field

from controller.api.audit_texts import sentence
from controller.api.fields import OptionalTimestamp, Params, UnreadNodes, UtcTimestamp, View, rfc3339
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device, HoldReason
from controller.domain.evidence import Evidence
from controller.domain.guards.waivers import Waivers
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel, EnforcementMode, PolicySet

MAX_FAILING: Final = 50  # rules named in a listing
_TIMES: Final = frozenset({"until"})  # keys of an audit entry's detail that hold Unix seconds

AuditText = Annotated[str, BeforeValidator(sentence)]  # from a kind


class CaseView(View):
    """A containment in force. `proven`: read back from every running node; `unread`: those that alone are lacking.

    `until_released`: only an operator ends it; `until_certificate`: only a new certificate does. `evidence`: how the
    broker authenticated the reporting device.
    """

    case_id: str
    level: ContainmentLevel
    proven: Annotated[bool, Field(validation_alias="is_proven")]
    proven_level: ContainmentLevel
    proven_at: OptionalTimestamp
    trouble: str
    unread: UnreadNodes
    left_open: tuple[str, ...]
    causes: tuple[str, ...]
    by: str
    reason: str
    opened_at: UtcTimestamp
    evidence_at: UtcTimestamp
    hold_until: OptionalTimestamp
    until_released: Annotated[bool, Field(validation_alias="is_held_until_released")]
    until_certificate: Annotated[bool, Field(validation_alias="is_held_by_revocation")]
    isolate_until: OptionalTimestamp
    evidence: Evidence
    passing: int
    approved_by: str


class PendingContainmentView(View):
    """A containment that a policy requires and that a guard holds back, or that an operator (`by`) dismissed."""

    why: HoldReason
    level: ContainmentLevel
    causes: tuple[str, ...]
    since: UtcTimestamp
    by: str


class DeviceSummary(View):
    """A device in a listing. `failing` names at most 50 rules; `not_satisfied` counts all rules by result."""

    device_id: str
    device_class: str
    tags: tuple[str, ...]
    online: bool | None
    stale: bool
    last_seen: UtcTimestamp
    level: ContainmentLevel
    case: CaseView | None
    pending: PendingContainmentView | None
    satisfied: int
    not_satisfied: dict[str, int]
    failing: tuple[str, ...]
    open_commands: int


def device_summary(device: Device) -> DeviceSummary:
    return DeviceSummary(**summary_fields(device))


def summary_fields(device: Device) -> dict[str, Any]:
    """Returns the fields of `DeviceSummary`."""
    failing = [key for key, state in device.rules.items() if state.result is RuleResult.FAIL]
    return {
        "device_id": device.device_id,
        "device_class": device.device_class,
        "tags": device.tags,
        "online": device.online,
        "stale": device.stale,
        "last_seen": device.last_seen,
        "level": device.level,
        "case": device.case,
        "pending": device.pending,
        "satisfied": device.satisfied,
        "not_satisfied": dict(Counter(state.result.value for state in device.rules.values())),
        "failing": tuple(failing[:MAX_FAILING]),
        "open_commands": len(device.commands),
    }


class AppliedWaiverView(View):
    """The waiver that suspends the response to a failing rule."""

    waiver_id: str
    owner: str
    reason: str
    expires_at: UtcTimestamp


class FindingView(View):
    """A rule that is not satisfied; `title` is empty when the rule is no longer in force.

    It has no response in `mode` shadow, or while `waived`.
    """

    rule: str
    result: RuleResult
    since: UtcTimestamp
    streak: int
    detail: str
    title: str
    severity: Severity | None
    why: str
    fix: str
    remedies: int
    mode: EnforcementMode
    waived: AppliedWaiverView | None


def findings(device: Device, policies: PolicySet, waivers: Waivers, now: float) -> tuple[FindingView, ...]:
    """Returns every rule that is not satisfied, with its policy and the waiver in force at `now` (Unix seconds)."""
    views = []
    for key, state in device.rules.items():
        rule = policies.rules.get(key)
        waiver = waivers.covering(key, device, now)
        views.append(
            FindingView(
                rule=key,
                result=state.result,
                since=state.since,
                streak=state.streak,
                detail=state.detail,
                title="" if rule is None else rule.title,
                severity=None if rule is None else rule.severity,
                why="" if rule is None else rule.why,
                fix="" if rule is None else rule.fix,
                remedies=state.remedies,
                mode="enforce" if rule is None else rule.mode,
                waived=waiver,
            )
        )
    return tuple(views)


class CommandView(View):
    """A command and its progress."""

    command_id: str
    device_id: str
    action: str
    params: Params
    state: str
    reason: str
    detail: Annotated[dict[str, str], BeforeValidator(dict)]
    by: str
    rule: str
    dry_run: bool
    issued_at: UtcTimestamp
    expires_at: UtcTimestamp
    updated_at: UtcTimestamp


class OpenCommandView(View):
    """A command that has not ended."""

    command_id: str
    action: str
    params: Params
    state: str
    by: str
    rule: str
    dry_run: bool
    issued_at: UtcTimestamp
    expires_at: UtcTimestamp


def _detail_with_times(detail: dict[str, Any] | None) -> dict[str, Any]:
    return {
        key: rfc3339(datetime.fromtimestamp(value, UTC)) if key in _TIMES and isinstance(value, int | float) else value
        for key, value in (detail or {}).items()
    }


def _entry(name: str) -> Any:
    return Field(validation_alias=AliasPath("entry", name))


class AuditEntryView(View):
    """An audit entry: an observation, decision or action, and its actor. `id`: `WRITER-SEQ`, unique in the log."""

    id: Annotated[str, BeforeValidator(str)]
    at: UtcTimestamp
    kind: Annotated[AuditKind, _entry("kind")]
    text: Annotated[AuditText, _entry("kind")]
    device_id: Annotated[str, _entry("device_id")]
    actor: Annotated[str, _entry("actor")]
    case_id: Annotated[str, _entry("case_id")]
    alert: Annotated[bool, _entry("alert")]
    detail: Annotated[dict[str, Any], BeforeValidator(_detail_with_times), _entry("detail")]
