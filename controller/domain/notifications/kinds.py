"""Which audit lines notify, how urgently, and to which thread they belong."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.notifications.model import AlertSeverity, ThreadStatus
from controller.domain.notifications.texts import clean

_INFO, _WARNING, _CRITICAL = AlertSeverity.INFO, AlertSeverity.WARNING, AlertSeverity.CRITICAL
_OPEN, _RESOLVED, _EVENT = ThreadStatus.OPEN, ThreadStatus.RESOLVED, ThreadStatus.EVENT

STORE_TROUBLE: Final = "store_trouble"  # no audit kind: while the store cannot write there are no audit lines

# What is not proven passes quiet hours: these stay critical.
NOT_PROVEN: Final = frozenset({AuditKind.CONTAINMENT_FAILED, AuditKind.CONTAINMENT_PARTLY_PROVEN})

_KINDS: Final[Mapping[AuditKind, tuple[AlertSeverity, ThreadStatus]]] = {
    AuditKind.CONTAINMENT_DECIDED: (_WARNING, _OPEN),
    AuditKind.CONTAINMENT_ESCALATED: (_WARNING, _OPEN),
    AuditKind.CONTAINMENT_STEPPED_DOWN: (_INFO, _OPEN),
    AuditKind.CONTAINMENT_PROVEN: (_INFO, _OPEN),
    AuditKind.CONTAINMENT_PARTLY_PROVEN: (_CRITICAL, _OPEN),
    AuditKind.CONTAINMENT_FAILED: (_CRITICAL, _OPEN),
    AuditKind.CONTAINMENT_REFUSED: (_WARNING, _OPEN),
    AuditKind.CONTAINMENT_DEFERRED: (_WARNING, _OPEN),
    AuditKind.CONTAINMENT_APPROVED: (_INFO, _RESOLVED),
    AuditKind.CONTAINMENT_DISMISSED: (_INFO, _RESOLVED),
    AuditKind.CONTAINMENT_PENDING_CLEARED: (_INFO, _RESOLVED),
    AuditKind.CONTAINMENT_RELEASE_DECIDED: (_INFO, _OPEN),
    AuditKind.CONTAINMENT_RELEASE_PROVEN: (_INFO, _RESOLVED),
    AuditKind.CONTAINMENT_RELEASE_BLOCKED: (_WARNING, _OPEN),
    AuditKind.GUARD_BLAST_RADIUS_REACHED: (_CRITICAL, _EVENT),
    AuditKind.APPROVAL_REQUESTED: (_WARNING, _OPEN),
    AuditKind.APPROVAL_GRANTED: (_INFO, _RESOLVED),
    AuditKind.APPROVAL_REJECTED: (_INFO, _RESOLVED),
    AuditKind.APPROVAL_EXPIRED: (_INFO, _RESOLVED),
    AuditKind.APPROVAL_WITHDRAWN: (_INFO, _RESOLVED),
    AuditKind.APPROVAL_FAILED: (_WARNING, _RESOLVED),
    AuditKind.SCOPES_ENDED: (_INFO, _EVENT),
    AuditKind.FACTOR_REGISTERED: (_INFO, _EVENT),
    AuditKind.FACTOR_REMOVED: (_WARNING, _EVENT),
    AuditKind.FACTOR_CODES_MADE: (_INFO, _EVENT),
    AuditKind.SSO_TRIED: (_WARNING, _EVENT),
    AuditKind.ROLLOUT_APPROVAL_REQUESTED: (_WARNING, _OPEN),
    AuditKind.ROLLOUT_APPROVED: (_INFO, _OPEN),
    AuditKind.ROLLOUT_STOPPED: (_CRITICAL, _OPEN),
    AuditKind.ROLLOUT_ABORTED: (_WARNING, _OPEN),
    AuditKind.ROLLOUT_ENDED: (_INFO, _RESOLVED),
    AuditKind.ROLLOUT_COMPLETED: (_INFO, _RESOLVED),
    AuditKind.CRL_RECOVERED: (_INFO, _RESOLVED),
    AuditKind.API_TOKEN_GUESSING_DETECTED: (_CRITICAL, _EVENT),
    AuditKind.ENROLMENT_TOKEN_GUESSING_DETECTED: (_CRITICAL, _EVENT),
    AuditKind.LINK_LOST: (_CRITICAL, _OPEN),
    AuditKind.LINK_RESTORED: (_INFO, _RESOLVED),
    AuditKind.BROKER_UNREAD: (_CRITICAL, _OPEN),
    AuditKind.BROKER_READ_AGAIN: (_INFO, _RESOLVED),
    AuditKind.STORE_RECOVERED: (_CRITICAL, _EVENT),
    AuditKind.CONTROLLER_FENCED: (_CRITICAL, _EVENT),
    AuditKind.NOTIFICATION_ACKNOWLEDGED: (_INFO, _EVENT),
    AuditKind.NOTIFICATION_SINK_FAILED: (_CRITICAL, _OPEN),
    AuditKind.NOTIFICATION_SINK_RECOVERED: (_INFO, _RESOLVED),
}
# These have an end, as an entry of another kind says, and alert only by `alert`.
_OPENED: Final = frozenset({AuditKind.CRL_FAILED})
# About a containment that waits, not about the case in force.
_HELD: Final = frozenset(
    {
        AuditKind.CONTAINMENT_DEFERRED,
        AuditKind.CONTAINMENT_APPROVED,
        AuditKind.CONTAINMENT_DISMISSED,
        AuditKind.CONTAINMENT_PENDING_CLEARED,
    }
)
# What a person does with an account: that of somebody else is never the same.
_OF_PERSONS: Final = frozenset(
    {
        AuditKind.FACTOR_REGISTERED,
        AuditKind.FACTOR_REMOVED,
        AuditKind.FACTOR_CODES_MADE,
        AuditKind.SSO_TRIED,
    }
)
# Detail that names the subject of a line without a case; the first one that is there.
_SUBJECTS: Final = ("rollout", "request", "sink", "place", "peer", "node")
# Detail that makes a state another one: a second line with the same is no news.
_STATES: Final = ("level", "what", "why", "causes", "ring", "state")
MAX_STATE: Final = 500  # characters
MAX_THREAD: Final = 200  # characters
_WORDS: Final = 16  # hex digits


@dataclass(frozen=True, slots=True)
class Classified:
    """What a line is to those who are told. `state`: two lines of one thread with the same state say the same."""

    severity: AlertSeverity
    status: ThreadStatus
    thread: str
    state: str


def may_notify(entry: AuditEntry) -> bool:
    """Whether anybody could be told of a line."""
    return entry.alert or entry.kind in _KINDS


def notifying_kinds() -> tuple[str, ...]:
    """The kinds that notify without being alerts."""
    return tuple(kind.value for kind in _KINDS)


def classify(entry: AuditEntry) -> Classified | None:
    """Returns what a line is to those who are told; `None` if nobody is."""
    if entry.kind in _KINDS:
        severity, status = _KINDS[entry.kind]
    elif entry.alert:
        severity, status = _WARNING, _OPEN if entry.kind in _OPENED else _EVENT
    else:
        return None
    return Classified(severity, status, clean(thread_of(entry), MAX_THREAD), clean(_state_of(entry), MAX_STATE))


def thread_of(entry: AuditEntry) -> str:
    """Returns the key of the thread: the case where there is one, else what the line is about."""
    if entry.kind in _HELD:
        return f"held:{entry.device_id}"
    if entry.case_id:
        return f"case:{entry.case_id}"
    subject, _, _ = entry.kind.value.partition(".")
    if entry.kind is AuditKind.SCOPES_ENDED:
        subject = "approval"  # the request that gave them
    detail = entry.detail or {}
    for name in _SUBJECTS:
        value = detail.get(name)
        if isinstance(value, str) and value:
            return f"{subject}:{value}"
    if entry.device_id:
        return f"device:{entry.device_id}:{entry.kind.value}"
    return f"{subject}:"


def _state_of(entry: AuditEntry) -> str:
    detail = entry.detail or {}
    parts = [entry.kind.value, *(str(detail[name]) for name in _STATES if detail.get(name))]
    unread = detail.get("unread")
    if isinstance(unread, list):
        parts += sorted(str(one.get("node", "")) for one in unread if isinstance(one, dict))
    is_stated = entry.kind in _OPENED or (entry.kind in _KINDS and entry.kind not in _OF_PERSONS)
    if not is_stated and not entry.device_id and not entry.case_id:
        parts.append(_words_of(entry))
    return " ".join(parts)


def _words_of(entry: AuditEntry) -> str:
    """A digest of who did what to whom: what somebody did to one account says nothing about another one.

    Without numbers: counts and times differ where the news is the same.
    """
    detail = entry.detail or {}
    words = [f"{name}={value!r}" for name, value in sorted(detail.items()) if not isinstance(value, int | float)]
    return hashlib.sha256("\n".join((entry.actor, *words)).encode("utf-8", "surrogatepass")).hexdigest()[:_WORDS]
