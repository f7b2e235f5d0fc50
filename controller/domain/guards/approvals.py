"""Two persons for containing many devices by hand: what one did of late, and requests that wait."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.policy.model import ContainmentLevel

MAX_TARGETS: Final = 10_000  # devices of one request


class ApprovalKind(StrEnum):
    """What is asked for."""

    CONTAIN = "contain"  # restrict or isolate these devices
    LET_THROUGH = "let-through"  # what a guard holds back of these devices


class ApprovalState(StrEnum):
    """Where a request stands. One that expired can only be made anew."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """More containments by hand than one person may decide; `hold` in seconds, `None` until released."""

    request_id: str
    kind: ApprovalKind
    by: str
    reason: str
    level: ContainmentLevel
    hold: float | None
    devices: tuple[str, ...]
    asked_at: float
    expires_at: float
    state: ApprovalState = ApprovalState.OPEN
    decided_by: str = ""
    decided_at: float = 0.0
    even_protected: bool = False
    kick: bool = False
    clear_retained: bool = False

    def state_at(self, now: float) -> ApprovalState:
        """Its state at `now` (Unix seconds): an open one ends by time alone, and only into nothing."""
        is_over = self.state is ApprovalState.OPEN and now >= self.expires_at
        return ApprovalState.EXPIRED if is_over else self.state

    def with_decision(self, state: ApprovalState, by: str, now: float) -> "ApprovalRequest":
        """The same after its end."""
        return replace(self, state=state, decided_by=by, decided_at=now)


class ApprovalNotAllowedError(ValueError):
    """Why this person cannot decide this request now; `str()` is for them."""


def check_decision(request: ApprovalRequest, by: str, now: float) -> None:
    """Whether `by` may approve.

    Raises:
        ApprovalNotAllowedError: it is over already, or it is their own.
    """
    state = request.state_at(now)
    if state is not ApprovalState.OPEN:
        raise ApprovalNotAllowedError(f"this request is {state.value} already")
    if request.by == by:
        raise ApprovalNotAllowedError("a second person has to approve: this request is your own")


def is_within_operator_limit(
    devices: Iterable[str], charged: dict[str, float], now: float, most: int, window: float
) -> bool:
    """Whether one person may contain these too, after what they contained by hand of late (device and Unix seconds).

    A device counts once. One after the other counts like all at once, or the bound could be walked around.
    """
    recent = {device for device, at in charged.items() if at > now - window}
    return len(recent.union(devices)) <= most
