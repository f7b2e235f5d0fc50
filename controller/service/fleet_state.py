"""Holds every device's state in memory, takes events through `step` in order, and keeps what follows durable."""

import heapq
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, Final

from controller.domain.containment.deadlines import next_deadline
from controller.domain.device import REPORT_FIELDS, Device, HoldReason
from controller.domain.effects import AuditEntry
from controller.domain.events import DomainEvent, HeartbeatReceived, PostureReported
from controller.domain.evolve import evolve
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.guards.waivers import Waivers
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.evaluate import PolicyEvaluator
from controller.domain.policy.model import DevicePredicate, PolicySet
from controller.domain.step import step
from controller.domain.transition import StepOutcome
from controller.ports.clock import Clock, IdGenerator
from controller.ports.store import Store, StoredReport, StoreWrites
from controller.service.unit_of_work import CommitListener, UnitOfWork

DEFAULT_MAX_DEVICES: Final = 200_000
# Whatever a row of a contact or of a report does not tell.
_apart: Final[Callable[[Device], tuple[object, ...]]] = attrgetter(
    *(one.name for one in fields(Device) if one.name not in {"last_seen", *REPORT_FIELDS})
)
_CONTACTS: Final = frozenset({PostureReported, HeartbeatReceived})


class TooManyDevicesError(Exception):
    """The fleet is as large as this controller was told to serve."""


class FleetState:
    """The one place where device state changes; every method is called on the event loop's thread.

    Memory runs ahead of the store only while a commit is under way: nothing is acknowledged, sent or carried out
    before the commit that holds it returned.
    """

    def __init__(
        self,
        store: Store,
        policies: PolicySet,
        language: CelEnvironment,
        clock: Clock,
        ids: IdGenerator,
        listeners: Sequence[CommitListener],
        max_devices: int = DEFAULT_MAX_DEVICES,
        guards: FleetGuards = NO_GUARDS,
    ) -> None:
        self.store = store
        self.policies = policies
        self.language = language
        self.judge = PolicyEvaluator(policies, language)
        self.clock = clock
        self.devices: dict[str, Device] = {}
        self.guards = guards
        # Devices whose containment waits because of the blast radius: counted without looking at all of them.
        self._waiting: set[str] = set()
        self._marks: tuple[DevicePredicate, ...] = policies.predicates
        self._ids = ids
        self._max_devices = max_devices
        self._listeners = tuple(listeners)
        # Monotonic seconds of the last contact, oldest first: finding silent devices costs nothing for the others, and
        # a wall clock that is set makes nobody silent and hides nobody who is.
        self._by_contact: OrderedDict[str, float] = OrderedDict()
        self._deadlines: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def load(self, devices: Iterable[Device]) -> None:
        """Take up what the store holds, at the start; silence counts from now, since nobody listened before."""
        now = self.clock.monotonic()
        for device in sorted(devices, key=lambda one: one.last_seen):
            self.devices[device.device_id] = device
            if not device.stale:
                self._by_contact[device.device_id] = now
            if _waits(device):
                self._waiting.add(device.device_id)
            self._schedule(device)
        self._guard(fleet=len(self.devices), radius=replace(self.guards.radius, waiting=len(self._waiting)))

    def take_charges(self, charges: Iterable[tuple[str, float]]) -> None:
        """What counts against the blast radius, at the start: device and Unix seconds, oldest first."""
        self._guard(radius=replace(self.guards.radius, charged=dict(charges)))

    def use_guards(self, *, waivers: Waivers | None = None, marks: tuple[DevicePredicate, ...] | None = None) -> None:
        """Other exceptions from now on. With other marks devices are judged again, with their next word."""
        if waivers is not None:
            self._guard(waivers=waivers)
        if marks is not None:
            self._marks = marks
        self.use(self.policies)

    def use(self, policies: PolicySet) -> None:
        """Judge by these from now on; a device is judged again with its next word."""
        self.policies = policies.with_predicates(self._marks)
        if self.policies is not self.judge.policies:
            self.judge = PolicyEvaluator(self.policies, self.language)
        for device in self.devices.values():
            if device.rules or device.case or device.commands:
                self._schedule(device)

    def new_id(self) -> str:
        """For the next event."""
        return self._ids.new(self.clock.now())

    def get(self, device_id: str) -> Device | None:
        """The device as it is now."""
        return self.devices.get(device_id)

    def get_or_new(self, device_id: str, now: float) -> Device:
        """The device, or a new one that was first seen `now`.

        Raises:
            TooManyDevicesError: there is no room for another.
        """
        device = self.devices.get(device_id)
        if device is None:
            if len(self.devices) >= self._max_devices:
                raise TooManyDevicesError(f"{self._max_devices} devices are known already")
            device = Device(device_id, first_seen=now, last_seen=now)
        return device

    def apply(
        self, device: Device, event: DomainEvent, now: float, batch: UnitOfWork, report: bytes | None = None
    ) -> StepOutcome:
        """Step `device` and note in `batch` what has to be kept; the caller commits the batch.

        `report` is the full report behind a `PostureReported`; it is kept if it was accepted and is another one.
        """
        if device.device_id not in self.devices:
            self._guard(fleet=len(self.devices) + 1)
        outcome = step(device, event, now, self.policies, self.guards)
        after = outcome.device
        if outcome.charge is not None or after.pending is not device.pending:
            self._account(outcome, now, batch)
        batch.add(outcome, now)
        device_id = after.device_id
        if after is not device:
            self.devices[device_id] = after
            self._note(device, after, batch, report)
            moved = type(event) in _CONTACTS or after.stale is not device.stale
            if moved or device_id not in self._by_contact:
                self._contact(after)
            if after.rules or after.case or after.commands or device_id in self._deadlines:
                self._schedule(after)
        return outcome

    def _note(self, before: Device, after: Device, batch: UnitOfWork, report: bytes | None) -> None:
        device_id = after.device_id
        is_kept = report is not None and after.accepted != before.accepted and after.digest != before.digest
        if is_kept and report is not None:
            batch.reports[device_id] = StoredReport(after, report)
        if device_id in batch.devices or not before.accepted or _apart(after) != _apart(before):
            batch.devices[device_id] = after
        elif not is_kept:
            batch.seen[device_id] = after

    def touch(self, device: Device, at: float, batch: UnitOfWork, seq: int | None = None) -> None:
        """Contact at `at` with a device about which nothing changed (`is_quiet`), without stepping it.

        `seq`: of the report it came with.
        """
        last_seen = max(at, device.last_seen)
        if seq is None:
            after = evolve(device, last_seen=last_seen)
        else:
            after = evolve(device, last_seen=last_seen, report_seq=seq, reported_at=at, accepted=device.accepted + 1)
        device_id = device.device_id
        self.devices[device_id] = after
        batch.seen[device_id] = after
        if device_id in batch.devices:
            batch.devices[device_id] = after
        self._contact(after)

    async def commit(self, batch: UnitOfWork, beside: Callable[[StoreWrites], Awaitable[None]] | None = None) -> None:
        """Keep the batch, then hand its effects on; `beside` keeps it together with something else."""
        kept = self.submit(batch) if beside is None else beside(batch.writes())
        if kept is not None:
            await kept
        self.hand_on(batch)

    def submit(self, batch: UnitOfWork) -> Awaitable[None] | None:
        """Queue the batch, in the order of the decisions; what is returned is awaited before `hand_on`."""
        return None if batch.is_empty else self.store.commit(batch.writes())

    def hand_on(self, batch: UnitOfWork) -> None:
        """The batch is on disk: every listener hears of it, and effects may be carried out."""
        for listener in self._listeners:
            listener.on_commit(batch)

    async def handle(self, device_id: str, event: DomainEvent, *, done: tuple[str, ...] = ()) -> StepOutcome:
        """One event, kept before this returns; `done` are effects that it ends.

        Raises:
            TooManyDevicesError: it would be one device too many.
        """
        now = self.clock.now()
        batch = UnitOfWork(done=list(done))
        outcome = self.apply(self.get_or_new(device_id, now), event, now, batch)
        await self.commit(batch)
        return outcome

    async def record(self, *entries: AuditEntry) -> None:
        """Commits audit entries that follow from no event, and tells the listeners."""
        now = self.clock.now()
        await self.commit(UnitOfWork(audit=[(now, entry) for entry in entries]))

    async def drop_effects(self, effect_ids: tuple[str, ...]) -> None:
        """These need nothing more: carried out without news, or overtaken."""
        await self.store.commit(StoreWrites(done=effect_ids))

    def silent_for(self, seconds: float, most: int) -> list[tuple[Device, float]]:
        """Devices not heard of for more than `seconds` and not stale yet, and for how long; longest silence first."""
        now = self.clock.monotonic()
        found: list[tuple[Device, float]] = []
        for device_id, at in self._by_contact.items():
            if now - at <= seconds or len(found) >= most:
                break
            found.append((self.devices[device_id], now - at))
        return found

    def due(self, now: float, most: int) -> list[Device]:
        """Devices whose deadline has come, at most `most`; each is given once until it is stepped again."""
        found: list[Device] = []
        while self._heap and self._heap[0][0] <= now and len(found) < most:
            at, device_id = heapq.heappop(self._heap)
            if self._deadlines.get(device_id) == at:
                del self._deadlines[device_id]
                found.append(self.devices[device_id])
        return found

    def _guard(self, **changes: Any) -> None:
        self.guards = evolve(self.guards, **changes)

    def _account(self, outcome: StepOutcome, now: float, batch: UnitOfWork) -> None:
        """Bring the fleet's budget to what a step decided, in the same commit."""
        device, radius = outcome.device, self.guards.radius
        if outcome.charge is not None:
            radius = radius.charge(device.device_id, now) if outcome.charge else radius.refund(device.device_id)
            if radius is not self.guards.radius:
                batch.charges["", device.device_id] = now if outcome.charge else None
        if _waits(device):
            self._waiting.add(device.device_id)
        else:
            self._waiting.discard(device.device_id)
        self._guard(radius=replace(radius, waiting=len(self._waiting)))

    def _contact(self, device: Device) -> None:
        if device.stale:
            self._by_contact.pop(device.device_id, None)
        else:
            self._by_contact[device.device_id] = self.clock.monotonic()
            self._by_contact.move_to_end(device.device_id)

    def _schedule(self, device: Device) -> None:
        at = next_deadline(device, self.policies, self.guards, self.clock.now())
        if at is None:
            self._deadlines.pop(device.device_id, None)
        elif self._deadlines.get(device.device_id) != at:
            self._deadlines[device.device_id] = at
            heapq.heappush(self._heap, (at, device.device_id))


def _waits(device: Device) -> bool:
    return device.pending is not None and device.pending.why is HoldReason.BLAST_RADIUS
