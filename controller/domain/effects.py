"""What follows from a decision, in the imperative: data that only the outbox carries out.

Every effect is durable with the state that asked for it and idempotent by its `effect_id`; a receipt is the exception:
it is not durable, because a device that misses one asks again.
"""

from dataclasses import dataclass

from controller.domain.audit_kinds import AuditKind
from controller.domain.evidence import Evidence
from schemas.commands import ParamValue
from schemas.events import ReceiptVerdict, RejectReason
from schemas.topics import UpChannel


@dataclass(frozen=True, slots=True)
class ContainmentOptions:
    """`kick`: a restriction also destroys the session, and with it queued commands. `clear_retained`: an isolation also
    deletes what the device left retained at the broker.
    """

    kick: bool = False
    clear_retained: bool = False


NO_OPTIONS = ContainmentOptions()


@dataclass(frozen=True, slots=True)
class RestrictClient:
    """Leave the device its own branch and nothing else. `by_policy`: the reporter's identity must be vouched for.

    `evidence`: what the signal behind it proved already; where that is not enough, the broker has to vouch.
    """

    effect_id: str
    device_id: str
    case_id: str
    by_policy: bool
    evidence: Evidence = Evidence.UNASKED
    kick: bool = False  # destroy the session too, and with it what is queued for the device


@dataclass(frozen=True, slots=True)
class IsolateClient:
    """Ban and disconnect on top; `until` in Unix seconds, `None` until an operator ends it."""

    effect_id: str
    device_id: str
    case_id: str
    by_policy: bool
    until: float | None
    reason: str
    evidence: Evidence = Evidence.UNASKED
    clear_retained: bool = False  # also delete what the device left retained at the broker


@dataclass(frozen=True, slots=True)
class EndIsolation:
    """Lift the ban; the restriction below it stays."""

    effect_id: str
    device_id: str
    case_id: str


@dataclass(frozen=True, slots=True)
class ReleaseClient:
    """Give the device back what it had before the case."""

    effect_id: str
    device_id: str
    case_id: str


@dataclass(frozen=True, slots=True)
class SendCommand:
    """Sign and publish a command; sent again with the same id and counter whenever it may have been lost."""

    effect_id: str
    device_id: str
    command_id: str
    action: str
    params: tuple[tuple[str, ParamValue], ...]
    dry_run: bool
    issued_at: float
    expires_at: float
    counter: int
    signatures: tuple[tuple[str, str], ...] = ()  # names of further keys, and their signatures in base64


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Tell the device what became of its report."""

    device_id: str
    seq: int | None
    verdict: ReceiptVerdict
    digest: str | None = None
    reason: RejectReason | None = None
    detail: str | None = None
    about: UpChannel = UpChannel.POSTURE
    nonce: str = ""


ContainmentEffect = RestrictClient | IsolateClient | EndIsolation | ReleaseClient
Effect = ContainmentEffect | SendCommand


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A line of the record: what was seen, decided or done, by whom."""

    kind: AuditKind
    device_id: str
    actor: str
    case_id: str = ""
    detail: dict[str, object] | None = None
    alert: bool = False


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command as operators see it, updated as it goes."""

    command_id: str
    device_id: str
    action: str
    params: tuple[tuple[str, ParamValue], ...]
    state: str
    reason: str
    detail: tuple[tuple[str, str], ...]
    by: str
    rule: str
    dry_run: bool
    issued_at: float
    expires_at: float
    updated_at: float
