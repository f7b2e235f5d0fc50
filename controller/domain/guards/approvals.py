"""Two persons for containing many devices by hand: what one did of late, and requests that wait."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.policy.model import Level

MAX_TARGETS: Final = 10_000  # devices of one request


class Kind(StrEnum):
    """What is asked for."""

    CONTAIN = "contain"  # restrict or isolate these devices
    LET_THROUGH = "let-through"  # what a guard holds back of these devices


class RequestState(StrEnum):
    """Where a request stands. One that expired can only be made anew."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Request:
    """More containments by hand than one person may decide; `hold` in seconds, `None` until released."""

    request_id: str
    kind: Kind
    by: str
    reason: str
    level: Level
    hold: float | None
    devices: tuple[str, ...]
    asked_at: float
    expires_at: float
    state: RequestState = RequestState.OPEN
    decided_by: str = ""
    decided_at: float = 0.0
    even_protected: bool = False
    kick: bool = False
    clear_retained: bool = False

    def state_at(self, now: float) -> RequestState:
        """Its state at `now` (Unix seconds): an open one ends by time alone, and only into nothing."""
        is_over = self.state is RequestState.OPEN and now >= self.expires_at
        return RequestState.EXPIRED if is_over else self.state

    def decided(self, state: RequestState, by: str, now: float) -> "Request":
        """The same after its end."""
        return replace(self, state=state, decided_by=by, decided_at=now)


class NotDecidableError(ValueError):
    """Why this person cannot decide this request now; `str()` is for them."""


def check_decision(request: Request, by: str, now: float) -> None:
    """Whether `by` may approve.

    Raises:
        NotDecidableError: it is over already, or it is their own.
    """
    state = request.state_at(now)
    if state is not RequestState.OPEN:
        raise NotDecidableError(f"this request is {state.value} already")
    if request.by == by:
        raise NotDecidableError("a second person has to approve: this request is your own")


def alone(devices: Iterable[str], charged: dict[str, float], now: float, most: int, window: float) -> bool:
    """Whether one person may contain these too, after what they contained by hand of late (device and Unix seconds).

    A device counts once. One after the other counts like all at once, or the bound could be walked around.
    """
    recent = {device for device, at in charged.items() if at > now - window}
    return len(recent.union(devices)) <= most
