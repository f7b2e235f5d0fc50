"""What operators do with the guards: contain many by hand, let through or dismiss what waits, decide requests."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device, HoldReason
from controller.domain.effects import NO_OPTIONS, AuditEntry, ContainmentOptions
from controller.domain.events import ContainmentApproved, ContainmentDismissed, ContainmentOrdered
from controller.domain.guards.approvals import (
    ApprovalKind,
    ApprovalNotAllowedError,
    ApprovalRequest,
    ApprovalState,
    check_decision,
    is_within_operator_limit,
)
from controller.domain.policy.model import ContainmentLevel
from controller.domain.transition import StepOutcome
from controller.ports.errors import ControllerError
from controller.ports.log import Log
from controller.ports.store import GuardSnapshot
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

TICK: Final = 5.0  # seconds between two looks at what has expired
MAX_REQUESTS: Final = 100  # open at a time
KEPT_REQUESTS: Final = 200  # in memory, with those that ended


class ProtectedDeviceError(ControllerError):
    """Somebody would contain protected devices without having said so twice."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        named = "; ".join(f"{device}: {why}" for device, why in list(self.reasons.items())[:5])
        super().__init__(f"{len(self.reasons)} of these devices are protected ({named}): say that you mean them too")


class SecondApproverRequiredError(ControllerError):
    """More than one person may contain, and this way of containing has no request that another could approve."""


class TooManyApprovalRequestsError(ControllerError):
    """So many requests wait for a second person that another would not be looked at."""


@dataclass(frozen=True, slots=True)
class OperatorLimits:
    """How many devices one person contains alone within `window` seconds, and when a request ends by itself."""

    most: int = 10
    window: float = 3600.0
    expiry: float = 86_400.0


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """What an operator wants with some devices."""

    kind: ApprovalKind
    devices: tuple[str, ...]
    by: str
    reason: str
    level: ContainmentLevel = ContainmentLevel.RESTRICTED
    hold: float | None = None
    even_protected: bool = False
    options: ContainmentOptions = NO_OPTIONS


class OperatorActions:
    """Every decision of an operator that one person may be too few for. Called on the event loop's thread."""

    def __init__(self, keeper: FleetState, by_hand: OperatorLimits, log: Log) -> None:
        self._keeper = keeper
        self.by_hand = by_hand
        self._log = log
        # What each operator contained alone: device and Unix seconds.
        self._charged: dict[str, dict[str, float]] = {}
        self.requests: dict[str, ApprovalRequest] = {}

    def load(self, books: GuardSnapshot) -> None:
        """Take up what the store holds, at the start."""
        for ledger, device, at in books.charges:
            if ledger:
                self._charged.setdefault(ledger, {})[device] = at
        self.requests = {one.request_id: one for one in books.requests[-KEPT_REQUESTS:]}

    async def run(self) -> None:
        """Until cancelled: requests that nobody decided in time end, and the record says so."""
        while True:
            await self.expire()
            await asyncio.sleep(TICK)

    async def expire(self) -> None:
        """End what is over now."""
        now = self._keeper.clock.now()
        batch = UnitOfWork()
        for one in list(self.requests.values()):
            if one.state is ApprovalState.OPEN and one.state_at(now) is ApprovalState.EXPIRED:
                self._put(
                    one.with_decision(ApprovalState.EXPIRED, "cordon", now),
                    AuditKind.APPROVAL_EXPIRED,
                    "cordon",
                    now,
                    batch,
                )
        await self._keeper.commit(batch)

    async def decide(self, wanted: OperatorRequest) -> Sequence[StepOutcome] | ApprovalRequest:
        """Carry it out, or, where it is more than one person may decide, ask for a second one.

        Raises:
            ProtectedDeviceError: some of the devices are protected, and that was not meant.
            TooManyApprovalRequestsError: too many requests are open.
        """
        keeper = self._keeper
        now = keeper.clock.now()
        self._check_protected(wanted)
        batch = UnitOfWork()
        if not self._charge(wanted.by, wanted.devices, now, batch):
            request = self._request(wanted, now, batch)
            await keeper.commit(batch)
            return request
        outcomes = self._carry_out(wanted, wanted.by, now, batch)
        await keeper.commit(batch)
        return outcomes

    async def spend(self, by: str, names: tuple[str, ...], *, even_protected: bool = False) -> None:
        """Count what an operator contains in another way: the sessions of a user, whoever has a certificate.

        Raises:
            ProtectedDeviceError: one of the names is that of a protected device which is not contained.
            SecondApproverRequiredError: with these it would be more than one person may contain.
        """
        free = tuple(one for one in names if (found := self._keeper.get(one)) is None or found.case is None)
        self._check_protected(OperatorRequest(ApprovalKind.CONTAIN, free, by, "", even_protected=even_protected))
        batch = UnitOfWork()
        if not self._charge(by, names, self._keeper.clock.now(), batch):
            raise SecondApproverRequiredError(
                f"these are {len(names)} more than one person may contain within a while ({self.by_hand.most}): "
                "contain the devices by their ids, which another operator can approve, or have another operator do it"
            )
        await self._keeper.commit(batch)

    def _charge(self, by: str, names: tuple[str, ...], now: float, batch: UnitOfWork) -> bool:
        """Whether one person may contain these too; then they are counted, and what is long past is forgotten."""
        charged = self._charged.setdefault(by, {})
        if not is_within_operator_limit(names, charged, now, self.by_hand.most, self.by_hand.window):
            return False
        for name in [name for name, at in charged.items() if at <= now - self.by_hand.window]:
            del charged[name]
            batch.charges[by, name] = None
        for name in names:
            charged[name] = now
            batch.charges[by, name] = now
        return True

    async def approve(self, request_id: str, by: str) -> Sequence[StepOutcome]:
        """A second person says yes: all of it is carried out, in one commit with the request's end.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it is over, or their own.
        """
        now = self._keeper.clock.now()
        request = self.requests[request_id]
        check_decision(request, by, now)
        batch = UnitOfWork()
        self._put(request.with_decision(ApprovalState.APPROVED, by, now), AuditKind.APPROVAL_GRANTED, by, now, batch)
        wanted = OperatorRequest(
            request.kind,
            request.devices,
            request.by,
            request.reason,
            request.level,
            request.hold,
            even_protected=True,
            options=ContainmentOptions(kick=request.kick, clear_retained=request.clear_retained),
        )
        outcomes = self._carry_out(wanted, f"{request.by} with {by}", now, batch)
        await self._keeper.commit(batch)
        return outcomes

    async def reject(self, request_id: str, by: str, reason: str) -> ApprovalRequest:
        """Anybody says no, also who asked.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it is over.
        """
        now = self._keeper.clock.now()
        request = self.requests[request_id]
        if request.state_at(now) is not ApprovalState.OPEN:
            raise ApprovalNotAllowedError(f"this request is {request.state_at(now).value} already")
        batch = UnitOfWork()
        ended = request.with_decision(ApprovalState.REJECTED, by, now)
        self._put(ended, AuditKind.APPROVAL_REJECTED, by, now, batch, reason)
        await self._keeper.commit(batch)
        return ended

    async def dismiss(self, devices: Iterable[str], by: str, reason: str) -> Sequence[StepOutcome]:
        """Say no to what waits for these devices; that contains nobody, so one person is enough."""
        keeper = self._keeper
        batch, now = UnitOfWork(), keeper.clock.now()
        outcomes = [
            keeper.apply(device, ContainmentDismissed(keeper.new_id(), by, reason), now, batch)
            for device in map(keeper.get, devices)
            if device is not None
        ]
        await keeper.commit(batch)
        return outcomes

    def waiting(self) -> list[Device]:
        """Devices whose containment a guard holds back, longest first; dismissed ones are not among them."""
        found = [
            device
            for device in self._keeper.devices.values()
            if device.pending is not None and device.pending.why is not HoldReason.DISMISSED
        ]
        return sorted(found, key=lambda one: (one.pending.since if one.pending else 0.0, one.device_id))

    def left_alone(self, by: str) -> int:
        """How many more devices this operator may contain without a second person."""
        start = self._keeper.clock.now() - self.by_hand.window
        used = sum(1 for at in self._charged.get(by, {}).values() if at > start)
        return max(0, self.by_hand.most - used)

    def _check_protected(self, wanted: OperatorRequest) -> None:
        if wanted.even_protected:
            return
        protection = self._keeper.guards.protection
        reasons = {
            device.device_id: why
            for device in map(self._keeper.get, wanted.devices)
            if device is not None and (why := protection.protection_reason(device))
        }
        if reasons:
            raise ProtectedDeviceError(reasons)

    def _request(self, wanted: OperatorRequest, now: float, batch: UnitOfWork) -> ApprovalRequest:
        open_ones = sum(1 for one in self.requests.values() if one.state_at(now) is ApprovalState.OPEN)
        if open_ones >= MAX_REQUESTS:
            raise TooManyApprovalRequestsError(f"{MAX_REQUESTS} requests wait for a second person: decide those first")
        request = ApprovalRequest(
            self._keeper.new_id(),
            wanted.kind,
            wanted.by,
            wanted.reason,
            wanted.level,
            wanted.hold,
            wanted.devices,
            now,
            now + self.by_hand.expiry,
            even_protected=wanted.even_protected,
            kick=wanted.options.kick,
            clear_retained=wanted.options.clear_retained,
        )
        self._put(request, AuditKind.APPROVAL_REQUESTED, wanted.by, now, batch, wanted.reason)
        return request

    def _put(
        self, request: ApprovalRequest, kind: AuditKind, by: str, now: float, batch: UnitOfWork, reason: str = ""
    ) -> None:
        self.requests[request.request_id] = request
        while len(self.requests) > KEPT_REQUESTS:
            ended = next((one for one in self.requests.values() if one.state is not ApprovalState.OPEN), None)
            if ended is None:
                break
            del self.requests[ended.request_id]
        batch.requests[request.request_id] = request
        detail: dict[str, object] = {
            "request": request.request_id,
            "asks": request.kind.value,
            "level": request.level.value,
            "devices": len(request.devices),
            "reason": reason or request.reason,
        }
        batch.audit.append((now, AuditEntry(kind, "", by, "", detail, alert=kind is AuditKind.APPROVAL_REQUESTED)))

    def _carry_out(self, wanted: OperatorRequest, by: str, now: float, batch: UnitOfWork) -> list[StepOutcome]:
        keeper = self._keeper
        outcomes = []
        for device_id in wanted.devices:
            device = keeper.get(device_id)
            if device is None:
                continue
            event_id = keeper.new_id()
            event: ContainmentOrdered | ContainmentApproved
            if wanted.kind is ApprovalKind.CONTAIN:
                event = ContainmentOrdered(event_id, wanted.level, by, wanted.reason, wanted.hold, wanted.options)
            else:
                event = ContainmentApproved(event_id, by, wanted.reason)
            outcomes.append(keeper.apply(device, event, now, batch))
        return outcomes
