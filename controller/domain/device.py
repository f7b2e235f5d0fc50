"""The state of a device: an immutable value that only `step` replaces.

Times are Unix seconds, durations seconds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from controller.domain.evidence import Evidence
from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from schemas.commands import CommandState, ParamValue

NO_SEQUENCE: Final = -1
REVOKED: Final = "identity/revoked"  # a cause, like the keys of rules: a certificate of the device was revoked
# Fields that an accepted report sets by itself; all others follow from decisions.
REPORT_FIELDS: Final = (
    "report_seq", "digest", "reported_at", "accepted", "boot_id", "agent", "judged_by", "satisfied",
)  # fmt: skip
_NO_RULES: Final[Mapping[str, "RuleState"]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RuleState:
    """The state of an unsatisfied rule.

    `since`: of the first of `streak` failing reports in a row. `remedies`: commands that were issued for it. `until`:
    when the rule about device events ends (`streak` counts events); 0 for a rule about reports.
    """

    result: RuleResult
    since: float
    streak: int
    detail: str = ""
    remedies: int = 0
    last_remedy: float = 0.0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class PartialProof:
    """What was read back at the broker while running nodes could not be read.

    `cut_at`: Unix seconds, 0.0 if nothing was cut. `nodes`: name and reason of each unread node.
    """

    level: ContainmentLevel
    cut_at: float
    nodes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ContainmentCase:
    """A containment in force.

    `causes`: rule keys, none for an operator's case. `hold_until`: no report releases the device before (infinite: only
    an operator does). `held_below`: the `hold_until` of the restriction that an isolation was decided on top of.
    `isolate_until`: when an isolation steps down. `probation_until`: a device that stepped down is not isolated again
    before, so that it can be repaired. `proven_level`: what was read back at the broker. `evidence`: how the reporter
    was authenticated. `partial`: a proof that lacks running nodes. `nonce`: what a report has to answer to release the
    device. `passing`: reports in a row since `passing_since` that satisfy every cause. `charged`: the case counts
    against the blast radius. `approved_by`: the operator who approved a pending containment. `earliest_evidence_at`:
    when the earliest message arrived that the case is based on (0.0: as `evidence_at`); only a client that was
    connected then can have sent it.
    """

    case_id: str
    level: ContainmentLevel
    causes: tuple[str, ...]
    by: str
    reason: str
    opened_at: float
    evidence_at: float
    hold_until: float = 0.0
    isolate_until: float | None = None
    probation_until: float = 0.0
    proven_level: ContainmentLevel = ContainmentLevel.NONE
    proven_at: float | None = None
    trouble: str = ""
    evidence: Evidence = Evidence.UNASKED
    nonce: str = ""
    passing: int = 0
    passing_since: float = 0.0
    charged: bool = False
    approved_by: str = ""
    earliest_evidence_at: float = 0.0
    held_below: float = 0.0
    partial: PartialProof | None = None
    left_open: tuple[str, ...] = ()

    @property
    def restriction_hold(self) -> float:
        """The `hold_until` of the restriction in force, or of the one below an isolation; Unix seconds."""
        return self.hold_until if self.level is ContainmentLevel.RESTRICTED else self.held_below

    @property
    def unread(self) -> tuple[tuple[str, str], ...]:
        """The running nodes that could not be read, with the reason, if that alone keeps it from being proven."""
        partial = self.partial
        return () if partial is None or self.is_proven or partial.level is not self.level else partial.nodes

    @property
    def is_proven(self) -> bool:
        """Whether the level in force was read back from the broker."""
        return self.proven_level is self.level

    @property
    def is_held_until_released(self) -> bool:
        """Whether only an operator ends it."""
        return math.isinf(self.hold_until) and not self.is_held_by_revocation

    @property
    def is_held_by_revocation(self) -> bool:
        """Whether only a new certificate ends it."""
        return REVOKED in self.causes

    @property
    def evidence_since(self) -> float:
        """When the earliest evidence arrived, Unix seconds."""
        return self.earliest_evidence_at or self.evidence_at


class HoldReason(StrEnum):
    """Why a containment that policies require is not carried out."""

    BLAST_RADIUS = "blast-radius"
    PROTECTED = "protected"
    DISMISSED = "dismissed"  # by an operator, until the causes pass


@dataclass(frozen=True, slots=True)
class PendingContainment:
    """A containment that policies require and a guard holds back; `by`: the operator who dismissed it."""

    why: HoldReason
    level: ContainmentLevel
    causes: tuple[str, ...]
    since: float
    evidence_at: float
    by: str = ""


@dataclass(frozen=True, slots=True)
class OpenCommand:
    """A command without a final result.

    `rule`: the rule that it repairs, empty for an operator's. `sent_at`: when it was last sent. `held`: it waits for an
    operator's signature. `signatures`: key ids and signatures (base64) besides the controller's.
    """

    command_id: str
    action: str
    params: tuple[tuple[str, ParamValue], ...]
    counter: int
    state: CommandState
    issued_at: float
    expires_at: float
    by: str
    rule: str = ""
    dry_run: bool = False
    sent_at: float = 0.0
    held: bool = False
    signatures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """Everything that a decision about a device needs. `rules` has only unsatisfied rules.

    `report_seq`, `digest`: of the last accepted full report; `judged_by`: the policies that evaluated it. `accepted`
    counts accepted reports, so that the later of two states is known. `satisfied`: how many rules the last report
    satisfies. `refused_until`: no policy contains the device before, because its reporter was not authenticated.
    `signs`: a signed report was accepted, so unsigned reports are rejected. `gaps`: times that signed reports were
    missing. `answers`: the agent has answered a nonce, so only an answered nonce releases it. `predicates`: names of
    the device predicates (waivers, protection) that hold for the last report. `offences`: when policies contained the
    device, oldest first. `previous_boot_id`: the boot before `boot_id`. `clone_suspected_at`: when a clone was last
    suspected. `enrolled_with`: id of the enrolment token that admitted it last.
    """

    device_id: str
    first_seen: float
    last_seen: float
    device_class: str = ""
    tags: tuple[str, ...] = ()
    online: bool | None = None
    stale: bool = False
    boot_id: str = ""
    agent: str = ""
    report_seq: int = NO_SEQUENCE
    digest: str = ""
    reported_at: float = 0.0
    accepted: int = 0
    judged_by: str = ""
    satisfied: int = 0
    rules: Mapping[str, RuleState] = field(default_factory=lambda: _NO_RULES)
    case: ContainmentCase | None = None
    counter: int = 0
    commands: tuple[OpenCommand, ...] = ()
    refused_until: float = 0.0
    signs: bool = False
    gaps: int = 0
    answers: bool = False
    pending: PendingContainment | None = None
    predicates: tuple[str, ...] = ()
    offences: tuple[float, ...] = ()
    previous_boot_id: str = ""
    clone_suspected_at: float = 0.0
    enrolled_with: str = ""

    @property
    def level(self) -> ContainmentLevel:
        """The decided containment level."""
        return ContainmentLevel.NONE if self.case is None else self.case.level
