"""Two that pass for one device: seen from who takes over whose session, in turn. Pure.

A device whose network broke takes over its own dead session, perhaps from another address: once is nothing. Two that
are both alive throw each other out again and again. What is found is an alert; nobody is contained for it, because an
address proves nothing, and the one thrown out may be the honest one.
"""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

WINDOW: Final = 600.0  # seconds that are looked at together
SWITCHES: Final = 3  # changes between addresses: there, back, and there again
MANY: Final = 6  # takeovers by one address: two behind one router, or a device that is badly ill
QUIET: Final = 3600.0  # seconds after an alert in which the same device causes no other
MAX_TAKEOVERS: Final = 16  # remembered of one device
MAX_DEVICES: Final = 10_000  # with a takeover lately; the one seen longest ago is forgotten first
TAKEN_OVER: Final = frozenset({"takenover", "takeovered", "discarded"})  # as EMQX tells the end of the first session


@dataclass(frozen=True, slots=True)
class SessionTakenOver:
    """A session ended because another client with the same id connected; `peer`: where the one that ended came from."""

    device_id: str
    at: float  # Unix seconds
    peer: str


@dataclass(frozen=True, slots=True)
class CloneSuspicion:
    """What was seen, for the record."""

    device_id: str
    how: str
    peers: tuple[str, ...]
    times: int


def detect_ended_boot(boot_id: str, *, now_in: str, before: str, told_at: float, now: float) -> str:
    """Why a report shows that two report as one device; empty when it does not, or when that was told lately.

    A boot that was followed by another is over: nothing can report from it again. `now_in` and `before` are the boots
    of the last reports.
    """
    if now - told_at < QUIET or not boot_id or boot_id == now_in:
        return ""
    if boot_id == before:
        return "a boot that was over reports again: two machines report as this device"
    return ""


@dataclass(slots=True)
class _Seen:
    takeovers: list[SessionTakenOver]
    told_at: float = float("-inf")


class CloneDetector:
    """Remembers takeovers of the last minutes, and says when they look like two devices."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def __len__(self) -> int:
        """Devices that are remembered."""
        return len(self._seen)

    def observe(self, event: SessionTakenOver) -> CloneSuspicion | None:
        """One more takeover; the suspicion it completes, at most one an hour for each device."""
        seen = self._seen.pop(event.device_id, None) or _Seen([])
        self._seen[event.device_id] = seen
        if len(self._seen) > MAX_DEVICES:
            self._seen.popitem(last=False)
        recent = [one for one in seen.takeovers if event.at - one.at < WINDOW]
        seen.takeovers = [*recent, event][-MAX_TAKEOVERS:]
        if event.at - seen.told_at < QUIET:
            return None
        how = _pattern(seen.takeovers)
        if not how:
            return None
        seen.told_at = event.at
        peers = tuple(dict.fromkeys(one.peer for one in seen.takeovers))
        return CloneSuspicion(event.device_id, how, peers, len(seen.takeovers))


def _pattern(takeovers: list[SessionTakenOver]) -> str:
    peers = [one.peer for one in takeovers]
    switches = sum(first != second for first, second in pairwise(peers))
    if switches >= SWITCHES and len(set(peers)) < len(peers):
        return "two addresses take the session from each other in turn"
    if len(peers) >= MANY:
        return "the session is taken over again and again"
    return ""
