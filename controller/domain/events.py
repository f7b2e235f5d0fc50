"""The events that `step` handles, named in the past tense. Times are Unix seconds.

`event_id` is unique and the prefix of every id that is derived from the event.
"""

from dataclasses import dataclass

from controller.domain.effects import NO_OPTIONS, ContainmentOptions
from controller.domain.evidence import Evidence
from controller.domain.policy.findings import Finding
from controller.domain.policy.model import ContainmentLevel
from schemas.commands import CommandState, ParamValue


@dataclass(frozen=True, slots=True)
class PostureReported:
    """A full report arrived and was evaluated.

    `findings`: `None` if the report is identical to the last one. `judged_by`: version of the policies. `evidence`: how
    the message itself authenticates its sender; `unasked` leaves that to the broker. `answers`: the nonce that the
    report answers, empty if the agent had none, `None` if it knows no nonces. `predicates`: names of the device
    predicates that hold; `None` with the findings. `receipt`: in a signed report the digest of the last report that the
    device got a receipt for. `missing`: sequence numbers of signed messages that were skipped. `may_release`: false
    while the device has used up its share of the audit, so that flapping does not fill it.
    """

    event_id: str
    seq: int
    digest: str
    boot_id: str
    agent: str
    received_at: float
    findings: tuple[Finding, ...] | None
    judged_by: str
    evidence: Evidence = Evidence.UNASKED
    answers: str | None = None
    predicates: tuple[str, ...] | None = None
    receipt: str | None = None
    missing: int = 0
    may_release: bool = True


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """A device reported that nothing has changed since the report with `digest`.

    `findings`: given if the stored report was evaluated again because the policies have changed.
    """

    event_id: str
    seq: int
    digest: str
    received_at: float
    findings: tuple[Finding, ...] | None = None
    judged_by: str = ""
    evidence: Evidence = Evidence.UNASKED
    predicates: tuple[str, ...] | None = None
    missing: int = 0
    may_release: bool = True


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The device connected or disconnected, by its own message or its last will."""

    event_id: str
    online: bool
    boot_id: str


@dataclass(frozen=True, slots=True)
class DeviceEventReported:
    """Something happened on the device between reports; `findings` are those of `evaluate_event`."""

    event_id: str
    kind: str
    severity: str
    count: int
    summary: str
    detail: tuple[tuple[str, str], ...] = ()
    received_at: float = 0.0
    findings: tuple[Finding, ...] = ()
    evidence: Evidence = Evidence.UNASKED


@dataclass(frozen=True, slots=True)
class CommandCountersigned:
    """An operator signed a held command with a key of their own.

    `signature` (base64) is over the same bytes as the controller's.
    """

    event_id: str
    command_id: str
    keyid: str
    signature: str
    by: str


@dataclass(frozen=True, slots=True)
class SignatureRequirementLifted:
    """An operator allowed unsigned reports, until the next signed one."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandReported:
    """The device sent a result of a command."""

    event_id: str
    command_id: str
    state: CommandState
    reason: str
    detail: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DeviceWentStale:
    """The device was silent for longer than `after` seconds."""

    event_id: str
    after: float


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """A deadline of the device has passed: a grace period, an isolation, a waiver, a command."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ContainmentOrdered:
    """An operator requested a containment for `hold` seconds (`None`: until released)."""

    event_id: str
    level: ContainmentLevel
    by: str
    reason: str
    hold: float | None
    options: ContainmentOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class ContainmentApproved:
    """An operator approved a containment that a guard had held back."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ContainmentDismissed:
    """An operator dismissed a containment that a guard had held back."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseOrdered:
    """An operator requested a release: an isolation steps down, a restriction ends."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandRequested:
    """A command was requested, to be begun within `ttl` seconds.

    `by`: an operator (`operator:NAME`) or a rollout (`rollout:ID`). `held`: it is sent after an operator has signed it.
    """

    event_id: str
    action: str
    params: tuple[tuple[str, ParamValue], ...]
    by: str
    ttl: float
    dry_run: bool
    held: bool = False


@dataclass(frozen=True, slots=True)
class CommandWithdrawn:
    """The requester withdrew a command: it is not sent again."""

    event_id: str
    command_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceEnrolled:
    """The device got a certificate with an enrolment token; `device_class`: empty if the token gives none."""

    event_id: str
    token_id: str
    device_class: str
    by: str


@dataclass(frozen=True, slots=True)
class DeviceLabelled:
    """An operator set the class and tags of the device."""

    event_id: str
    device_class: str
    tags: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class ContainmentProven:
    """The broker was read back and holds the level of the case; `left_open`: what the level does not stop.

    `cut_at`: when the traffic was cut. `evidence`: how the reporter was authenticated; `unasked` if that was not
    needed.
    """

    event_id: str
    case_id: str
    level: ContainmentLevel
    cut_at: float
    steps: tuple[dict[str, object], ...]
    evidence: Evidence = Evidence.UNASKED
    left_open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainmentFailed:
    """An attempt to contain or release failed; it is retried."""

    event_id: str
    case_id: str
    what: str
    trouble: str
    steps: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class ContainmentPartlyProven:
    """Every node that could be read holds the level; `nodes` run and could not be read, each with a reason."""

    event_id: str
    case_id: str
    level: ContainmentLevel
    cut_at: float
    nodes: tuple[tuple[str, str], ...]
    steps: tuple[dict[str, object], ...]
    evidence: Evidence = Evidence.UNASKED
    left_open: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainmentRefused:
    """A containment was not carried out because the broker cannot authenticate the reporter.

    `by_a_later`: the present session is authenticated, but may have connected after the report.
    """

    event_id: str
    case_id: str
    reason: str
    evidence: Evidence = Evidence.CLAIMED
    by_a_later: bool = False


@dataclass(frozen=True, slots=True)
class ReporterAuthenticated:
    """The broker authenticated the client that was connected at `heard_at`.

    It is recorded before the device is contained, because no later session can be asked.
    """

    event_id: str
    case_id: str
    evidence: Evidence
    heard_at: float


@dataclass(frozen=True, slots=True)
class ReleaseProven:
    """The broker was read back and holds nothing of the case any more."""

    event_id: str
    case_id: str
    steps: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class DriftDetected:
    """The broker did not hold the decided state; it is being repaired."""

    event_id: str
    case_id: str
    what: str


@dataclass(frozen=True, slots=True)
class CommandDelivered:
    """The broker accepted a command for the device."""

    event_id: str
    command_id: str


@dataclass(frozen=True, slots=True)
class CertificateRevoked:
    """A certificate of the device was revoked; `serials` in hex.

    `counts`: the isolation counts against the blast radius, because no operator ordered it.
    """

    event_id: str
    serials: tuple[str, ...]
    by: str
    reason: str
    counts: bool = False


@dataclass(frozen=True, slots=True)
class CertificateRenewed:
    """A device with a revoked certificate has one that was issued later, at `issued_at`."""

    event_id: str
    issued_at: float


@dataclass(frozen=True, slots=True)
class CloneSuspected:
    """Two clients may use the identity of the device. `grade`: how the broker authenticates its sessions."""

    event_id: str
    how: str
    peers: tuple[str, ...]
    times: int
    grade: str


DomainEvent = (
    PostureReported
    | HeartbeatReceived
    | StatusChanged
    | DeviceEventReported
    | CommandReported
    | DeviceWentStale
    | DeadlineReached
    | ContainmentOrdered
    | ContainmentApproved
    | ContainmentDismissed
    | ReleaseOrdered
    | CommandRequested
    | CommandWithdrawn
    | DeviceEnrolled
    | DeviceLabelled
    | ContainmentProven
    | ContainmentFailed
    | ContainmentPartlyProven
    | ContainmentRefused
    | ReporterAuthenticated
    | ReleaseProven
    | DriftDetected
    | CommandDelivered
    | CertificateRevoked
    | CertificateRenewed
    | CloneSuspected
    | SignatureRequirementLifted
    | CommandCountersigned
)
