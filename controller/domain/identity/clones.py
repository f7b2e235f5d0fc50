"""Detects two machines that use the identity of one device, from reports and from session takeovers.

A device whose network broke takes over its own dead session, perhaps from another address, so a single takeover means
nothing. Two live clients take the session from each other again and again. A suspicion is an alert and contains no
device: an address proves nothing, and the client that lost its session may be the genuine one.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.events import CloneSuspected, PostureReported
from controller.domain.transition import Transition

WINDOW: Final = 600.0  # seconds of takeovers that are evaluated together
SWITCHES: Final = 3  # changes between addresses that raise a suspicion
MANY: Final = 6  # takeovers from one address that raise one: two clients behind one router, or an unstable device
QUIET: Final = 3600.0  # seconds after an alert without another one for the same device
MAX_TAKEOVERS: Final = 16  # remembered of a device
MAX_DEVICES: Final = 10_000  # remembered; the one with the oldest takeover is dropped first
TAKEN_OVER: Final = frozenset({"takenover", "takeovered", "discarded"})  # EMQX's reasons for the end of a session


def detect_clone(transition: Transition, event: PostureReported) -> None:
    """Records a report whose sequence number regressed, and one from a boot that has ended."""
    device, now = transition.device, transition.now
    if event.seq < device.report_seq:
        is_new = now - device.clone_suspected_at >= QUIET
        transition.update_device(clone_suspected_at=now if is_new else device.clone_suspected_at)
        transition.add_audit(
            AuditKind.REPORT_SEQUENCE_REGRESSED, device.device_id, alert=is_new, was=device.report_seq, now=event.seq
        )
    # No report can come from a boot that was followed by another.
    is_ended_boot = bool(event.boot_id) and event.boot_id != device.boot_id and event.boot_id == device.previous_boot_id
    if is_ended_boot and now - device.clone_suspected_at >= QUIET:
        how = "a boot that has ended reports again: two machines report as this device"
        transition.update_device(clone_suspected_at=now)
        transition.add_audit(AuditKind.DEVICE_CLONE_SUSPECTED, alert=True, how=how, evidence=event.evidence.value)
    if event.boot_id and event.boot_id != device.boot_id:
        transition.update_device(previous_boot_id=device.boot_id)


def on_clone_suspected(transition: Transition, event: CloneSuspected) -> None:
    transition.add_audit(
        AuditKind.DEVICE_CLONE_SUSPECTED,
        alert=True,
        how=event.how,
        peers=list(event.peers),
        times=event.times,
        grade=event.grade,
    )


@dataclass(frozen=True, slots=True)
class SessionTakenOver:
    """A session ended because another client with the same id connected; `peer`: the address of the ended session."""

    device_id: str
    at: float  # Unix seconds
    peer: str


@dataclass(frozen=True, slots=True)
class CloneSuspicion:
    """A pattern of takeovers that looks like two clients."""

    device_id: str
    how: str
    peers: tuple[str, ...]
    times: int


@dataclass(slots=True)
class _Takeovers:
    takeovers: list[SessionTakenOver]
    suspected_at: float = float("-inf")


class CloneDetector:
    """Remembers the takeovers of the last minutes and finds patterns that look like two clients."""

    def __init__(self) -> None:
        self._devices: OrderedDict[str, _Takeovers] = OrderedDict()

    def __len__(self) -> int:
        return len(self._devices)

    def observe(self, event: SessionTakenOver) -> CloneSuspicion | None:
        """Returns the suspicion that this takeover completes, at most one an hour for each device."""
        entry = self._devices.pop(event.device_id, None) or _Takeovers([])
        self._devices[event.device_id] = entry
        if len(self._devices) > MAX_DEVICES:
            self._devices.popitem(last=False)
        recent = [takeover for takeover in entry.takeovers if event.at - takeover.at < WINDOW]
        entry.takeovers = [*recent, event][-MAX_TAKEOVERS:]
        if event.at - entry.suspected_at < QUIET:
            return None
        how = _pattern(entry.takeovers)
        if not how:
            return None
        entry.suspected_at = event.at
        peers = tuple(dict.fromkeys(takeover.peer for takeover in entry.takeovers))
        return CloneSuspicion(event.device_id, how, peers, len(entry.takeovers))


def _pattern(takeovers: list[SessionTakenOver]) -> str:
    peers = [takeover.peer for takeover in takeovers]
    switches = sum(first != second for first, second in pairwise(peers))
    if switches >= SWITCHES and len(set(peers)) < len(peers):
        return "two addresses take the session from each other in turn"
    if len(peers) >= MANY:
        return "the session is taken over again and again"
    return ""
