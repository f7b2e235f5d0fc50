"""Operator actions under the guards: containments, approvals and dismissals, with a second person where required."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.users import UserCase
from controller.domain.device import Device, HoldReason
from controller.domain.effects import NO_OPTIONS, AuditEntry, ContainmentOptions
from controller.domain.events import (
    ContainmentApproved,
    ContainmentDismissed,
    ContainmentOrdered,
    DomainEvent,
    ReleaseOrdered,
)
from controller.domain.guards.approvals import (
    ApprovalKind,
    ApprovalNotAllowedError,
    ApprovalRequest,
    ApprovalState,
    check_decision,
    ending_with,
    is_within_operator_limit,
)
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.domain.transition import StepOutcome
from controller.ports.accounts import Standing
from controller.ports.errors import ControllerError
from controller.ports.log import Log
from controller.ports.store import GuardSnapshot
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

TICK: Final = 5.0  # seconds between two checks for expired requests
MAX_REQUESTS: Final = 100  # open at a time
MAX_REQUESTS_OF_ONE: Final = 25  # of one person
MAX_KEPT_REQUESTS: Final = 200  # in memory, with ended ones


class ProtectedDeviceError(ControllerError):
    """The action would contain protected devices, and `even_protected` was not given."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        named = "; ".join(f"{device}: {why}" for device, why in list(self.reasons.items())[:5])
        super().__init__(f"{len(self.reasons)} of these devices are protected ({named}): say that you mean them too")


class SecondApproverRequiredError(ControllerError):
    """A second person is required, and this kind of containment has no approval request."""


class TooManyApprovalRequestsError(ControllerError):
    """As many approval requests are open as are allowed."""


@dataclass(frozen=True, slots=True)
class OperatorLimits:
    """One person alone contains at most `most` devices within `window` seconds; requests expire after `expiry`."""

    most: int = 10
    window: float = 3600.0
    expiry: float = 86_400.0


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """An operator's action on some devices."""

    kind: ApprovalKind
    devices: tuple[str, ...]
    by: Principal
    reason: str
    level: ContainmentLevel = ContainmentLevel.RESTRICTED
    hold: float | None = None
    even_protected: bool = False
    options: ContainmentOptions = NO_OPTIONS
    username: str = ""  # of `CONTAIN_USER`


class ContainUser(Protocol):
    """Contains a user; `hold` seconds bound an isolation."""

    async def __call__(
        self, name: str, level: ContainmentLevel, *, by: str, reason: str, hold: float | None
    ) -> UserCase: ...


class OperatorActions:
    """The operator decisions that may need a second person. Called on the event loop's thread."""

    def __init__(self, fleet: FleetState, standing: Standing, limits: OperatorLimits, log: Log) -> None:
        self._fleet = fleet
        self._standing = standing
        self.limits = limits
        self._log = log
        # By key of a principal: the devices contained without a second person, with Unix seconds. They count for the
        # makers of an account too, so that a fresh one has no fresh allowance.
        self._charged: dict[str, dict[str, float]] = {}
        self.requests: dict[str, ApprovalRequest] = {}

    def load(self, snapshot: GuardSnapshot) -> None:
        """Loads charges and requests at the start."""
        for ledger, device, at in snapshot.charges:
            if ledger:
                self._charged.setdefault(ledger, {})[device] = at
        self.requests = {request.request_id: request for request in snapshot.requests[-MAX_KEPT_REQUESTS:]}

    async def run(self) -> None:
        """Until cancelled: ends requests that were not decided in time, or whose token or account has ended."""
        while True:
            await self.expire()
            await asyncio.sleep(TICK)

    async def expire(self) -> None:
        """Ends requests that have expired, and those of a token or an account that has ended."""
        if all(one.state is not ApprovalState.OPEN for one in self.requests.values()):
            return
        valid, now = await self._standing(), self._fleet.clock.now()
        batch = UnitOfWork()
        for one in list(self.requests.values()):
            if one.state is not ApprovalState.OPEN:
                continue
            is_valid = one.requester.standing in valid
            if not is_valid or one.state_at(now) is ApprovalState.EXPIRED:
                ended = one.with_decision(ApprovalState.EXPIRED, "cordon", now)
                why = "" if is_valid else f"the token of {one.requester.name} has ended, or the account"
                self._save_request(ended, AuditKind.APPROVAL_EXPIRED, "cordon", now, batch, why)
        await self._fleet.commit(batch)

    def end_requests_of(self, key: str, now: float, batch: UnitOfWork) -> None:
        """Ends the open requests of a person who is not to act any more."""
        for ended in ending_with(self.requests.values(), key, now):
            self._save_request(ended, AuditKind.APPROVAL_EXPIRED, "cordon", now, batch, "the account was disabled")

    async def decide(self, action: OperatorRequest) -> Sequence[StepOutcome] | ApprovalRequest:
        """Applies the action, or opens an approval request where a second person is required.

        Raises:
            ProtectedDeviceError: some of the devices are protected, and `even_protected` was not given.
            TooManyApprovalRequestsError: too many requests are open.
        """
        fleet = self._fleet
        now = fleet.clock.now()
        self._check_protected(action)
        batch = UnitOfWork()
        if not self._charge(action.by, action.devices, now, batch):
            request = self._open_request(action, now, batch)
            await fleet.commit(batch)
            return request
        outcomes = self._apply(action, action.by.actor, now, batch)
        await fleet.commit(batch)
        return outcomes

    async def charge(self, by: Principal, names: tuple[str, ...], *, even_protected: bool = False) -> None:
        """Charges what an operator contains in another way: the holder of a certificate that never reported.

        Raises:
            ProtectedDeviceError: one of the names is that of a protected device which is not contained.
            SecondApproverRequiredError: with these it would be more than one person may contain alone.
        """
        free = tuple(name for name in names if (device := self._fleet.get(name)) is None or device.case is None)
        self._check_protected(OperatorRequest(ApprovalKind.CONTAIN, free, by, "", even_protected=even_protected))
        batch = UnitOfWork()
        if not self._charge(by, names, self._fleet.clock.now(), batch):
            raise SecondApproverRequiredError(
                f"these are {len(names)} more than one person may contain within a while ({self.limits.most}): "
                "contain the devices by their ids, which another operator can approve, or have another operator do it"
            )
        await self._fleet.commit(batch)

    async def charge_user(self, action: OperatorRequest) -> ApprovalRequest | None:
        """Charges the sessions of a user, or opens an approval request where these are more than one person's.

        Raises:
            ProtectedDeviceError: a session is that of a protected device, and `even_protected` was not given.
            TooManyApprovalRequestsError: too many requests are open.
        """
        self._check_protected(action)
        now, batch = self._fleet.clock.now(), UnitOfWork()
        counted = action.devices or (f"user:{action.username}",)
        request = None
        if not self._charge(action.by, counted, now, batch):
            request = self._open_request(action, now, batch)
        await self._fleet.commit(batch)
        return request

    def _charge(self, by: Principal, names: tuple[str, ...], now: float, batch: UnitOfWork) -> bool:
        """Charges the devices if one person may contain them too, and drops charges outside of the window."""
        if not is_within_operator_limit(names, self._charged_to(by, now), now, self.limits.most, self.limits.window):
            return False
        for key in by.keys_at(now):
            charged = self._charged.setdefault(key, {})
            for name in [name for name, at in charged.items() if at <= now - self.limits.window]:
                del charged[name]
                batch.charges[key, name] = None
            for name in names:
                charged[name] = now
                batch.charges[key, name] = now
        return True

    def _charged_to(self, by: Principal, now: float) -> dict[str, float]:
        """What the person contained alone: devices and the latest time (Unix seconds)."""
        found: dict[str, float] = {}
        for key in by.keys_at(now):
            for name, at in self._charged.get(key, {}).items():
                found[name] = max(at, found.get(name, at))
        return found

    async def approve(self, request_id: str, by: Principal) -> Sequence[StepOutcome]:
        """A second person approves: the whole action is applied in one commit with the end of the request.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it has ended, or `by` counts as the person who opened it.
            ProtectedDeviceError: a device is protected by now, and the request did not mean protected ones.
        """
        request, action = await self._approved(request_id, by)
        now, batch = self._fleet.clock.now(), UnitOfWork()
        self._end_approved(request, by, now, batch)
        outcomes = self._apply(action, f"{request.by} with {by.actor}", now, batch)
        await self._fleet.commit(batch)
        return outcomes

    async def approve_user(
        self, request_id: str, by: Principal, sessions: Sequence[str], contain: ContainUser
    ) -> UserCase:
        """As `approve`, for a request about a user. A crash in between leaves the request open: approve it again.

        `sessions`: the client ids of the user's sessions now, among which protected devices may have come.

        Raises:
            KeyError, ApprovalNotAllowedError, ProtectedDeviceError: as for `approve`; also what `contain` raises.
        """
        request, action = await self._approved(request_id, by)
        self._check_protected(replace(action, devices=tuple(sessions)))
        both = f"{request.by} with {by.actor}"
        case = await contain(request.username, request.level, by=both, reason=request.reason, hold=request.hold)
        batch = UnitOfWork()
        self._end_approved(request, by, self._fleet.clock.now(), batch)
        await self._fleet.commit(batch)
        return case

    async def _approved(self, request_id: str, by: Principal) -> tuple[ApprovalRequest, OperatorRequest]:
        """The request, which `by` may approve now, and its action; raises as `approve`."""
        valid = await self._standing()
        request = self.requests[request_id]
        check_decision(request, by, self._fleet.clock.now(), valid)
        action = OperatorRequest(
            request.kind,
            request.devices,
            request.requester,
            request.reason,
            request.level,
            request.hold,
            even_protected=request.even_protected,
            options=ContainmentOptions(kick=request.kick, clear_retained=request.clear_retained),
        )
        self._check_protected(action)
        return request, action

    def _end_approved(self, request: ApprovalRequest, by: Principal, now: float, batch: UnitOfWork) -> None:
        ended = request.with_decision(ApprovalState.APPROVED, by.actor, now)
        self._save_request(ended, AuditKind.APPROVAL_GRANTED, by.actor, now, batch)

    async def reject(self, request_id: str, by: str, reason: str) -> ApprovalRequest:
        """Anybody rejects a request, also the operator who opened it.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it has ended.
        """
        now, request = self._fleet.clock.now(), self.requests[request_id]
        if request.state_at(now) is not ApprovalState.OPEN:
            raise ApprovalNotAllowedError(f"this request is {request.state_at(now).value} already")
        batch = UnitOfWork()
        ended = request.with_decision(ApprovalState.REJECTED, by, now)
        self._save_request(ended, AuditKind.APPROVAL_REJECTED, by, now, batch, reason)
        await self._fleet.commit(batch)
        return ended

    async def dismiss(self, devices: Iterable[str], by: str, reason: str) -> Sequence[StepOutcome]:
        """Dismisses the held containments of these devices; one person is enough, since nothing is contained."""
        return await self._apply_to_each(devices, lambda event_id: ContainmentDismissed(event_id, by, reason))

    async def release(self, devices: Iterable[str], by: str, reason: str) -> Sequence[StepOutcome]:
        """Releases these devices in one commit: an isolation steps down to a restriction, a restriction ends."""
        return await self._apply_to_each(devices, lambda event_id: ReleaseOrdered(event_id, by, reason))

    async def _apply_to_each(
        self, devices: Iterable[str], event: Callable[[str], DomainEvent]
    ) -> Sequence[StepOutcome]:
        """Applies one event to each known device, in one commit; `event` makes it from its id."""
        fleet = self._fleet
        batch, now = UnitOfWork(), fleet.clock.now()
        outcomes = [
            fleet.apply(device, event(fleet.new_id()), now, batch)
            for device in map(fleet.get, devices)
            if device is not None
        ]
        await fleet.commit(batch)
        return outcomes

    def held_devices(self) -> list[Device]:
        """Devices whose containment a guard holds back, longest first, without dismissed ones."""
        held = [
            device
            for device in self._fleet.devices.values()
            if device.pending is not None and device.pending.why is not HoldReason.DISMISSED
        ]
        return sorted(held, key=lambda device: (device.pending.since if device.pending else 0.0, device.device_id))

    def remaining_allowance(self, by: Principal) -> int:
        """How many more devices this person may contain without a second one."""
        now = self._fleet.clock.now()
        start = now - self.limits.window
        used = sum(1 for at in self._charged_to(by, now).values() if at > start)
        return max(0, self.limits.most - used)

    def _check_protected(self, action: OperatorRequest) -> None:
        if self._fleet.own_id in action.devices:
            raise ProtectedDeviceError({self._fleet.own_id: "it is the client of the controller itself, always"})
        if action.even_protected:
            return
        protection = self._fleet.guards.protection
        reasons = {
            device.device_id: why
            for device in map(self._fleet.get, action.devices)
            if device is not None and (why := protection.protection_reason(device))
        }
        if reasons:
            raise ProtectedDeviceError(reasons)

    def _open_request(self, action: OperatorRequest, now: float, batch: UnitOfWork) -> ApprovalRequest:
        request = ApprovalRequest(
            self._fleet.new_id(),
            action.kind,
            action.by,
            action.reason,
            action.level,
            action.hold,
            action.devices,
            now,
            now + self.limits.expiry,
            even_protected=action.even_protected,
            kick=action.options.kick,
            clear_retained=action.options.clear_retained,
            username=action.username,
        )
        waiting = [one for one in self.requests.values() if one.state_at(now) is ApprovalState.OPEN]
        own = [one for one in waiting if one.requester.is_same_person(action.by, now)]
        if (same := next((one for one in own if one.asks_the_same(request)), None)) is not None:
            return same
        if len(waiting) >= MAX_REQUESTS:
            raise TooManyApprovalRequestsError(f"{MAX_REQUESTS} requests wait for a second person: decide those first")
        if len(own) >= MAX_REQUESTS_OF_ONE:
            text = f"{MAX_REQUESTS_OF_ONE} requests of yours wait for a second person: have those decided first"
            raise TooManyApprovalRequestsError(text)
        self._save_request(request, AuditKind.APPROVAL_REQUESTED, action.by.actor, now, batch, action.reason)
        return request

    def _save_request(
        self, request: ApprovalRequest, kind: AuditKind, by: str, now: float, batch: UnitOfWork, reason: str = ""
    ) -> None:
        self.requests[request.request_id] = request
        while len(self.requests) > MAX_KEPT_REQUESTS:
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
            **({"username": request.username} if request.username else {}),
            "reason": reason or request.reason,
        }
        batch.audit.append((now, AuditEntry(kind, "", by, "", detail, alert=kind is AuditKind.APPROVAL_REQUESTED)))

    def _apply(self, action: OperatorRequest, by: str, now: float, batch: UnitOfWork) -> list[StepOutcome]:
        fleet = self._fleet
        outcomes = []
        for device_id in action.devices:
            device = fleet.get(device_id)
            if device is None:
                continue
            event_id = fleet.new_id()
            event: ContainmentOrdered | ContainmentApproved
            if action.kind is ApprovalKind.CONTAIN:
                event = ContainmentOrdered(event_id, action.level, by, action.reason, action.hold, action.options)
            else:
                event = ContainmentApproved(event_id, by, action.reason)
            outcomes.append(fleet.apply(device, event, now, batch))
        return outcomes
