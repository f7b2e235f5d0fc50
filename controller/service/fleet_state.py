"""The state of the fleet: events go through `step` in order, and what follows is committed before it takes effect."""

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from typing import Final, TypeVar

from controller.domain.containment.deadlines import next_deadline
from controller.domain.device import REPORT_FIELDS, Device
from controller.domain.effects import AuditEntry
from controller.domain.events import CertificateRevoked, DeadlineReached, DomainEvent
from controller.domain.evolve import evolve
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.guards.waivers import Waivers
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.evaluate import PolicyEvaluator
from controller.domain.policy.knowledge import KnowledgeOnDay
from controller.domain.policy.model import DevicePredicate, PolicySet
from controller.domain.record_budget import RecordBudget
from controller.domain.reports import last_contact
from controller.domain.step import step
from controller.domain.transition import StepOutcome
from controller.ports.clock import Clock, IdGenerator
from controller.ports.errors import ConflictError, ControllerError
from controller.ports.fleet_queries import FleetQueries
from controller.ports.log import Log
from controller.ports.store import Store, StoredReport, StoreWrites
from controller.service.conflicts import MAY_GIVE_UP, MOST_ATTEMPTS, pause
from controller.service.device_cache import DeviceCache
from controller.service.fleet_reads import FleetReads
from controller.service.guards_in_force import GuardsInForce, is_held_back
from controller.service.own_clients import OwnClients
from controller.service.unit_of_work import CommitListener, RefusalListener, UnitOfWork

T = TypeVar("T")
DEFAULT_MAX_DEVICES: Final = 200_000
# The fields that neither the row of a contact nor that of a report has; and the agent, by which lists are filtered.
_other_fields: Final[Callable[[Device], tuple[object, ...]]] = attrgetter(
    *(field.name for field in fields(Device) if field.name not in {"last_seen", *REPORT_FIELDS} - {"agent"})
)


class TooManyDevicesError(Exception):
    """The fleet has as many devices as the configuration allows."""


class OwnClientError(Exception):
    """The id is that of a controller's own MQTT client, which is no device: isolating it would end containment."""

    def __init__(self) -> None:
        super().__init__("this is the client id of the controller itself, which is no device")


class FleetState(FleetReads):
    """The only place where device state changes; every method is called on the event loop's thread.

    A device is loaded (`load`, `find`) before it is read or decided about. Memory is ahead of the store only during a
    commit: nothing is acknowledged, sent or carried out before the commit that contains it has returned. Where
    controllers share the store, a commit may be refused (`ConflictError`): it is decided again (`decide`).
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
        *,
        queries: FleetQueries,
        cache: DeviceCache | None = None,
        writer: int = 0,
        log: Log | None = None,
    ) -> None:
        """`own`: the clients of the controllers themselves. Call `start` first.

        `writer`: the number of this run of a controller; versions that it gives are told from those of others by it.
        """
        super().__init__(store, DeviceCache(store) if cache is None else cache, queries, policies, clock)
        self.own = own or OwnClients()
        self.language = language
        self.evaluator = PolicyEvaluator(policies, language)
        self._numbers = itertools.count((writer << 40) + 1)
        self.held = GuardsInForce(guards, lambda: next(self._numbers))
        self.budget = budget or RecordBudget()
        # Called once policies of a later epoch have been put in force by another controller.
        self.load_policies: Callable[[], Awaitable[None]] | None = None
        self._predicates: tuple[DevicePredicate, ...] = policies.predicates
        self._knowledge = policies.knowledge
        self.policy_epoch: int | None = None  # of the set in force, where the store has one for several controllers
        self._ids = ids
        self._log = log
        self._max_devices = max_devices
        self._listeners = tuple(listeners)
        self._deadlines: dict[str, float | None] = {}  # as in the rows, of devices in memory that were decided about
        self.cache.on_dropped(self._forget_deadline)

    @property
    def guards(self) -> FleetGuards:
        """The guards in force."""
        return self.held.guards

    async def start(self) -> None:
        """Reads how many devices there are, and what counts against the guards."""
        await self.count()
        self.held.load(await self.store.guard_books(), self.clock.now())

    async def count(self) -> None:
        """Reads how many devices there are: a limit in percent of the fleet counts those that others know, too."""
        self.held.counted_at = self.clock.monotonic() if self.cache.is_shared else math.inf
        size, now = await self.store.fleet_size(), self.clock.now()
        self.held.update(fleet=size.devices, began_at=now if size.began_at is None else size.began_at)

    async def read_radius(self) -> None:
        """Reads who is contained and who waits: other controllers contain devices, too."""
        self.held.load_radius(await self.store.guard_books(), self.clock.now())

    def set_guards(
        self, *, waivers: Waivers | None = None, predicates: tuple[DevicePredicate, ...] | None = None
    ) -> None:
        """Replaces waivers or predicates; with other predicates a device is evaluated again at its next message."""
        if waivers is not None:
            self.held.update(waivers=waivers)
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

    def new_id(self) -> str:
        """The id of a new event."""
        return self._ids.new(self.clock.now())

    @property
    def size(self) -> int:
        """How many devices are known."""
        return self.guards.fleet

    @property
    def is_full(self) -> bool:
        """Whether no further device has room."""
        return self.size >= self._max_devices

    def get_or_new(self, device_id: str, now: float) -> Device:
        """The loaded device, or a new one that was first seen `now`.

        Raises:
            TooManyDevicesError: it would be one device too many.
            OwnClientError: it is the controller's own client.
        """
        if device_id in self.own.ids:
            raise OwnClientError
        device = self.get(device_id)
        if device is None:
            if self.is_full:
                raise TooManyDevicesError(f"{self._max_devices} devices are known already")
            device = Device(device_id, first_seen=now, last_seen=now)
        return device

    def known_or_new(self, device_id: str, now: float) -> Device:
        """As `get_or_new`; a controller that an earlier version took for a device is known, and has to be released."""
        return self.get(device_id) or self.get_or_new(device_id, now)

    def apply(
        self, device: Device, event: DomainEvent, now: float, batch: UnitOfWork, report: bytes | None = None
    ) -> StepOutcome:
        """Steps `device` and adds to `batch` what must be stored; the caller commits the batch.

        `report` is the full report of a `PostureReported`; it is stored if it was accepted and differs from the last.
        """
        device_id, before = device.device_id, self.guards
        is_new = self.cache.peek(device_id) is None
        if is_new:
            began_at = before.began_at if before.fleet else device.first_seen
            self.held.update(fleet=before.fleet + 1, began_at=began_at)
        outcome = step(device, event, now, self.policies, self.guards)
        after = outcome.device
        if is_new and after is device:
            self.held.update(fleet=before.fleet, began_at=before.began_at)
        is_moved = after.pending is not device.pending or after.enrolled_with != device.enrolled_with
        if is_moved or outcome.charge is not None:
            is_admitted = type(event) is not CertificateRevoked
            self.held.charge(device, outcome, now, batch, is_admitted=is_admitted)
        batch.add(outcome, self.budget.admit(outcome.audit, now) if outcome.audit else (), now)
        if after is not device:
            self.cache.put(after)
            self._collect(device, after, batch, report)
        if after.rules or after.case or after.commands or device_id in self._deadlines:
            self._schedule(device, after, event, now, batch)
        if after.pending is not None and device_id in batch.devices and is_held_back(after):
            batch.waits_in[device_id] = self.guards.pool_of(after, now)
        elif batch.waits_in:
            batch.waits_in.pop(device_id, None)
        return outcome

    def _collect(self, before: Device, after: Device, batch: UnitOfWork, report: bytes | None) -> None:
        device_id = after.device_id
        is_stored = report is not None and after.accepted != before.accepted and after.digest != before.digest
        if is_stored and report is not None:
            batch.reports[device_id] = StoredReport(after, report)
            self._give_version(device_id, batch)
        if device_id in batch.devices or not before.accepted or _other_fields(after) != _other_fields(before):
            batch.devices[device_id] = after
            self._give_version(device_id, batch)
        elif not is_stored:
            batch.seen[device_id] = after

    def _give_version(self, device_id: str, batch: UnitOfWork) -> None:
        """Gives the decision about a device a number, by which others see that it was made."""
        if self.cache.is_shared and device_id not in batch.versions:
            before, after = self.cache.versions.get(device_id, 0), next(self._numbers)
            batch.versions[device_id] = before, after
            self.cache.versions[device_id] = after

    def record_contact(self, device: Device, at: float, batch: UnitOfWork, seq: int | None = None) -> None:
        """Records a message that changes nothing but the time of contact, without a step; `seq` is its report's."""
        last_seen = last_contact(device, at)
        if seq is None:
            after = evolve(device, last_seen=last_seen)
        else:
            after = evolve(device, last_seen=last_seen, report_seq=seq, reported_at=at, accepted=device.accepted + 1)
        device_id = device.device_id
        self.cache.put(after)
        batch.seen[device_id] = after
        if device_id in batch.devices:
            batch.devices[device_id] = after

    async def commit(self, batch: UnitOfWork, write: Callable[[StoreWrites], Awaitable[None]] | None = None) -> None:
        """Commits the batch and calls the listeners; `write` stores the batch together with something else.

        Raises:
            ConflictError: another controller changed what was decided on; nothing holds, in memory neither.
        """
        if write is None and batch.is_empty:
            self.publish_committed(batch)
            return
        writes = self._writes_of(batch)
        self.cache.under_way[batch] = None
        try:
            self.held.check_count(batch, self.clock.monotonic())
            await (self.store.commit(writes) if write is None else write(writes))
        except ConflictError as conflict:
            await self.recover(batch, conflict)
            raise
        except BaseException:
            self.cache.under_way.pop(batch, None)
            raise
        self.publish_committed(batch)

    def enqueue_commit(self, batch: UnitOfWork) -> Awaitable[None] | None:
        """Enqueues the batch, in the order of the decisions; await the result before `publish_committed`."""
        if batch.is_empty:
            return None
        try:
            self.held.check_count(batch, self.clock.monotonic())
            committing = self.store.commit(self._writes_of(batch))
        except ConflictError as conflict:
            committing = asyncio.get_running_loop().create_future()
            committing.set_exception(conflict)
        self.cache.under_way[batch] = None
        return committing

    def _writes_of(self, batch: UnitOfWork) -> StoreWrites:
        if self.cache.is_shared:
            versions = self.cache.versions
            for device_id in (*batch.seen, *batch.checked):
                if device_id not in batch.versions:
                    batch.versions[device_id] = versions[device_id], versions[device_id]
            batch.policy_epoch = self.policy_epoch if batch.versions else None
        return batch.to_writes()

    async def recover(self, batch: UnitOfWork, conflict: ConflictError) -> None:
        """Undoes in memory what was decided in a batch that was refused, and reads again what others changed."""
        self.cache.under_way.pop(batch, None)
        self.cache.outdate({*conflict.devices, *batch.devices, *batch.seen, *batch.reports})
        self.budget.undo(entry for _, entry in batch.audit)
        for listener in self._listeners:
            if isinstance(listener, RefusalListener):
                listener.undo(batch)
        new = sum(1 for before, _ in batch.versions.values() if not before)
        self.held.update(fleet=self.guards.fleet - new)
        if conflict.guards:
            await self.count()
        if conflict.guards or batch.guards_version is not None or batch.changes_radius:
            self.held.load(await self.store.guard_books(), self.clock.now())
        if conflict.policies and self.load_policies is not None:
            with suppress(ControllerError):  # whoever follows policies says why, and goes on trying
                await self.load_policies()

    async def decide(
        self,
        ids: Collection[str],
        decide: Callable[[float, UnitOfWork], T],
        write: Callable[[StoreWrites], Awaitable[None]] | None = None,
        *,
        fresh: bool = False,
    ) -> T:
        """Loads devices, commits what `decide` adds to a batch (at Unix seconds), and returns its result.

        `decide` is called again if other controllers changed what it rested on: it leaves nothing behind but the batch.
        `fresh`: devices are loaded as other controllers left them.

        Raises:
            ConflictError: others changed it each time, `MOST_ATTEMPTS` times, and somebody waits (`MAY_GIVE_UP`).
        """
        for attempt in itertools.count(1):
            await self.cache.load(ids, fresh=fresh)
            batch = UnitOfWork()
            result = decide(self.clock.now(), batch)
            self.rest_on(ids, batch)
            try:
                await self.commit(batch, write)
            except ConflictError as conflict:
                if attempt >= MOST_ATTEMPTS and MAY_GIVE_UP.get():
                    raise
                await pause(attempt, conflict, self._log)
            else:
                return result
        raise AssertionError

    def follow(self, listener: CommitListener) -> None:
        """Calls `listener` after each commit from now on."""
        self._listeners = (*self._listeners, listener)

    def unfollow(self, listener: CommitListener) -> None:
        """Undoes `follow`."""
        self._listeners = tuple(one for one in self._listeners if one is not listener)

    def publish_committed(self, batch: UnitOfWork) -> None:
        """Calls the listeners once the batch is durable: from now on its effects may be carried out."""
        self.cache.under_way.pop(batch, None)
        for listener in self._listeners:
            listener.on_commit(batch)

    async def apply_and_commit(self, device_id: str, event: DomainEvent, *, done: tuple[str, ...] = ()) -> StepOutcome:
        """Applies one event and commits it; `done` are ids of the effects that it ends.

        Raises:
            TooManyDevicesError: it would be one device too many.
        """

        def decide(now: float, batch: UnitOfWork) -> StepOutcome:
            batch.done.extend(done)
            return self.apply(self.known_or_new(device_id, now), event, now, batch)

        return await self.decide((device_id,), decide)

    async def record(self, *entries: AuditEntry) -> None:
        """Commits audit entries that follow from no event."""
        now = self.clock.now()
        await self.commit(UnitOfWork(audit=[(now, entry) for entry in self.budget.admit(entries, now)]))

    async def discard_effects(self, effect_ids: tuple[str, ...]) -> None:
        """Removes effects that were carried out without an event, or are superseded."""
        await self.store.commit(StoreWrites(done=effect_ids))

    def _forget_deadline(self, device_id: str) -> None:
        self._deadlines.pop(device_id, None)

    def _schedule(self, before: Device, after: Device, event: DomainEvent, now: float, batch: UnitOfWork) -> None:
        """Has the row of the device say when time alone changes something next."""
        device_id, is_due = after.device_id, type(event) is DeadlineReached
        # What its deadline did not change waits for the next message.
        at = next_deadline(after, self.policies, self.guards, self.clock.now(), after=now if is_due else -math.inf)
        if device_id not in batch.devices:
            if device_id in self._deadlines:
                known = self._deadlines[device_id]
            else:
                known = next_deadline(before, self.policies, self.guards, self.clock.now())
            if at != known or is_due or after.judged_by != before.judged_by:
                batch.devices[device_id] = after
                self._give_version(device_id, batch)
        if device_id in batch.devices:
            batch.deadlines[device_id] = at
        if after.rules or after.case or after.commands:
            self._deadlines[device_id] = at
        else:
            self._deadlines.pop(device_id, None)
