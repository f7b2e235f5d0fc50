"""Operations on rollouts, by operators and policies: start, pause, resume, approve, abort."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.device import Device
from controller.domain.principal import Principal
from controller.domain.rollout.downgrades import version_remarks
from controller.domain.rollout.lifecycle import begin
from controller.domain.rollout.model import Rollout, RolloutError, RolloutNote, RolloutTarget, RolloutTerms
from controller.domain.rollout.rings import RingSelector, RolloutCandidate, RolloutRing, assign_rings
from controller.ports.rollouts import RolloutStore
from controller.service.fleet_state import FleetState
from controller.service.rollout.engine import MAX_OPEN_ROLLOUTS, RolloutEngine, record
from controller.service.rollout.observations import installed_version
from controller.service.rollout.run import RolloutRun
from controller.service.unit_of_work import UnitOfWork
from schemas.updates import ANY_CLASS

MAX_LOOKED_AT: Final = 2_000  # devices whose version is looked up before a rollout starts


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """A new rollout. `only` and `device_ids` select devices; `rule` is the policy rule that requests it.

    `is_proven`: this very target has been through all rings before, so that one without devices may be left out.
    `trial_rings`: how many of the first rings are configured test rings, which need no second operator (None: all but
    the last). `starter`: `by` as a person, if it is one.
    """

    target: str
    rings: tuple[RolloutRing, ...]
    terms: RolloutTerms
    by: str
    reason: str = ""
    only: RingSelector | None = None
    device_ids: frozenset[str] | None = None
    rule: str = ""
    is_proven: bool = False
    trial_rings: int | None = None
    starter: Principal | None = None


class UnknownRolloutError(RolloutError):
    """There is no rollout with that id."""


class RolloutOperations:
    """Each decision is committed before the method returns."""

    def __init__(self, fleet: FleetState, rollouts: RolloutEngine) -> None:
        self._fleet = fleet
        self._rollouts = rollouts

    @property
    def store(self) -> RolloutStore:
        return self._rollouts.store

    @property
    def counts(self) -> Mapping[str, int]:
        """`orders`, `returns` and `stopped` since the start."""
        return self._rollouts.counts

    def open(self) -> tuple[Rollout, ...]:
        """The open rollouts in their present state."""
        return tuple(run.rollout for run in self._rollouts.runs.values() if not run.rollout.state.is_end)

    async def find(self, text: str) -> RolloutTarget:
        """The published target that `text` means.

        Raises:
            TargetError: there is none, or more than one.
        """
        return await self._rollouts.targets.find(text)

    async def start(self, asked: RolloutRequest) -> Rollout:
        """Starts a rollout.

        Raises:
            TargetError: no such target.
            RolloutError: the rings select nothing, a rollout of the same name is open, or devices have a newer version.
        """
        target = await self._rollouts.targets.find(asked.target)
        async with self._rollouts.lock:
            self._refuse_second(target)
            rings = await self.divided(asked, target)
            remarks = await self._check_versions(asked, target, [one for _, ids in rings for one in ids])
            number = await self.store.next_number()
            now = self._rollouts.now()
            rollout, members = begin(
                self.store.id_of(number),
                target,
                asked.terms,
                rings,
                by=asked.by,
                reason=asked.reason,
                now=now,
                rule=asked.rule,
                trial_rings=asked.trial_rings,
                starter=asked.starter,
                remarks=remarks,
            )
            detail: dict[str, object] = {
                "rings": {ring.name: ring.total for ring in rollout.rings},
                "reason": asked.reason,
                "rule": asked.rule,
                "remarks": list(remarks),
            }
            batch = UnitOfWork()
            record(rollout, (RolloutNote(AuditKind.ROLLOUT_STARTED, asked.by, detail=detail),), batch, now)
            await self._fleet.commit(batch, lambda writes: self.store.create(rollout, members, writes))
            self._rollouts.follow(RolloutRun(rollout, members))
        return rollout

    async def _check_versions(
        self, asked: RolloutRequest, target: RolloutTarget, device_ids: list[str]
    ) -> tuple[str, ...]:
        """Returns what is to be said about the versions that the first devices have now.

        The others are looked at when it is their turn. A policy's rollout leaves out devices with a newer version.

        Raises:
            RolloutError: some have a newer version, and an operator did not ask for that.
        """
        looked_at = device_ids[:MAX_LOOKED_AT]
        reports = await asyncio.gather(*map(self._fleet.store.report, looked_at))
        found = zip(looked_at, (installed_version(report, target.name) for report in reports), strict=True)
        remarks = version_remarks(target, [(device_id, one.version) for device_id, one in found if one.version])
        if remarks.newer and not asked.terms.allow_downgrade and not asked.rule:
            raise RolloutError(f"{remarks.newer}: allow a downgrade (--allow-downgrade), or leave them out (--only)")
        rest = len(device_ids) - len(looked_at)
        text = f"{rest} further devices are looked at when it is their turn" if rest else ""
        return tuple(filter(None, (remarks.newer, remarks.unordered, text)))

    async def divided(self, asked: RolloutRequest, target: RolloutTarget) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The devices of each ring, as far as the controller knows which devices the target fits.

        Raises:
            RolloutError: the rings make no sense.
        """
        fleet = self._fleet
        pages = fleet.pages() if asked.device_ids is None else fleet.named(sorted(asked.device_ids))
        candidates = [_candidate(one) async for page in pages for one in page if _is_meant(one, asked, target)]
        found = assign_rings(candidates, asked.rings, target.name)
        rings = zip(asked.rings, found, strict=True)
        return tuple((ring.name, ids) for ring, ids in rings if ids or not asked.is_proven)

    def _refuse_second(self, target: RolloutTarget) -> None:
        going_on = self.open()
        for going in going_on:
            if going.target.name == target.name:
                raise RolloutError(
                    f"{going.rollout_id} rolls out {target.name} {going.target.version} and is {going.state.value}:"
                    " abort it, or wait for its end"
                )
        if len(going_on) >= MAX_OPEN_ROLLOUTS:
            raise RolloutError(f"{MAX_OPEN_ROLLOUTS} rollouts go on already: wait for the end of one")

    async def pause(self, rollout_id: str, by: str) -> Rollout:
        """Orders nothing more and lets no deadline run until `resume`.

        Raises:
            RolloutError: unknown, or not running.
        """
        async with self._rollouts.lock:
            run = await self._open(rollout_id)
            run.pause(by, self._rollouts.now())
            return await self._kept(run)

    async def resume(self, rollout_id: str, by: str) -> Rollout:
        """Ends a pause.

        Raises:
            RolloutError: unknown, or not paused.
        """
        async with self._rollouts.lock:
            run = await self._open(rollout_id)
            run.resume(by, self._rollouts.now())
            return await self._kept(run)

    async def approve(self, rollout_id: str, by: Principal) -> Rollout:
        """Permits the last ring to start.

        Raises:
            RolloutError: unknown, it does not wait for that, or `by` counts as the person who started it.
        """
        async with self._rollouts.lock:
            run = await self._open(rollout_id)
            run.approve(by, self._rollouts.now())
            return await self._kept(run)

    async def abort(
        self, rollout_id: str, by: str, *, revert: bool, reverts_now: bool = False, reason: str = ""
    ) -> Rollout:
        """Ends a rollout early; with `revert` devices return to their former version, also after its end.

        It can be asked again: devices that have not gone back are ordered once more, with `reverts_now` outside their
        maintenance windows too.

        Raises:
            RolloutError: unknown, or there is nothing left to do.
        """
        async with self._rollouts.lock:
            run = self._rollouts.runs.get(rollout_id)
            if run is None or run.rollout.state.is_end:
                rollout = await self._known(rollout_id)
                if revert:
                    self._refuse_second(rollout.target)
            if run is None:
                run = RolloutRun(rollout, await self.store.members(rollout_id))
            run.abort(by, self._rollouts.now(), revert=revert, reverts_now=reverts_now, reason=reason)
            if rollout_id not in self._rollouts.runs:
                self._rollouts.follow(run)
            return await self._kept(run)

    async def _open(self, rollout_id: str) -> RolloutRun:
        run = self._rollouts.runs.get(rollout_id)
        if run is None:
            rollout = await self._known(rollout_id)
            raise RolloutError(f"{rollout_id} is over: it is {rollout.state.value}")
        return run

    async def _known(self, rollout_id: str) -> Rollout:
        rollout = await self.store.rollout(rollout_id)
        if rollout is None:
            raise UnknownRolloutError(f"there is no rollout {rollout_id}")
        return rollout

    async def _kept(self, run: RolloutRun) -> Rollout:
        rollout = run.rollout
        await self._rollouts.keep(run, UnitOfWork(), self._rollouts.now())
        return rollout


def _is_meant(device: Device, asked: RolloutRequest, target: RolloutTarget) -> bool:
    """What is unknown here (class, hardware) is checked before the device is updated."""
    if asked.device_ids is not None and device.device_id not in asked.device_ids:
        return False
    if device.device_class and ANY_CLASS not in target.classes and device.device_class not in target.classes:
        return False
    return asked.only is None or asked.only.matches(_candidate(device))


def _candidate(device: Device) -> RolloutCandidate:
    return RolloutCandidate(device.device_id, device.device_class, device.tags)
