"""Operator actions under the guards: containments, approvals and dismissals, with a second person where required."""

import contextlib
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.domain.device import Device, HoldReason
from controller.domain.effects import NO_OPTIONS, ContainmentOptions
from controller.domain.events import (
    ContainmentApproved,
    ContainmentDismissed,
    ContainmentOrdered,
    DomainEvent,
    ReleaseOrdered,
)
from controller.domain.guards.approvals import ApprovalKind, ApprovalRequest, is_within_operator_limit
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.domain.transition import StepOutcome
from controller.ports.errors import ControllerError
from controller.ports.fleet_queries import MAX_PAGE, DeviceFilter
from controller.ports.store import GuardSnapshot
from controller.service.approvals.book import ApprovalBook
from controller.service.fleet_state import FleetState, TooManyDevicesError
from controller.service.unit_of_work import UnitOfWork


class ProtectedDeviceError(ControllerError):
    """The action would contain protected devices, and `even_protected` was not given."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        named = "; ".join(f"{device}: {why}" for device, why in list(self.reasons.items())[:5])
        super().__init__(f"{len(self.reasons)} of these devices are protected ({named}): say that you mean them too")


@dataclass(frozen=True, slots=True)
class OperatorLimits:
    """One person alone contains at most `most` devices within `window` seconds; requests expire after `expiry`."""

    most: int = 10
    window: float = 3600.0
    expiry: float = 86_400.0


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """An operator's action on some devices; the fields are those of `ApprovalRequest`."""

    kind: ApprovalKind
    devices: tuple[str, ...]
    by: Principal
    reason: str
    level: ContainmentLevel = ContainmentLevel.RESTRICTED
    hold: float | None = None
    even_protected: bool = False
    options: ContainmentOptions = NO_OPTIONS
    username: str = ""
    serials: tuple[str, ...] = ()
    word: str = ""


@dataclass(frozen=True, slots=True)
class HeldDevices:
    """How many devices the guards hold back, and the first ones of a page."""

    total: int
    first: Sequence[Device]


class OperatorActions:
    """The operator decisions that may need a second person. Called on the event loop's thread."""

    def __init__(self, fleet: FleetState, limits: OperatorLimits, book: ApprovalBook) -> None:
        self._fleet = fleet
        self.limits = limits
        self._book = book
        # By key of a principal: the devices contained without a second person, with Unix seconds. They count for the
        # makers of a token too, so that a fresh token has no fresh allowance.
        self._charged: dict[str, dict[str, float]] = {}

    def load(self, snapshot: GuardSnapshot) -> None:
        """Loads charges at the start."""
        for ledger, device, at in snapshot.charges:
            if ledger:
                self._charged.setdefault(ledger, {})[device] = at

    async def decide(self, action: OperatorRequest) -> Sequence[StepOutcome] | ApprovalRequest:
        """Applies the action, or opens an approval request where a second person is required.

        Raises:
            ProtectedDeviceError: some of the devices are protected, and `even_protected` was not given.
            TooManyApprovalRequestsError: too many requests are open.
        """

        def decide(now: float, batch: UnitOfWork) -> Sequence[StepOutcome] | ApprovalRequest:
            self._check_protected(action.devices, even_protected=action.even_protected)
            if not self._charge(action.by, action.devices, now, batch):
                return self._open_request(action, now, batch)
            return self._apply(_asking(action), action.by.actor, now, batch)

        return await self._fleet.decide(action.devices, decide)

    async def charge(self, action: OperatorRequest) -> ApprovalRequest | None:
        """Charges what the caller carries out, or opens an approval request where it is more than one person's.

        The sessions of a user, or the devices of certificates.

        Raises:
            ProtectedDeviceError: a device is protected, and `even_protected` was not given.
            TooManyApprovalRequestsError: too many requests are open.
        """

        def decide(now: float, batch: UnitOfWork) -> ApprovalRequest | None:
            names = action.devices
            if action.kind is ApprovalKind.REVOKE:  # what is isolated already stays so
                names = tuple(name for name in names if (found := self._fleet.get(name)) is None or found.case is None)
            self._check_protected(names, even_protected=action.even_protected)
            counted = action.devices or (f"user:{action.username}",)
            return None if self._charge(action.by, counted, now, batch) else self._open_request(action, now, batch)

        return await self._fleet.decide(action.devices, decide)

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

    def apply_approved(
        self, request: ApprovalRequest, by: Principal, now: float, batch: UnitOfWork
    ) -> Sequence[StepOutcome]:
        """Adds what a second person has approved to `batch`, for all devices of the request."""
        return self._apply(request, f"{request.by} with {by.actor}", now, batch)

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
        fleet, ids = self._fleet, tuple(devices)

        def decide(now: float, batch: UnitOfWork) -> Sequence[StepOutcome]:
            return [
                fleet.apply(device, event(fleet.new_id()), now, batch)
                for device in map(fleet.get, ids)
                if device is not None
            ]

        return await fleet.decide(ids, decide)

    async def held_devices(
        self, most: int, *, after: tuple[float, str] = (0.0, ""), why: HoldReason | None = None
    ) -> HeldDevices:
        """Devices whose containment a guard holds back, longest first, without dismissed ones.

        `after`: the place of the last one of the page before. `why`: only these are returned, all are counted.
        """
        total, first, new = 0, list[Device](), list[Device]()
        async for device in self._fleet.select(DeviceFilter(pending=True)):
            if not is_held(device):
                continue
            total += 1
            if place_of_held(device) > after and (why is None or (device.pending and device.pending.why is why)):
                new.append(device)
            if len(new) >= MAX_PAGE:
                first, new = heapq.nsmallest(most, (*first, *new), key=place_of_held), []
        return HeldDevices(total, heapq.nsmallest(most, (*first, *new), key=place_of_held))

    def remaining_allowance(self, by: Principal) -> int:
        """How many more devices this person may contain without a second one."""
        now = self._fleet.clock.now()
        start = now - self.limits.window
        used = sum(1 for at in self._charged_to(by, now).values() if at > start)
        return max(0, self.limits.most - used)

    async def check_protected(self, devices: Sequence[str], *, even_protected: bool) -> None:
        """Checks that none of these is protected, or that protected ones are meant (`ProtectedDeviceError`)."""
        await self._fleet.load(devices, fresh=True)
        self._check_protected(devices, even_protected=even_protected)

    def _check_protected(self, devices: Sequence[str], *, even_protected: bool) -> None:
        if own := self._fleet.own.among(devices):
            raise ProtectedDeviceError(dict.fromkeys(own, "it is the client of the controller itself, always"))
        if even_protected:
            return
        protection = self._fleet.guards.protection
        reasons = {
            device.device_id: why
            for device in map(self._fleet.get, devices)
            if device is not None and (why := protection.protection_reason(device))
        }
        if reasons:
            raise ProtectedDeviceError(reasons)

    def _open_request(self, action: OperatorRequest, now: float, batch: UnitOfWork) -> ApprovalRequest:
        request = _asking(action, self._fleet.new_id(), now, now + self.limits.expiry)
        return self._book.add(request, now, batch)

    def _apply(self, asked: ApprovalRequest, by: str, now: float, batch: UnitOfWork) -> list[StepOutcome]:
        fleet = self._fleet
        options = ContainmentOptions(kick=asked.kick, clear_retained=asked.clear_retained)
        outcomes = []
        for device_id in asked.devices:
            event_id = fleet.new_id()
            event: ContainmentOrdered | ContainmentApproved
            if asked.kind is ApprovalKind.CONTAIN:
                event = ContainmentOrdered(event_id, asked.level, by, asked.reason, asked.hold, options)
            else:
                event = ContainmentApproved(event_id, by, asked.reason)
            with contextlib.suppress(TooManyDevicesError):  # of a device that has never reported
                outcomes.append(fleet.apply(fleet.get_or_new(device_id, now), event, now, batch))
        return outcomes


def is_held(device: Device) -> bool:
    """Whether a containment of the device waits for an operator."""
    return device.pending is not None and device.pending.why is not HoldReason.DISMISSED


def place_of_held(device: Device) -> tuple[float, str]:
    """The device's place among those that wait: since when, and its id."""
    return device.pending.since if device.pending else 0.0, device.device_id


def _asking(action: OperatorRequest, request_id: str = "", now: float = 0.0, end: float = 0.0) -> ApprovalRequest:
    return ApprovalRequest(
        request_id,
        action.kind,
        action.by,
        action.reason,
        action.level,
        action.hold,
        action.devices,
        now,
        end,
        even_protected=action.even_protected,
        kick=action.options.kick,
        clear_retained=action.options.clear_retained,
        username=action.username,
        serials=action.serials,
        word=action.word,
    )
