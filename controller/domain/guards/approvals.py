"""Second-person approval: an operator alone contains a limited number of devices; more need a request and a second
operator.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal

MAX_TARGETS: Final = 10_000  # devices of one request


class ApprovalKind(StrEnum):
    """What is requested."""

    CONTAIN = "contain"  # restrict or isolate the devices
    CONTAIN_USER = "contain-user"  # a user with every session; the devices are its sessions at the time of the request
    LET_THROUGH = "let-through"  # approve their pending containments


class ApprovalState(StrEnum):
    """The state of a request. An expired request has to be made again."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A request to contain more devices than one operator may; `hold` in seconds, `None` until released.

    `username`: the user to be contained, of `CONTAIN_USER`.

    It ends with the credential of its `requester`: what a thief has asked for does not outlive the theft.
    """

    request_id: str
    kind: ApprovalKind
    requester: Principal
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
    username: str = ""

    @property
    def by(self) -> str:
        """The actor who made it."""
        return self.requester.actor

    def state_at(self, now: float) -> ApprovalState:
        """Returns the state at `now` (Unix seconds): an open request expires by time."""
        is_over = self.state is ApprovalState.OPEN and now >= self.expires_at
        return ApprovalState.EXPIRED if is_over else self.state

    def asks_the_same(self, other: "ApprovalRequest") -> bool:
        """Whether somebody who approves either of the two causes the same; reason and time do not matter."""
        unlike = replace(other, request_id="", requester=self.requester, reason="", asked_at=0.0, expires_at=0.0)
        return replace(self, request_id="", reason="", asked_at=0.0, expires_at=0.0) == unlike

    def with_decision(self, state: ApprovalState, by: str, now: float) -> "ApprovalRequest":
        return replace(self, state=state, decided_by=by, decided_at=now)


class ApprovalNotAllowedError(ValueError):
    """The operator may not decide this request now; the text says why."""


def check_decision(request: ApprovalRequest, by: Principal, now: float, valid: AbstractSet[str]) -> None:
    """Checks that `by` may approve the request; `valid`: tokens and accounts that have not ended, by `standing`.

    Raises:
        ApprovalNotAllowedError: the request is not open, its requester's credential has ended, or `by` counts as the
            same person.
    """
    state = request.state_at(now)
    if state is not ApprovalState.OPEN:
        raise ApprovalNotAllowedError(f"this request is {state.value} already")
    if request.requester.standing not in valid:
        raise ApprovalNotAllowedError(f"this request has ended with the token or account of {request.requester.name}")
    if request.requester.key == by.key:
        raise ApprovalNotAllowedError("a second person has to approve: this request is your own")
    if request.requester.is_same_person(by, now):
        both = f"{by.name} and {request.requester.name} count as one person"
        why = "as all tokens without owner do, and an account with who made it for a day"
        text = f"a second person has to approve: {both}, {why}"
        raise ApprovalNotAllowedError(text)


def ending_with(requests: Iterable[ApprovalRequest], key: str, now: float) -> tuple[ApprovalRequest, ...]:
    """The open requests of a person (`Principal.key`) who is not to act any more, ended at `now`."""
    return tuple(
        one.with_decision(ApprovalState.EXPIRED, "cordon", now)
        for one in requests
        if one.state is ApprovalState.OPEN and one.requester.key == key
    )


def is_within_operator_limit(
    devices: Iterable[str], charged: dict[str, float], now: float, most: int, window: float
) -> bool:
    """Whether one operator may contain these devices too, after those of the last `window` seconds.

    `charged`: device ids and when the operator contained them (Unix seconds). A device counts once; single requests
    count like one large request, so that the limit cannot be evaded.
    """
    recent = {device for device, at in charged.items() if at > now - window}
    return len(recent.union(devices)) <= most
