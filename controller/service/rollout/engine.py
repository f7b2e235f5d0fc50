"""The rollout engine: applies reports, results of commands and deadlines to the open rollouts.

What a step changes, and the commands that it asks for, are kept in one transaction before anything is sent.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.commands import END_GRACE
from controller.domain.device import Device
from controller.domain.effects import AuditEntry
from controller.domain.events import CommandRequested, CommandWithdrawn
from controller.domain.rollout import revert
from controller.domain.rollout.member import BEGIN_WITHIN, order_end
from controller.domain.rollout.model import InstalledVersion, RevertState, Rollout, RolloutNote, RolloutState
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.rollouts import RolloutStore, RolloutTargets, TargetError
from controller.service.fleet_state import FleetState
from controller.service.rollout.observations import (
    RolloutObservations,
    command_progress,
    installed_version,
    rollout_device,
)
from controller.service.rollout.run import RolloutChanges, RolloutRun
from controller.service.settings.rollouts import RolloutSettings
from controller.service.unit_of_work import UnitOfWork
from schemas.updates import INSTALL, ROLL_BACK, InstallParams, RollbackParams

TICK: Final = 0.25  # seconds
ORDERS_AT_ONCE: Final = 200  # of one rollout in one transaction
MAX_OPEN_ROLLOUTS: Final = 64
MAX_LOADED: Final = 1024  # open rollouts, and those whose devices still have to go back, or may have to
TARGET_FRESH: Final = 5.0  # seconds for which it is taken as read that a target is published
MIN_LEAP: Final = 1.0  # seconds between wall clock and monotonic clock that are a leap


class RolloutEngine:
    """Advances all open rollouts. `counts`: orders, returns, stopped, passes."""

    def __init__(
        self,
        fleet: FleetState,
        store: RolloutStore,
        targets: RolloutTargets,
        observations: RolloutObservations,
        settings: RolloutSettings,
        log: Log,
    ) -> None:
        self.settings = settings
        self.store = store
        self.targets = targets
        self.runs: dict[str, RolloutRun] = {}
        self.counts: Counter[str] = Counter()
        self._fleet = fleet
        self._observations = observations
        self._log = log
        # Held during every change of a rollout, by the loop and by operations.
        self.lock = asyncio.Lock()
        self._clock_ahead = fleet.clock.now() - fleet.clock.monotonic()
        self._published: dict[str, tuple[float, bool]] = {}  # by target: when it was looked up, and what was found

    def now(self) -> float:
        """The wall clock; a leap since the last call is taken out of the time of all rollouts. Under `lock`."""
        now = self._fleet.clock.now()
        ahead = now - self._fleet.clock.monotonic()
        leap = ahead - self._clock_ahead
        if abs(leap) >= MIN_LEAP:
            self._clock_ahead = ahead
            for run in self.runs.values():
                run.on_clock_leap(leap)
        return now

    async def load(self, *, has_restarted: bool = True) -> int:
        """Loads the rollouts that go on, with what their devices reported since; returns their number."""
        for rollout in await self.store.unfinished_rollouts(limit=MAX_LOADED):
            run = await self.adopt(rollout)
            if has_restarted:
                run.on_restart()
        return len(self.runs)

    async def adopt(self, rollout: Rollout) -> RolloutRun:
        """Loads a stored rollout; under `lock`."""
        run = RolloutRun(rollout, await self.store.members(rollout.rollout_id))
        self.follow(run)
        now = self.now()
        for member in run.uncertain_members():
            for command_id in (member.command_id, member.revert_command_id):
                record = await self._fleet.store.command(command_id) if command_id else None
                if record is not None:
                    run.on_command_progress(member.device_id, command_progress(record), now)
            device = await self._fleet.find(member.device_id)
            if member.revert is RevertState.REVERTING and device and device.reported_at <= member.updated_at:
                continue  # it was written before the order to go back
            report = await self._fleet.store.report(member.device_id)
            run.on_report(member.device_id, installed_version(report, rollout.target.name), now)
        return run

    def follow(self, run: RolloutRun) -> None:
        """Tracks a rollout and watches its devices; under `lock`."""
        self.runs[run.rollout.rollout_id] = run
        self._observations.watch(run.rollout.rollout_id, run.members)

    def _leave(self, run: RolloutRun) -> None:
        self.runs.pop(run.rollout.rollout_id, None)
        self._observations.unwatch(run.rollout.rollout_id, run.members)

    def under_way(self) -> list[str]:
        """The devices of all rollouts with an order that has not ended."""
        return [device_id for run in self.runs.values() for device_id in run.under_way]

    async def run(self) -> None:
        """Runs until cancelled."""
        async with self.lock:
            await self.load()
        while True:
            try:
                more = await self.once()
            except StoreError as e:
                self._log("rollouts cannot go on", {"error": str(e)})
                more = await self._start_over()
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._observations.arrived.wait()
            self._observations.arrived.clear()

    async def _start_over(self) -> bool:
        """Loads the rollouts again: the changes in memory were not committed."""
        async with self.lock:
            self.runs.clear()
            self._observations.unwatch_all()
            with contextlib.suppress(StoreError):
                await self.load(has_restarted=False)
        return False

    async def once(self) -> bool:
        """One pass over all open rollouts; returns whether more updates can be ordered at once."""
        async with self.lock:
            self.counts["passes"] += 1
            await self._hear()
            more = False
            for run in list(self.runs.values()):
                more = await self._go_on(run) or more
            return more

    async def _hear(self) -> None:
        now = self.now()
        commands, reports, changed = self._observations.take()
        for record in commands:
            for run in self._runs_of(record.device_id):
                run.on_command_progress(record.device_id, command_progress(record), now)
        for device_id, body in reports.items():
            for run in self._runs_of(device_id):
                run.on_report(device_id, installed_version(body, run.rollout.target.name), now)
        for device in await self._fleet.find_all(list(changed)):
            for run in self._runs_of(device.device_id):
                self._reached(run, device, now)

    def _reached(self, run: RolloutRun, device: Device, now: float) -> None:
        device_id = device.device_id
        view = rollout_device(device, self.settings.time_zone)
        if not view.is_reachable and device.stale:
            run.on_stale(device_id, now)
        elif view.is_reachable and not view.is_isolated and not view.is_busy:
            run.on_reachable(device_id, now)

    def _runs_of(self, device_id: str) -> list[RolloutRun]:
        return [self.runs[one] for one in self._observations.rollouts_of(device_id) if one in self.runs]

    async def _go_on(self, run: RolloutRun) -> bool:
        now = self.now()
        self._leave_to_successor(run, now)
        run.tick(now)
        chosen = run.candidates(now, ORDERS_AT_ONCE)
        name = run.rollout.target.name
        try:
            if chosen and not await self._may_order(run):
                run.requeue(chosen)
                chosen = []
            found = await asyncio.gather(*(self._installed(device_id, name) for device_id in chosen))
            returning = list(run.pending_reverts(ORDERS_AT_ONCE))
            await self._fleet.load((*chosen, *returning), fresh=True)
        except BaseException:
            run.requeue(chosen)
            raise
        # No await from here to the commit: nothing else may change a device in between.
        batch = UnitOfWork()
        now = self.now()
        orders = sum(self._start_member(run, *each, now, batch) for each in zip(chosen, found, strict=True))
        returns = sum(self._revert_member(run, each, now, batch) for each in returning)
        run.tick(now)
        await self.keep(run, batch, now)
        return bool(orders or returns) and not run.rollout.terms.per_minute

    def _leave_to_successor(self, run: RolloutRun, now: float) -> None:
        """Gives up what an ended rollout still waits for, once another of the same name decides for its devices."""
        if not run.rollout.state.is_end:
            return
        for other in self.runs.values():
            rollout = other.rollout
            is_later = rollout.created_at > run.rollout.created_at and not rollout.state.is_end
            if is_later and rollout.target.name == run.rollout.target.name:
                run.give_up_reverts(f"{rollout.rollout_id} of the same name decides now", now)

    async def _may_order(self, run: RolloutRun) -> bool:
        """Whether the target is still published; stops the rollout if it was withdrawn."""
        target, moment = run.rollout.target, self._fleet.clock.monotonic()
        looked_up, is_published = self._published.get(target.path, (-TARGET_FRESH, False))
        if moment - looked_up >= TARGET_FRESH:
            try:
                is_published = await self.targets.is_published(target)
            except TargetError as e:
                # Not known is no withdrawal: the devices wait until the repository can be read.
                self._log("the repository of updates cannot be read, a rollout waits", {"error": str(e)})
                self._published[target.path] = (moment, False)
                return False
            if not is_published:
                self._published.pop(target.path, None)
                run.withdraw_target()
                return False
            self._published[target.path] = (moment, True)
        return is_published

    async def _installed(self, device_id: str, name: str) -> InstalledVersion:
        return installed_version(await self._fleet.store.report(device_id), name)

    def _start_member(
        self, run: RolloutRun, device_id: str, installed: InstalledVersion, now: float, batch: UnitOfWork
    ) -> bool:
        device = self._fleet.get(device_id)
        if device is None:
            return False
        view = rollout_device(device, self.settings.time_zone)
        if not run.schedule(view, installed, now):
            return False
        rollout = run.rollout
        target, terms = rollout.target, rollout.terms
        end = order_end(rollout, view.zone, now)
        install = InstallParams(
            target=target.path,
            version=target.version,
            sha256=target.sha256,
            length=target.length,
            deadline=datetime.fromtimestamp(end, UTC),
            ask_user=(installed.device_class or view.device_class) in terms.confirm_classes,
            rollout=rollout.rollout_id,
        )
        # A command that was begun is given up `END_GRACE` after it expired: with a long timeout it expires later.
        begin_within = max(min(BEGIN_WITHIN, end - now), end - now - END_GRACE)
        self._issue(run, device_id, INSTALL, tuple(install.params().items()), begin_within, now, batch)
        self.counts["orders"] += 1
        return True

    def _revert_member(self, run: RolloutRun, device_id: str, now: float, batch: UnitOfWork) -> bool:
        device = self._fleet.get(device_id)
        if device is None:
            return False
        view = rollout_device(device, self.settings.time_zone)
        if not run.revert(view, now):
            return False
        target = run.rollout.target
        rollback = RollbackParams(name=target.name, version=target.version, rollout=run.rollout.rollout_id)
        params = tuple(rollback.params().items())
        ttl = revert.order_end(run.rollout, view.zone, now) - now
        self._issue(run, device_id, ROLL_BACK, params, ttl, now, batch)
        self.counts["returns"] += 1
        return True

    def _issue(
        self,
        run: RolloutRun,
        device_id: str,
        action: str,
        params: tuple[tuple[str, str | bool | int], ...],
        ttl: float,
        now: float,
        batch: UnitOfWork,
    ) -> None:
        fleet = self._fleet
        device = fleet.get(device_id)
        by = f"rollout:{run.rollout.rollout_id}"
        if device is not None:
            event = CommandRequested(fleet.new_id(), action, params, by, ttl, dry_run=False)
            issued = fleet.apply(device, event, now, batch).commands
            if issued:
                run.on_command_issued(device_id, issued[0].command_id, now)
                return
        run.on_command_refused(device_id, "the command was not issued", now)

    async def keep(self, run: RolloutRun, batch: UnitOfWork, now: float) -> None:
        """Commits the changes of a rollout together with `batch`; under `lock`."""
        changes = run.take_changes()
        if changes or not batch.is_empty:
            await self._commit(run, changes, batch, now)
        if run.rollout.state.is_end and (run.is_superseded or not run.rollout.is_followed):
            self._leave(run)

    async def _commit(self, run: RolloutRun, changes: RolloutChanges, batch: UnitOfWork, now: float) -> None:
        fleet = self._fleet
        by = f"rollout:{run.rollout.rollout_id}"

        def withdraw(withdrawals: Sequence[tuple[str, str]], now: float, batch: UnitOfWork) -> None:
            for device_id, command_id in withdrawals:
                device = fleet.get(device_id)
                if device is not None:
                    why = CommandWithdrawn(fleet.new_id(), command_id, by, "the rollout asks for it no more")
                    fleet.apply(device, why, now, batch)

        members = tuple(changes.members.values())
        keep = partial(self.store.keep, changes.rollout, members)
        if batch.is_empty:

            def decide(now: float, batch: UnitOfWork) -> None:
                withdraw(changes.withdrawals, now, batch)
                record(changes.rollout, changes.notes, batch, now)

            await fleet.decide([device_id for device_id, _ in changes.withdrawals], decide, keep)
        else:
            # Devices were decided about already: nothing may be awaited, so others are loaded afterwards.
            away = set(fleet.cache.missing(device_id for device_id, _ in changes.withdrawals))
            here = [one for one in changes.withdrawals if one[0] not in away]
            others = [one for one in changes.withdrawals if one[0] in away]
            withdraw(here, now, batch)
            fleet.rest_on([device_id for device_id, _ in here], batch)
            record(changes.rollout, changes.notes, batch, now)
            await fleet.commit(batch, keep)
            await fleet.decide([device_id for device_id, _ in others], partial(withdraw, others))
        has_ended = any(note.kind is AuditKind.ROLLOUT_ENDED for note in changes.notes)
        self.counts["stopped"] += has_ended and changes.rollout.state is RolloutState.STOPPED


def record(rollout: Rollout, notes: Sequence[RolloutNote], batch: UnitOfWork, now: float) -> None:
    """Adds audit entries, each with its rollout."""
    for note in notes:
        about: dict[str, object] = {"rollout": rollout.rollout_id, "target": rollout.target.path}
        entry = AuditEntry(note.kind, note.device_id, note.actor, "", {**about, **note.detail}, note.alert)
        batch.audit.append((now, entry))
