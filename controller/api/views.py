"""How devices, cases, commands and lines of the record look from outside."""

import math
from collections import Counter
from typing import Any, Final

from controller.api.audit_texts import sentence
from controller.api.fields import UtcTimestamp, View, at, moment
from controller.domain.audit_kinds import AuditKind
from controller.domain.device import ContainmentCase, Device, HoldReason, OpenCommand, PendingContainment
from controller.domain.effects import CommandRecord
from controller.domain.evidence import Evidence
from controller.domain.guards.waivers import Waiver, Waivers
from controller.domain.policy.findings import RuleResult, Severity
from controller.domain.policy.model import ContainmentLevel, EnforcementMode, PolicySet
from controller.ports.store import StoredAuditEntry
from schemas.commands import ParamValue

MAX_FAILING: Final = 50  # rules named in a listing
# Keys of a record's detail that hold Unix seconds.
_TIMES: Final = frozenset({"until"})


class CaseView(View):
    """A containment in force. `proven`: the broker was read back and holds it.

    `until_released`: no report ends it, only an operator does. `evidence`: how the identity behind it was proved.
    """

    case_id: str
    level: ContainmentLevel
    proven: bool
    proven_level: ContainmentLevel
    proven_at: UtcTimestamp | None
    trouble: str
    causes: tuple[str, ...]
    by: str
    reason: str
    opened_at: UtcTimestamp
    evidence_at: UtcTimestamp
    hold_until: UtcTimestamp | None
    until_released: bool
    isolate_until: UtcTimestamp | None
    evidence: Evidence
    passing: int
    approved_by: str

    @classmethod
    def of(cls, case: ContainmentCase) -> "CaseView":
        """The case as it is now."""
        return cls(
            case_id=case.case_id,
            level=case.level,
            proven=case.proven_level is case.level,
            proven_level=case.proven_level,
            proven_at=moment(case.proven_at),
            trouble=case.trouble,
            causes=case.causes,
            by=case.by,
            reason=case.reason,
            opened_at=at(case.opened_at),
            evidence_at=at(case.evidence_at),
            hold_until=moment(case.hold_until) if case.hold_until else None,
            until_released=math.isinf(case.hold_until),
            isolate_until=moment(case.isolate_until),
            evidence=case.evidence,
            passing=case.passing,
            approved_by=case.approved_by,
        )


class PendingContainmentView(View):
    """A containment that policies ask for and a guard holds back, or an operator dismissed (`by`)."""

    why: HoldReason
    level: ContainmentLevel
    causes: tuple[str, ...]
    since: UtcTimestamp
    by: str

    @classmethod
    def of(cls, pending: PendingContainment) -> "PendingContainmentView":
        """As the device's state has it."""
        return cls(why=pending.why, level=pending.level, causes=pending.causes, since=at(pending.since), by=pending.by)


class DeviceSummary(View):
    """A line of the listing. `failing` names at most 50 rules; `not_satisfied` counts all by their result."""

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

    @classmethod
    def of(cls, device: Device) -> "DeviceSummary":
        """The device as it is now."""
        return cls(**summary_fields(device))


def summary_fields(device: Device) -> dict[str, Any]:
    """The fields of `DeviceSummary`."""
    failing = [key for key, state in device.rules.items() if state.result is RuleResult.FAIL]
    return {
        "device_id": device.device_id,
        "device_class": device.device_class,
        "tags": device.tags,
        "online": device.online,
        "stale": device.stale,
        "last_seen": at(device.last_seen),
        "level": device.level,
        "case": None if device.case is None else CaseView.of(device.case),
        "pending": None if device.pending is None else PendingContainmentView.of(device.pending),
        "satisfied": device.satisfied,
        "not_satisfied": dict(Counter(state.result.value for state in device.rules.values())),
        "failing": tuple(failing[:MAX_FAILING]),
        "open_commands": len(device.commands),
    }


class AppliedWaiverView(View):
    """The waiver because of which nothing follows from a failing rule."""

    waiver_id: str
    owner: str
    reason: str
    expires_at: UtcTimestamp

    @classmethod
    def of(cls, waiver: Waiver) -> "AppliedWaiverView":
        """The part of a waiver that is shown beside a rule."""
        return cls(
            waiver_id=waiver.waiver_id,
            owner=waiver.owner,
            reason=waiver.reason,
            expires_at=at(waiver.expires_at),
        )


class FindingView(View):
    """A rule that is not satisfied. `title` is empty when the rule is not in force any more.

    Nothing follows from it in `mode` shadow, or while it is `waived`: it is failing all the same.
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
    """Every rule that is not satisfied, with what the policies and waivers in force at `now` say of it."""
    found = []
    for key, state in device.rules.items():
        rule = policies.rules.get(key)
        waiver = waivers.covering(key, device, now)
        found.append(
            FindingView(
                rule=key,
                result=state.result,
                since=at(state.since),
                streak=state.streak,
                detail=state.detail,
                title="" if rule is None else rule.title,
                severity=None if rule is None else rule.severity,
                why="" if rule is None else rule.why,
                fix="" if rule is None else rule.fix,
                remedies=state.remedies,
                mode="enforce" if rule is None else rule.mode,
                waived=None if waiver is None else AppliedWaiverView.of(waiver),
            )
        )
    return tuple(found)


class CommandView(View):
    """A command and how far it got."""

    command_id: str
    device_id: str
    action: str
    params: dict[str, ParamValue]
    state: str
    reason: str
    detail: dict[str, str]
    by: str
    rule: str
    dry_run: bool
    issued_at: UtcTimestamp
    expires_at: UtcTimestamp
    updated_at: UtcTimestamp

    @classmethod
    def of(cls, record: CommandRecord) -> "CommandView":
        """The command as it is kept."""
        return cls(
            command_id=record.command_id,
            device_id=record.device_id,
            action=record.action,
            params=dict(record.params),
            state=record.state,
            reason=record.reason,
            detail=dict(record.detail),
            by=record.by,
            rule=record.rule,
            dry_run=record.dry_run,
            issued_at=at(record.issued_at),
            expires_at=at(record.expires_at),
            updated_at=at(record.updated_at),
        )


class OpenCommandView(View):
    """A command that has not ended."""

    command_id: str
    action: str
    params: dict[str, ParamValue]
    state: str
    by: str
    rule: str
    dry_run: bool
    issued_at: UtcTimestamp
    expires_at: UtcTimestamp

    @classmethod
    def of(cls, command: OpenCommand) -> "OpenCommandView":
        """The command as the device's state has it."""
        return cls(
            command_id=command.command_id,
            action=command.action,
            params=dict(command.params),
            state=command.state.value,
            by=command.by,
            rule=command.rule,
            dry_run=command.dry_run,
            issued_at=at(command.issued_at),
            expires_at=at(command.expires_at),
        )


class AuditEntryView(View):
    """A line of the record: what was seen, decided or done, by whom; `seq` only grows."""

    seq: int
    at: UtcTimestamp
    kind: AuditKind
    text: str
    device_id: str
    actor: str
    case_id: str
    alert: bool
    detail: dict[str, Any]

    @classmethod
    def of(cls, line: StoredAuditEntry) -> "AuditEntryView":
        """The line as it is kept, with its times as times."""
        entry = line.entry
        detail = {
            key: _time(value) if key in _TIMES and isinstance(value, int | float) else value
            for key, value in (entry.detail or {}).items()
        }
        return cls(
            seq=line.seq,
            at=at(line.at),
            kind=entry.kind,
            text=sentence(entry.kind),
            device_id=entry.device_id,
            actor=entry.actor,
            case_id=entry.case_id,
            alert=entry.alert,
            detail=detail,
        )


def _time(seconds: float) -> str:
    return at(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
