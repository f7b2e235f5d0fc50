"""What a step asks for, named in the imperative: data that the outbox carries out after the commit.

Effects are durable with the state that caused them and idempotent by `effect_id`. Receipts are not durable, because a
device without a receipt sends its report again.
"""

from dataclasses import dataclass

from controller.domain.audit_kinds import AuditKind
from controller.domain.evidence import Evidence
from schemas.commands import ParamValue
from schemas.events import ReceiptVerdict, RejectReason
from schemas.topics import UpChannel


@dataclass(frozen=True, slots=True)
class ContainmentOptions:
    """Options of an operator's containment.

    `kick`: a restriction also destroys the session, and with it queued commands. `clear_retained`: an isolation also
    deletes the device's retained messages.
    """

    kick: bool = False
    clear_retained: bool = False


NO_OPTIONS = ContainmentOptions()


@dataclass(frozen=True, slots=True)
class RestrictClient:
    """Leave the device its own Cordon topics only.

    `by_policy`: the broker has to authenticate the reporter first, unless `evidence` does already. `kick`: see
    `ContainmentOptions`.
    """

    effect_id: str
    device_id: str
    case_id: str
    by_policy: bool
    evidence: Evidence = Evidence.UNASKED
    kick: bool = False


@dataclass(frozen=True, slots=True)
class IsolateClient:
    """Restrict, ban and disconnect the device until `until` (Unix seconds, `None`: no end).

    `by_policy`, `evidence`: as in `RestrictClient`; `clear_retained`: see `ContainmentOptions`.
    """

    effect_id: str
    device_id: str
    case_id: str
    by_policy: bool
    until: float | None
    reason: str
    evidence: Evidence = Evidence.UNASKED
    clear_retained: bool = False


@dataclass(frozen=True, slots=True)
class EndIsolation:
    """Remove the ban; the restriction stays."""

    effect_id: str
    device_id: str
    case_id: str


@dataclass(frozen=True, slots=True)
class ReleaseClient:
    """Restore what the device had before the case."""

    effect_id: str
    device_id: str
    case_id: str


@dataclass(frozen=True, slots=True)
class SendCommand:
    """Sign and publish a command; repeated with the same id and counter when it may have been lost.

    `signatures`: key ids and signatures (base64) besides the controller's.
    """

    effect_id: str
    device_id: str
    command_id: str
    action: str
    params: tuple[tuple[str, ParamValue], ...]
    dry_run: bool
    issued_at: float
    expires_at: float
    counter: int
    signatures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Answer a report; `about`: the channel of the message that is answered."""

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
    """An audit entry: what was observed, decided or done, and by whom."""

    kind: AuditKind
    device_id: str
    actor: str
    case_id: str = ""
    detail: dict[str, object] | None = None
    alert: bool = False


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """The state of a command as operators see it."""

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
