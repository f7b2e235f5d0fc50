"""The requests that need a second person: made within bounds, ended once, and kept as history in the store."""

from collections.abc import Iterable
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.evolve import evolve
from controller.domain.guards.approvals import (
    ApprovalKind,
    ApprovalNotAllowedError,
    ApprovalRequest,
    ApprovalState,
    check_decision,
    check_open,
    has_ended,
)
from controller.domain.principal import Principal
from controller.ports.accounts import Standing
from controller.ports.errors import ControllerError
from controller.ports.store import GuardSnapshot
from controller.service.accounts.grants import GrantsInForce
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

MAX_REQUESTS: Final = 100  # open at a time
MAX_REQUESTS_OF_ONE: Final = 25  # of one person
MAX_A_DAY: Final = 200  # requests of one person, decided ones too: each is kept as history
_DAY: Final = 86_400.0  # seconds
MAX_ENDED: Final = 200  # in memory
# Rollouts and commands exist anyway, and have bounds of their own: their requests are not refused.
_BOUNDED: Final = frozenset(ApprovalKind) - {ApprovalKind.ROLLOUT, ApprovalKind.COMMAND}
_AUDIT: Final = {
    ApprovalState.OPEN: AuditKind.APPROVAL_REQUESTED,
    ApprovalState.APPROVED: AuditKind.APPROVAL_GRANTED,
    ApprovalState.REJECTED: AuditKind.APPROVAL_REJECTED,
    ApprovalState.WITHDRAWN: AuditKind.APPROVAL_WITHDRAWN,
    ApprovalState.EXPIRED: AuditKind.APPROVAL_EXPIRED,
    ApprovalState.FAILED: AuditKind.APPROVAL_FAILED,
}


class TooManyApprovalRequestsError(ControllerError):
    """As many approval requests are open as are allowed."""


class ApprovalBook:
    """Holds in memory what may still change; all requests are in the store. Used on the event loop's thread."""

    def __init__(self, fleet: FleetState, standing: Standing, grants: GrantsInForce) -> None:
        """`grants` gets the scopes that are given for a while."""
        self._fleet = fleet
        self._standing = standing
        self.grants = grants
        self._requests: dict[str, ApprovalRequest] = {}
        self._ended: dict[str, ApprovalRequest] = {}  # until their end is surely in the store
        self._before: dict[str, ApprovalRequest | None] = {}  # of those that are being committed
        self._made: dict[str, list[float]] = {}  # by person: when it made requests in the last day, since the start

    def load(self, snapshot: GuardSnapshot) -> None:
        """Loads the requests that may still change, at the start."""
        for one in snapshot.requests:
            self._remember(one)

    @property
    def open(self) -> tuple[ApprovalRequest, ...]:
        """The requests that wait, oldest first."""
        return tuple(one for one in self._requests.values() if one.state is ApprovalState.OPEN)

    @property
    def unfinished(self) -> tuple[ApprovalRequest, ...]:
        """The approved requests that are still to be carried out, oldest first."""
        return tuple(one for one in self._requests.values() if one.unfinished)

    def lending(self, now: float) -> tuple[ApprovalRequest, ...]:
        """The requests whose scopes count at `now`, oldest first."""
        held = self._requests.values()
        return tuple(one for one in held if (grant := one.grant) is not None and grant.is_in_force(now))

    def on_commit(self, batch: UnitOfWork) -> None:
        """Takes over what others have ended."""
        for request in batch.requests.values():
            self._before.pop(request.request_id, None)
            if not request.may_change:
                self._remember(request)

    def undo(self, batch: UnitOfWork) -> None:
        """Takes back the requests of a batch that was refused: it is decided again."""
        for key in batch.requests.keys() & self._before.keys():
            self._requests.pop(key, None)
            self._ended.pop(key, None)
            before = self._before.pop(key)
            if before is not None:
                self._remember(before)

    def end_of(self, key: str, why: str, now: float, batch: UnitOfWork) -> None:
        """As `end_requests_of`. Nothing changes unless the batch is committed and published."""
        end_requests_of(self._requests.values(), key, why, now, batch)

    async def find(self, request_id: str) -> ApprovalRequest | None:
        """The request, also one that has ended."""
        return self._here(request_id) or await self._fleet.store.approval(request_id)

    def _here(self, request_id: str) -> ApprovalRequest | None:
        return self._requests.get(request_id) or self._ended.get(request_id)

    def add(self, request: ApprovalRequest, now: float, batch: UnitOfWork) -> ApprovalRequest:
        """Adds a request to `batch`, or returns an open one of the same person that asks for the same.

        Raises:
            TooManyApprovalRequestsError: too many requests are open.
        """
        if request.kind in _BOUNDED:
            waiting = [one for one in self.open if one.kind in _BOUNDED and one.state_at(now) is ApprovalState.OPEN]
            own = [one for one in waiting if one.requester.is_same_person(request.requester, now)]
            if (same := next((one for one in own if one.asks_the_same(request)), None)) is not None:
                return same
            self._check_room(len(waiting), len(own))
            self._count(request.requester.key, now)
        self._save(request, request.by, now, batch)
        return request

    @staticmethod
    def _check_room(waiting: int, own: int) -> None:
        if waiting >= MAX_REQUESTS:
            raise TooManyApprovalRequestsError(f"{MAX_REQUESTS} requests wait for a second person: decide those first")
        if own >= MAX_REQUESTS_OF_ONE:
            text = f"{MAX_REQUESTS_OF_ONE} requests of yours wait for a second person: have those decided first"
            raise TooManyApprovalRequestsError(text)

    def _count(self, person: str, now: float) -> None:
        made = [at for at in self._made.pop(person, ()) if at > now - _DAY]
        self._made[person] = made
        if len(made) >= MAX_A_DAY:
            raise TooManyApprovalRequestsError(f"you made {MAX_A_DAY} requests within a day")
        made.append(now)

    async def to_approve(self, request_id: str, by: Principal, digest: str | None = None) -> ApprovalRequest:
        """The request, which `by` may approve as a person; a later change has to pass `check_decision` again.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: see `check_decision`; or it is not the one with this `digest`.
        """
        standing = await self._standing()
        request = await self._as_stored(await self._known(request_id))
        check_decision(request, by, self._fleet.clock.now(), standing)
        if digest is not None and digest != request.digest:
            raise ApprovalNotAllowedError("this is not the request that you looked at: look at it again")
        return request

    def approve(self, request: ApprovalRequest, by: Principal, now: float, batch: UnitOfWork) -> ApprovalRequest:
        """Adds the approval to `batch`; of two at one moment the second is refused.

        Raises:
            ApprovalNotAllowedError: it was decided meanwhile.
        """
        current = self._here(request.request_id) or request
        check_open(current, now)
        approved = current.with_approval(by, now)
        self._save(approved, by.actor, now, batch)
        return approved

    def finish(self, request: ApprovalRequest, now: float, batch: UnitOfWork, trouble: str = "") -> ApprovalRequest:
        """Adds to `batch` that an approved request was carried out, or cannot be (`trouble`)."""
        if not trouble:
            done = evolve(request, unfinished=False)
            self._keep(done, batch)
            return done
        failed = evolve(request, state=ApprovalState.FAILED, unfinished=False, outcome=trouble)
        self._save(failed, "cordon", now, batch, trouble)
        return failed

    def end(
        self, request: ApprovalRequest, state: ApprovalState, by: str, now: float, batch: UnitOfWork, why: str = ""
    ) -> ApprovalRequest:
        """Adds the end of a request to `batch`.

        Raises:
            ApprovalNotAllowedError: it was decided meanwhile.
        """
        current = self._here(request.request_id) or request
        if current.state is not ApprovalState.OPEN:
            check_open(current, now)
        ended = request.with_decision(state, by, now, why)
        self._save(ended, by, now, batch, why)
        return ended

    async def to_end(self, request_id: str) -> ApprovalRequest:
        """The request, which still waits.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it has ended.
        """
        request = await self._known(request_id)
        check_open(request, self._fleet.clock.now())
        return request

    async def to_end_early(self, request_id: str) -> ApprovalRequest:
        """The request whose scopes are in force.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it gives no scopes now.
        """
        request = await self._known(request_id)
        grant = request.grant
        if grant is None or not grant.is_in_force(self._fleet.clock.now()):
            raise ApprovalNotAllowedError("this request gives no scopes now")
        return request

    def end_scopes(self, request: ApprovalRequest, by: str, now: float, batch: UnitOfWork, why: str) -> ApprovalRequest:
        """Adds the end of approved scopes to `batch`."""
        grant = request.grant
        assert grant is not None
        ended = evolve(request, ended_at=min(now, grant.ends_at), outcome=why)
        self._save(ended, by, now, batch, why)
        return ended

    async def expire(self) -> None:
        """Ends requests that have expired, and what was asked for with a credential that counts no more."""
        now = self._fleet.clock.now()
        if not self._requests:
            return
        for one in list(self._requests.values()):
            await self._as_stored(one)
        standing, batch = await self._standing(), UnitOfWork()
        for one in list(self._requests.values()):
            ended = None
            if has_ended(one.requester, standing):
                ended = _ended_with(one, now, f"the token or account of {one.requester.name} has ended")
            elif one.state is ApprovalState.OPEN and one.state_at(now) is ApprovalState.EXPIRED:
                ended = one.with_decision(ApprovalState.EXPIRED, "cordon", now)
            elif (grant := one.grant) is not None and one.ended_at is None and now >= grant.ends_at:
                ended = evolve(one, ended_at=grant.ends_at, outcome="their time is over")
            if ended is not None:
                self._remember(ended)
                batch.requests[one.request_id] = ended
                batch.audit.append((now, _line(ended, "cordon", ended.outcome)))
        await self._fleet.commit(batch)

    async def _known(self, request_id: str) -> ApprovalRequest:
        request = await self.find(request_id)
        if request is None:
            raise KeyError(request_id)
        return request

    async def _as_stored(self, request: ApprovalRequest) -> ApprovalRequest:
        """The request, with an end that another process has stored: `cordon account` runs beside the controller."""
        stored = await self._fleet.store.approval(request.request_id)
        current = self._here(request.request_id) or request
        if stored is None or stored.may_change or not current.may_change:
            return current
        self._remember(stored)
        return stored

    def _keep(self, request: ApprovalRequest, batch: UnitOfWork) -> None:
        self._before.setdefault(request.request_id, self._here(request.request_id))
        batch.requests[request.request_id] = request
        self._remember(request)

    def _remember(self, request: ApprovalRequest) -> None:
        key = request.request_id
        if request.may_change:
            self._requests[key] = request
        else:
            self._requests.pop(key, None)
            self._ended[key] = request
        self.grants.put(key, request.grant if request.may_change else None)
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _save(self, request: ApprovalRequest, by: str, now: float, batch: UnitOfWork, reason: str = "") -> None:
        self._keep(request, batch)
        batch.audit.append((now, _line(request, by, reason or request.reason)))


def end_requests_of(requests: Iterable[ApprovalRequest], key: str, why: str, now: float, batch: UnitOfWork) -> None:
    """Adds to `batch` the end of what a person (`Principal.key`) has asked for, and of scopes that they lent."""
    for one in requests:
        is_theirs = key == one.requester.key or (one.decider is not None and key == one.decider.key)
        if is_theirs and (ended := _ended_with(one, now, why)) is not None:
            batch.requests[one.request_id] = ended
            batch.audit.append((now, _line(ended, "cordon", ended.outcome)))


def _ended_with(request: ApprovalRequest, now: float, why: str) -> ApprovalRequest | None:
    """The request after the end of its requester; None if that changes nothing."""
    if request.state is ApprovalState.OPEN:
        return request.with_decision(ApprovalState.EXPIRED, "cordon", now, why)
    grant = request.grant
    if grant is None or request.ended_at is not None:
        return None
    return evolve(request, ended_at=min(now, grant.ends_at), outcome=why)


def _line(request: ApprovalRequest, by: str, reason: str) -> AuditEntry:
    """The audit line about the request as it is now; the requester is named, so that they can be told."""
    kind = AuditKind.SCOPES_ENDED if request.ended_at is not None else _AUDIT[request.state]
    detail: dict[str, object] = {
        "request": request.request_id,
        "asks": request.kind.value,
        "level": request.level.value,
        "devices": len(request.devices),
        "requester": request.by,
        "person": request.requester.key,
        "digest": request.digest,
        **_about(request),
        "reason": reason or request.reason,
    }
    asks = kind is AuditKind.APPROVAL_REQUESTED and request.kind in _BOUNDED
    return AuditEntry(kind, "", by, "", detail, alert=asks or kind is AuditKind.APPROVAL_FAILED)


def _about(request: ApprovalRequest) -> dict[str, object]:
    named = {
        "username": request.username,
        "subject": request.subject,
        "scopes": list(request.scopes),
        "serials": list(request.serials),
        "for": request.hold if request.scopes else None,
    }
    return {name: value for name, value in named.items() if value}
