"""Decisions that need a second person: what is asked, who may decide it, and what becomes of it. Pure."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from controller.domain.accounts.grants import ScopeGrant
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import UNOWNED, Principal, person_key
from controller.domain.scopes import Scope, ordered

MAX_TARGETS: Final = 10_000  # devices of one request


class ApprovalKind(StrEnum):
    """What is requested."""

    CONTAIN = "contain"  # restrict or isolate the devices
    CONTAIN_USER = "contain-user"  # a user with every session; the devices are its sessions at the time of the request
    LET_THROUGH = "let-through"  # approve their pending containments
    REVOKE = "revoke"  # certificates of the devices, which are isolated by it
    ROLLOUT = "rollout"  # the next ring of a rollout
    COMMAND = "command"  # a command that waits for a second signature
    SCOPES = "scopes"  # scopes for the requester, for a while


_NEEDED: Final[Mapping[ApprovalKind, Scope]] = {
    ApprovalKind.CONTAIN: Scope.CONTAIN,
    ApprovalKind.CONTAIN_USER: Scope.CONTAIN,
    ApprovalKind.LET_THROUGH: Scope.CONTAIN,
    ApprovalKind.REVOKE: Scope.IDENTITY,
    ApprovalKind.ROLLOUT: Scope.ROLLOUT,
    ApprovalKind.COMMAND: Scope.COMMAND,
}


class ApprovalState(StrEnum):
    """The state of a request. One that has ended has to be made again."""

    OPEN = "open"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"  # by its requester
    EXPIRED = "expired"  # nobody decided in time, or its requester's credential ended
    FAILED = "failed"  # approved, and could not be carried out


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A request that a second person decides.

    `hold`: seconds of the containment (`None`: until released), or of the scopes. `devices`: whom it is about.
    `username`: the user of `CONTAIN_USER`. `subject`: the rollout or command. `serials`, `word`: the certificates of
    `REVOKE`, and the reason for the revocation list. `asked_by`: the actor, if that is no person; then `requester.key`
    is empty.

    `outcome`: why it ended. `unfinished`: approved, and still to be carried out. `ended_at`: when a grant of scopes was
    ended early.

    It ends with the account and the credential of its `requester`: what a thief has asked for does not outlive the
    theft.
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
    subject: str = ""
    scopes: tuple[Scope, ...] = ()
    serials: tuple[str, ...] = ()
    word: str = ""
    asked_by: str = ""
    outcome: str = ""
    unfinished: bool = False
    decider: Principal | None = None
    ended_at: float | None = None
    approved_digest: str = ""

    @property
    def by(self) -> str:
        """The actor who made it."""
        return self.asked_by or self.requester.actor

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all that is carried out, so that exactly what was looked at is approved."""
        asked = [
            self.request_id,
            self.kind.value,
            self.level.value,
            self.hold,
            self.devices,
            self.even_protected,
            self.kick,
            self.clear_retained,
            self.username,
            self.subject,
            self.scopes,
            self.serials,
            self.word,
            self.requester.key,
            self.requester.credential,
        ]
        return hashlib.sha256(json.dumps(asked, separators=(",", ":")).encode()).hexdigest()

    @property
    def needed(self) -> tuple[Scope, ...]:
        """The scopes without which nobody decides it."""
        return self.scopes if self.kind is ApprovalKind.SCOPES else (_NEEDED[self.kind],)

    @property
    def may_change(self) -> bool:
        """Whether something is still to come of it."""
        gives = self.kind is ApprovalKind.SCOPES and self.state is ApprovalState.APPROVED and self.ended_at is None
        return self.state is ApprovalState.OPEN or self.unfinished or gives

    @property
    def grant(self) -> ScopeGrant | None:
        """The scopes that it gives, if it asked for scopes and was approved."""
        if self.kind is not ApprovalKind.SCOPES or self.state is not ApprovalState.APPROVED or self.decider is None:
            return None
        end = self.decided_at + (self.hold or 0.0)
        return ScopeGrant(
            self.request_id,
            self.requester.key,
            self.requester.credential,
            self.scopes,
            self.decider,
            self.decided_at,
            end if self.ended_at is None else min(end, self.ended_at),
        )

    def state_at(self, now: float) -> ApprovalState:
        """Returns the state at `now` (Unix seconds): an open request expires by time.

        A rollout measures the time of its approval itself: pauses and leaps of the clock do not count.
        """
        expires = self.state is ApprovalState.OPEN and self.kind is not ApprovalKind.ROLLOUT
        return ApprovalState.EXPIRED if expires and now >= self.expires_at else self.state

    def asks_the_same(self, other: "ApprovalRequest") -> bool:
        """Whether somebody who approves either of the two causes the same; reason and time do not matter."""
        if self.kind is ApprovalKind.SCOPES and self.requester != other.requester:
            return False  # they are for whoever asked, with what they asked with
        same = {"request_id": "", "requester": self.requester, "reason": "", "asked_at": 0.0, "expires_at": 0.0}
        return replace(self, **same) == replace(other, **same)  # type: ignore[arg-type]

    def with_decision(self, state: ApprovalState, by: str, now: float, outcome: str = "") -> "ApprovalRequest":
        return replace(self, state=state, decided_by=by, decided_at=now, outcome=outcome, unfinished=False)

    def with_approval(self, by: Principal, now: float) -> "ApprovalRequest":
        """Returns the request as approved by a person, and still to be carried out."""
        approved = self.with_decision(ApprovalState.APPROVED, by.actor, now)
        return replace(approved, decider=by, approved_digest=self.digest, unfinished=True)


class ApprovalNotAllowedError(ValueError):
    """The operator may not decide this request now; the text says why."""


class ApprovalScopeError(ApprovalNotAllowedError):
    """The operator lacks a scope, or has it in a way that does not count here; `scopes`: which."""

    def __init__(self, text: str, scopes: Iterable[Scope]) -> None:
        self.scopes = ordered(scopes)
        super().__init__(text)


def check_open(request: ApprovalRequest, now: float) -> None:
    """Checks that the request still waits for a decision (`ApprovalNotAllowedError`)."""
    state = request.state_at(now)
    if state is not ApprovalState.OPEN:
        raise ApprovalNotAllowedError(f"this request is {state.value} already")


def has_ended(principal: Principal, standing: AbstractSet[str]) -> bool:
    """Whether somebody's account, or the token that they act with, is not to act any more.

    `standing`: the tokens and accounts that have not ended. What a policy asks for needs none.
    """
    return not {principal.key, principal.credential} - {"", UNOWNED} <= standing


def check_second_person(requester: Principal, by: Principal, now: float) -> None:
    """Checks that two different persons are known to decide (`ApprovalNotAllowedError`)."""
    if requester.key == by.key:
        raise ApprovalNotAllowedError("a second person has to approve: this request is your own")
    if requester.is_same_person(by, now):
        both = f"{by.name} and {requester.name} count as one person"
        text = f"a second person has to approve: {both}, as an account does with who made it for a day"
        raise ApprovalNotAllowedError(text)
    for one in (requester, by):
        if person_key(one.key) == UNOWNED and one.key:
            text = f"nobody knows whose token {one.name} is: where two persons decide, use tokens of accounts"
            raise ApprovalNotAllowedError(text)


def check_decision(request: ApprovalRequest, by: Principal, now: float, standing: AbstractSet[str]) -> None:
    """Checks that `by` may approve the request; `standing` as in `has_ended`.

    Raises:
        ApprovalNotAllowedError: the request is not open, account or token of its requester or of `by` has ended, or
            `by` is not known to be another person.
    """
    check_open(request, now)
    if has_ended(request.requester, standing):
        raise ApprovalNotAllowedError(f"this request has ended with the token or account of {request.requester.name}")
    if has_ended(by, standing):
        raise ApprovalNotAllowedError("your token or account has ended")
    check_second_person(request.requester, by, now)


def check_scopes(
    request: ApprovalRequest, scopes: AbstractSet[Scope], lent: Iterable[ScopeGrant], now: float, *, approves: bool
) -> None:
    """Checks that somebody with these scopes may decide the request.

    `lent`: the decider's scopes for a while, which are among `scopes`. Nobody approves with a scope that the requester
    gave them, and nobody passes on a scope that they have for a while themselves.

    Raises:
        ApprovalScopeError: a scope is missing, or does not count.
    """
    missing = frozenset(request.needed) - scopes
    if missing:
        words = ", ".join(ordered(missing))
        raise ApprovalScopeError(f"deciding this request needs the scope {words}", missing)
    for one in lent if approves else ():
        borrowed = frozenset(request.needed).intersection(one.scopes)
        if not one.is_in_force(now) or not borrowed:
            continue
        if request.kind is ApprovalKind.SCOPES:
            raise ApprovalScopeError("scopes for a while are not passed on: somebody has to approve by role", borrowed)
        if request.requester.is_same_person(one.granted_by, now):
            text = f"a second person has to approve: {request.requester.name} gave you the scope for it"
            raise ApprovalScopeError(text, borrowed)


def is_within_operator_limit(
    devices: Iterable[str], charged: dict[str, float], now: float, most: int, window: float
) -> bool:
    """Whether one operator may contain these devices too, after those of the last `window` seconds.

    `charged`: device ids and when the operator contained them (Unix seconds). A device counts once; single requests
    count like one large request, so that the limit cannot be evaded.
    """
    recent = {device for device, at in charged.items() if at > now - window}
    return len(recent.union(devices)) <= most
