"""What can happen to a device, in the past tense. `event_id` is unique and becomes part of every id derived from it."""

from dataclasses import dataclass

from controller.domain.effects import NO_OPTIONS, ContainmentOptions
from controller.domain.evidence import Evidence
from controller.domain.policy.findings import Finding
from controller.domain.policy.model import ContainmentLevel
from schemas.commands import CommandState, ParamValue


@dataclass(frozen=True, slots=True)
class PostureReported:
    """A full report arrived and was judged. `received_at`: when it came off the socket, Unix seconds.

    `findings` is `None` where the device reported, byte for byte, what it had reported before.
    `evidence`: what the message itself proves of who sent it; `unasked` leaves it to the broker to vouch for.
    `answers`: the nonce it was made for, empty when the agent had none, `None` when it knows of no nonces.
    `marks`: which marks of the policies its facts make true; `None` with the findings.
    `receipt`: of a signed one, the digest of the last report of which the device had a receipt. `missing`: numbers of
    signed messages before it that never came.
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


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """The device says that nothing changed since the report with `digest`.

    `findings` is given when the stored report was judged again because the policies are other ones now.
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


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The device, or the broker by its last will, said whether it is there."""

    event_id: str
    online: bool
    boot_id: str


@dataclass(frozen=True, slots=True)
class DeviceEventReported:
    """Something happened on the device between reports, and was judged: `findings` as `told.judge_event` gives them."""

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
    """An operator signed a command with a key of their own; `signature` in base64 is over the same bytes."""

    event_id: str
    command_id: str
    keyid: str
    signature: str
    by: str


@dataclass(frozen=True, slots=True)
class SignatureRequirementLifted:
    """An operator lets the device report without its signature again, until it signs the next time."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandReported:
    """The device says how far a command got."""

    event_id: str
    command_id: str
    state: CommandState
    reason: str
    detail: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DeviceWentStale:
    """Nothing was heard of the device for longer than it may be silent."""

    event_id: str
    after: float


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """A deadline of the device has come: grace, isolation, command expiry."""

    event_id: str


@dataclass(frozen=True, slots=True)
class ContainmentOrdered:
    """An operator restricts or isolates by hand, for `hold` seconds (`None`: until released)."""

    event_id: str
    level: ContainmentLevel
    by: str
    reason: str
    hold: float | None
    options: ContainmentOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class ContainmentApproved:
    """An operator lets a containment through that a guard held back."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ContainmentDismissed:
    """An operator says no to a containment that a guard held back."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseOrdered:
    """An operator ends a containment: an isolation steps down, a restriction ends."""

    event_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandRequested:
    """An operator sends a command, to be begun within `ttl` seconds."""

    event_id: str
    action: str
    params: tuple[tuple[str, ParamValue], ...]
    by: str
    ttl: float
    dry_run: bool
    held: bool = False  # until an operator has signed it too


@dataclass(frozen=True, slots=True)
class CommandWithdrawn:
    """Whoever asked for a command wants it no more: it is not sent again."""

    event_id: str
    command_id: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceLabelled:
    """An operator gave the device a class and tags."""

    event_id: str
    device_class: str
    tags: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class ContainmentProven:
    """The broker was read back and holds what the case says. `cut_at`: when the traffic was cut, Unix seconds.

    `evidence`: how the identity was proved that was contained by policy; `unasked` where nobody had to prove any.
    """

    event_id: str
    case_id: str
    level: ContainmentLevel
    cut_at: float
    steps: tuple[dict[str, object], ...]
    evidence: Evidence = Evidence.UNASKED


@dataclass(frozen=True, slots=True)
class ContainmentFailed:
    """An attempt to contain or release did not hold; it goes on."""

    event_id: str
    case_id: str
    what: str
    trouble: str
    steps: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class ContainmentRefused:
    """The broker cannot vouch for who reported: nothing merely claimed contains anyone.

    `by_a_later`: whoever is there now proved who it is, but may not be the one that reported; it can do so itself.
    """

    event_id: str
    case_id: str
    reason: str
    evidence: Evidence = Evidence.CLAIMED
    by_a_later: bool = False


@dataclass(frozen=True, slots=True)
class ReporterAuthenticated:
    """The broker vouches for who spoke at `heard_at`, and it is about to be cut off: no later session can be asked."""

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
    """The broker did not hold what it should; it is being put right."""

    event_id: str
    case_id: str
    what: str


@dataclass(frozen=True, slots=True)
class CommandDelivered:
    """The broker took a command for the device."""

    event_id: str
    command_id: str


@dataclass(frozen=True, slots=True)
class CertificateRevoked:
    """A certificate of the device is not to be trusted any more; `serials` in hex."""

    event_id: str
    serials: tuple[str, ...]
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class CertificateRenewed:
    """A device that is out by revocation has a certificate that was issued afterwards, at `issued_at`."""

    event_id: str
    issued_at: float


@dataclass(frozen=True, slots=True)
class CloneSuspected:
    """Two may be passing for this device. `grade`: how its identity is proved at the broker."""

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
    | DeviceLabelled
    | ContainmentProven
    | ContainmentFailed
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
