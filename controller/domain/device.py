"""What Cordon holds of one device: an immutable value that only `step` replaces.

Times are Unix seconds, durations seconds.
"""

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
# What an accepted report by itself says of its device; everything else follows from decisions.
REPORT_FIELDS: Final = (
    "report_seq", "digest", "reported_at", "accepted", "boot_id", "agent", "judged_by", "satisfied",
)  # fmt: skip
_NO_RULES: Final[Mapping[str, "RuleState"]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule that is not satisfied: since when, in how many reports in a row, and what was tried.

    `until`: a rule about events (how many is in `streak`), which ends by time; 0 for what reports are asked.
    """

    result: RuleResult
    since: float
    streak: int
    detail: str = ""
    remedies: int = 0
    last_remedy: float = 0.0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class ContainmentCase:
    """A containment in force and why.

    `causes` are rule keys (none for an operator's). `hold_until`: before it, no report releases (infinite: only an
    operator does). `isolate_until`: when an isolation steps down. `probation_until`: until then a device that has
    stepped down is not isolated again, so that it can be repaired. `proven_level`: what was read back at the broker.
    `evidence`: how the identity was proved of whose signals led to it. `passing` reports in a row, since
    `passing_since`, satisfied every cause. `charged`: it counts against the blast radius. `approved_by`: the
    operator who let it through when a guard had held it back. `said_at`: when the earliest message arrived that it
    rests on (0.0: as `evidence_at`); only who was connected then can have sent it.
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
    nonce: str = ""  # what a report has to answer to free the device; see `challenge`
    passing: int = 0
    passing_since: float = 0.0
    charged: bool = False
    approved_by: str = ""
    earliest_evidence_at: float = 0.0

    @property
    def evidence_since(self) -> float:
        """From when on whoever said what it rests on was there, Unix seconds."""
        return self.earliest_evidence_at or self.evidence_at


class HoldReason(StrEnum):
    """Why a containment that policies ask for is not carried out."""

    BLAST_RADIUS = "blast-radius"
    PROTECTED = "protected"
    DISMISSED = "dismissed"  # an operator said no; it stands until the causes pass


@dataclass(frozen=True, slots=True)
class PendingContainment:
    """A containment that policies ask for and a guard holds back; `by`: who dismissed it. Times are Unix seconds."""

    why: HoldReason
    level: ContainmentLevel
    causes: tuple[str, ...]
    since: float
    evidence_at: float
    by: str = ""


@dataclass(frozen=True, slots=True)
class OpenCommand:
    """A command that has not ended; `rule` is the rule it repairs, empty for an operator's."""

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
    sent_at: float = 0.0  # when it was last asked to be sent, Unix seconds
    held: bool = False  # it waits for an operator's signature
    signatures: tuple[tuple[str, str], ...] = ()  # names of further keys, and their signatures in base64


@dataclass(frozen=True, slots=True)
class Device:
    """Everything a decision about a device needs. `rules` has only those that are not satisfied.

    `report_seq` and `digest` are of the last full report accepted, `judged_by` names the policies it was judged by;
    `accepted` counts the reports that were, and so tells which of two states is the later one.
    `refused_until`: until then no policy contains it, because the broker could not vouch for who reported.
    `marks`: names of the expressions beside policies (waivers, protection) that its last judged report made true.
    `offences`: when policies contained it lately, oldest first (Unix seconds).
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
    signs: bool = False  # it signed a report, so none without a signature counts any more
    gaps: int = 0  # times that numbers of signed reports were missing
    answers: bool = False  # its agent answers a nonce, so nothing without one frees it any more
    pending: PendingContainment | None = None
    predicates: tuple[str, ...] = ()
    offences: tuple[float, ...] = ()
    previous_boot_id: str = ""  # the boot before `boot_id`, in which nothing can be reported any more
    clone_suspected_at: float = 0.0  # when it was last suspected to be two, Unix seconds

    @property
    def level(self) -> ContainmentLevel:
        """How far it is cut off, as decided."""
        return ContainmentLevel.NONE if self.case is None else self.case.level
