"""The devices in memory: events go through `step` in order, and what follows is committed before it takes effect."""

import heapq
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any, Final

from controller.domain.containment.deadlines import next_deadline
from controller.domain.device import REPORT_FIELDS, Device, HoldReason
from controller.domain.effects import AuditEntry
from controller.domain.events import DomainEvent, HeartbeatReceived, PostureReported
from controller.domain.evolve import evolve
from controller.domain.guards.blast_radius import BlastRadius
from controller.domain.guards.guards import ESTABLISHED, NO_GUARDS, FleetGuards
from controller.domain.guards.waivers import Waivers
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.evaluate import PolicyEvaluator
from controller.domain.policy.knowledge import KnowledgeOnDay
from controller.domain.policy.model import DevicePredicate, PolicySet
from controller.domain.record_budget import RecordBudget
from controller.domain.step import step
from controller.domain.transition import StepOutcome
from controller.ports.clock import Clock, IdGenerator
from controller.ports.store import Store, StoredReport, StoreWrites
from controller.service.own_clients import OwnClients
from controller.service.unit_of_work import CommitListener, UnitOfWork

POOL_LEDGER: Final = "pool:"  # begins the ledger of a pool of new devices
DEFAULT_MAX_DEVICES: Final = 200_000
# The fields that neither the row of a contact nor that of a report has; and the agent, by which lists are filtered.
_other_fields: Final[Callable[[Device], tuple[object, ...]]] = attrgetter(
    *(field.name for field in fields(Device) if field.name not in {"last_seen", *REPORT_FIELDS} - {"agent"})
)
_CONTACTS: Final = frozenset({PostureReported, HeartbeatReceived})


class TooManyDevicesError(Exception):
    """The fleet has as many devices as the configuration allows."""


class OwnClientError(Exception):
    """The id is that of a controller's own MQTT client, which is no device: isolating it would end containment."""

    def __init__(self) -> None:
        super().__init__("this is the client id of the controller itself, which is no device")


class FleetState:
    """The only place where device state changes; every method is called on the event loop's thread.

    Memory is ahead of the store only during a commit: nothing is acknowledged, sent or carried out before the commit
    that contains it has returned.
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
        budget: RecordBudget | None = None,
        own: OwnClients | None = None,
    ) -> None:
        """`own`: the clients of the controllers themselves."""
        self.store = store
        self.own = own or OwnClients()
        self.policies = policies
        self.language = language
        self.evaluator = PolicyEvaluator(policies, language)
        self.clock = clock
        self.devices: dict[str, Device] = {}
        self.guards = guards
        self.budget = budget or RecordBudget()
        # Devices that the blast radius holds back: their number is needed without visiting all devices.
        self._held_back: dict[str, str] = {}  # with the pool in which each waits
        self._waiting: Counter[str] = Counter()  # devices by pool
        self._predicates: tuple[DevicePredicate, ...] = policies.predicates
        self._knowledge = policies.knowledge
        self.policy_epoch: int | None = None  # of the set in force, where the store has one for several controllers
        self._ids = ids
        self._max_devices = max_devices
        self._listeners = tuple(listeners)
        # Monotonic seconds of the last contact, oldest first: finding stale devices costs nothing for the others, and
        # setting the wall clock neither makes devices stale nor hides stale ones.
        self._by_contact: OrderedDict[str, float] = OrderedDict()
        self._deadlines: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def load(self, devices: Iterable[Device]) -> None:
        """Loads the stored devices at the start; silence counts from now, since nothing was received before."""
        now = self.clock.monotonic()
        for device in sorted(devices, key=lambda device: device.last_seen):
            self.devices[device.device_id] = device
            if not device.stale:
                self._by_contact[device.device_id] = now
            self._schedule(device)
        oldest = min((device.first_seen for device in self.devices.values()), default=now)
        self._update_guards(fleet=len(self.devices), began_at=oldest)
        for device in self.devices.values():
            if _is_held_back(device):
                pool = self.guards.pool_of(device, now)
                self._held_back[device.device_id] = pool
                self._waiting[pool] += 1
        for pool, waiting in self._waiting.items():
            self._set_radius(pool, replace(self.guards.radius_of(pool), waiting=waiting))

    def load_charges(self, charges: Iterable[tuple[str, str, float]]) -> None:
        """Loads what counts against the blast radius: ledger, device and Unix seconds, oldest first."""
        for ledger, device_id, at in charges:
            pool = ledger.removeprefix(POOL_LEDGER)
            radius = self.guards.radius_of(pool)
            self._set_radius(pool, replace(radius, charged={**radius.charged, device_id: at}))

    def set_guards(
        self, *, waivers: Waivers | None = None, predicates: tuple[DevicePredicate, ...] | None = None
    ) -> None:
        """Replaces waivers or predicates; with other predicates a device is evaluated again at its next message."""
        if waivers is not None:
            self._update_guards(waivers=waivers)
        if predicates is not None:
            self._predicates = predicates
        self.set_policies(self.policies)

    def set_knowledge(self, knowledge: KnowledgeOnDay) -> None:
        """Replaces the knowledge; if a rule rests on it, a device is evaluated again at its next message."""
        self._knowledge = knowledge
        self.set_policies(self.policies)

    def set_policies(self, policies: PolicySet) -> None:
        """Puts policies in force; a device is evaluated again at its next message."""
        self.policies = policies.with_predicates(self._predicates).with_knowledge(self._knowledge)
        if self.policies is not self.evaluator.policies:
            self.evaluator = PolicyEvaluator(self.policies, self.language)
        for device in self.devices.values():
            if device.rules or device.case or device.commands:
                self._schedule(device)

    def new_id(self) -> str:
        """The id of a new event."""
        return self._ids.new(self.clock.now())

    def get(self, device_id: str) -> Device | None:
        return self.devices.get(device_id)

    @property
    def is_full(self) -> bool:
        """Whether no further device has room."""
        return len(self.devices) >= self._max_devices

    def get_or_new(self, device_id: str, now: float) -> Device:
        """The device, or a new one that was first seen `now`.

        Raises:
            TooManyDevicesError: it would be one device too many.
            OwnClientError: it is the controller's own client.
        """
        if device_id in self.own.ids:
            raise OwnClientError
        device = self.devices.get(device_id)
        if device is None:
            if self.is_full:
                raise TooManyDevicesError(f"{self._max_devices} devices are known already")
            device = Device(device_id, first_seen=now, last_seen=now)
        return device

    def apply(
        self, device: Device, event: DomainEvent, now: float, batch: UnitOfWork, report: bytes | None = None
    ) -> StepOutcome:
        """Steps `device` and adds to `batch` what must be stored; the caller commits the batch.

        `report` is the full report of a `PostureReported`; it is stored if it was accepted and differs from the last.
        """
        if device.device_id not in self.devices:
            began_at = self.guards.began_at if self.devices else device.first_seen
            self._update_guards(fleet=len(self.devices) + 1, began_at=began_at)
        outcome = step(device, event, now, self.policies, self.guards)
        after = outcome.device
        if outcome.charge is not None or after.pending is not device.pending:
            self._charge(self.guards.pool_of(device, now), outcome, now, batch)
        batch.add(outcome, self.budget.admit(outcome.audit, now) if outcome.audit else (), now)
        device_id = after.device_id
        if after is not device:
            self.devices[device_id] = after
            self._collect(device, after, batch, report)
            is_contact = type(event) in _CONTACTS or after.stale is not device.stale
            if is_contact or device_id not in self._by_contact:
                self._record_contact(after)
            if after.rules or after.case or after.commands or device_id in self._deadlines:
                self._schedule(after)
        return outcome

    def _collect(self, before: Device, after: Device, batch: UnitOfWork, report: bytes | None) -> None:
        device_id = after.device_id
        is_stored = report is not None and after.accepted != before.accepted and after.digest != before.digest
        if is_stored and report is not None:
            batch.reports[device_id] = StoredReport(after, report)
        if device_id in batch.devices or not before.accepted or _other_fields(after) != _other_fields(before):
            batch.devices[device_id] = after
        elif not is_stored:
            batch.seen[device_id] = after

    def record_contact(self, device: Device, at: float, batch: UnitOfWork, seq: int | None = None) -> None:
        """Records a message that changes nothing but the time of contact, without a step; `seq` is its report's."""
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
        self._record_contact(after)

    async def commit(self, batch: UnitOfWork, write: Callable[[StoreWrites], Awaitable[None]] | None = None) -> None:
        """Commits the batch and calls the listeners; `write` stores the batch together with something else."""
        committing = self.enqueue_commit(batch) if write is None else write(batch.to_writes())
        if committing is not None:
            await committing
        self.publish_committed(batch)

    def enqueue_commit(self, batch: UnitOfWork) -> Awaitable[None] | None:
        """Enqueues the batch, in the order of the decisions; await the result before `publish_committed`."""
        return None if batch.is_empty else self.store.commit(batch.to_writes())

    def follow(self, listener: CommitListener) -> None:
        """Calls `listener` after each commit from now on."""
        self._listeners = (*self._listeners, listener)

    def unfollow(self, listener: CommitListener) -> None:
        """Undoes `follow`."""
        self._listeners = tuple(one for one in self._listeners if one is not listener)

    def publish_committed(self, batch: UnitOfWork) -> None:
        """Calls the listeners once the batch is durable: from now on its effects may be carried out."""
        for listener in self._listeners:
            listener.on_commit(batch)

    async def apply_and_commit(self, device_id: str, event: DomainEvent, *, done: tuple[str, ...] = ()) -> StepOutcome:
        """Applies one event and commits it; `done` are ids of the effects that it ends.

        Raises:
            TooManyDevicesError: it would be one device too many.
        """
        now = self.clock.now()
        batch = UnitOfWork(done=list(done))
        # A controller that an earlier version took for a device is known, and has to be released.
        outcome = self.apply(self.devices.get(device_id) or self.get_or_new(device_id, now), event, now, batch)
        await self.commit(batch)
        return outcome

    async def record(self, *entries: AuditEntry) -> None:
        """Commits audit entries that follow from no event."""
        now = self.clock.now()
        await self.commit(UnitOfWork(audit=[(now, entry) for entry in self.budget.admit(entries, now)]))

    async def discard_effects(self, effect_ids: tuple[str, ...]) -> None:
        """Removes effects that were carried out without an event, or are superseded."""
        await self.store.commit(StoreWrites(done=effect_ids))

    def stale_candidates(self, seconds: float, most: int) -> list[tuple[Device, float]]:
        """Devices without contact for more than `seconds` that are not stale yet, with their silence; longest first."""
        now = self.clock.monotonic()
        silent: list[tuple[Device, float]] = []
        for device_id, at in self._by_contact.items():
            if now - at <= seconds or len(silent) >= most:
                break
            silent.append((self.devices[device_id], now - at))
        return silent

    def due_devices(self, now: float, most: int) -> list[Device]:
        """At most `most` devices whose deadline has passed; each is returned once until its next step."""
        due: list[Device] = []
        while self._heap and self._heap[0][0] <= now and len(due) < most:
            at, device_id = heapq.heappop(self._heap)
            if self._deadlines.get(device_id) == at:
                del self._deadlines[device_id]
                due.append(self.devices[device_id])
        return due

    def _update_guards(self, **changes: Any) -> None:
        self.guards = evolve(self.guards, **changes)

    def _charge(self, pool: str, outcome: StepOutcome, now: float, batch: UnitOfWork) -> None:
        """Charges or refunds the blast radius as the step decided, in the same commit."""
        device_id = outcome.device.device_id
        if outcome.charge:
            self._set_charge(pool, device_id, now, batch)
        elif outcome.charge is not None:
            for charged in (ESTABLISHED, *self.guards.pools):  # it may have been charged in an earlier pool
                self._set_charge(charged, device_id, None, batch)
        former = self._held_back.pop(device_id, None)
        if former is not None:
            self._waiting[former] -= 1
        if _is_held_back(outcome.device):
            self._held_back[device_id] = pool
            self._waiting[pool] += 1
        for changed in {pool if former is None else former, pool}:
            self._set_radius(changed, replace(self.guards.radius_of(changed), waiting=self._waiting[changed]))

    def _set_charge(self, pool: str, device_id: str, at: float | None, batch: UnitOfWork) -> None:
        before = self.guards.radius_of(pool)
        after = before.refund(device_id) if at is None else before.charge(device_id, at)
        if after is not before:
            self._set_radius(pool, after)
            batch.charges[f"{POOL_LEDGER}{pool}" if pool else "", device_id] = at

    def _set_radius(self, pool: str, radius: BlastRadius) -> None:
        if pool == ESTABLISHED:
            self._update_guards(radius=radius)
        elif radius.charged or radius.waiting:
            self._update_guards(pools={**self.guards.pools, pool: radius})
        elif pool in self.guards.pools:
            self._update_guards(pools={name: one for name, one in self.guards.pools.items() if name != pool})

    def _record_contact(self, device: Device) -> None:
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


def _is_held_back(device: Device) -> bool:
    return device.pending is not None and device.pending.why is HoldReason.BLAST_RADIUS
