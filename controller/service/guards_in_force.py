"""What the guards of the fleet hold in memory: charges against the blast radius, devices held back, waivers."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from controller.domain.device import Device, HoldReason
from controller.domain.evolve import evolve
from controller.domain.guards.blast_radius import BlastRadius, RadiusCheck
from controller.domain.guards.guards import ESTABLISHED, FleetGuards
from controller.domain.transition import StepOutcome
from controller.ports.errors import ConflictError
from controller.ports.store import GuardSnapshot
from controller.service.unit_of_work import UnitOfWork

COUNT_HOLDS: Final = 1.0  # seconds for which a number of devices is good enough to hold a device back
POOL_LEDGER: Final = "pool:"  # begins the ledger of a pool of new devices
_FRESH: Final = 1.0  # seconds in which what was read counts as what is stored: holding back too much does no harm


class GuardsInForce:
    """The guards that decisions are made by; what changes in them is committed with the decision that changed it.

    `version`: of the waivers that decisions rest on; a commit that rests on them is refused once that is another. What
    decisions took for granted of the blast radius is checked by the commit itself, so that controllers that contain
    devices at once do not wait for each other.
    """

    def __init__(self, guards: FleetGuards, next_version: Callable[[], int]) -> None:
        self.guards = guards
        self.version = 0
        self.counted_at = math.inf  # when the devices of the fleet were counted, monotonic seconds; never: by itself
        self._next_version = next_version
        self._read_at = -math.inf  # Unix seconds
        self._waiting: Counter[str] = Counter()  # devices that the blast radius holds back, by pool
        self._listeners: tuple[Callable[[GuardSnapshot], None], ...] = ()

    def update(self, **changes: Any) -> None:
        """Replaces fields of the guards."""
        self.guards = evolve(self.guards, **changes)

    def follow(self, listener: Callable[[GuardSnapshot], None]) -> None:
        """Calls `listener` with the stored state whenever it is read again."""
        self._listeners = (*self._listeners, listener)

    def load(self, snapshot: GuardSnapshot, now: float) -> None:
        """Takes over the stored state, as of `now` (Unix seconds)."""
        self.version = snapshot.version
        self.load_radius(snapshot, now)
        for listener in self._listeners:
            listener(snapshot)

    def load_radius(self, snapshot: GuardSnapshot, now: float) -> None:
        """Takes over who is contained and who waits, nothing else."""
        self._read_at = now
        charges: dict[str, dict[str, float]] = {}
        for ledger, device_id, at in snapshot.charges:
            if not ledger or ledger.startswith(POOL_LEDGER):
                charges.setdefault(ledger.removeprefix(POOL_LEDGER), {})[device_id] = at
        self._waiting = Counter(snapshot.waiting)
        self.update(pools={})
        for pool in {ESTABLISHED, *charges, *self._waiting}:
            bounds = self.guards.radius.bounds
            self._set_radius(pool, BlastRadius(bounds, charges.get(pool, {}), self._waiting[pool]))

    def check_count(self, batch: UnitOfWork, moment: float) -> None:
        """Nothing is held back by a number of devices from before other controllers added some.

        Raises:
            ConflictError: it was; the decision is made again with the number of now.
        """
        if batch.holds_back and moment - self.counted_at > COUNT_HOLDS:
            raise ConflictError(guards=True)

    def touch(self, batch: UnitOfWork) -> None:
        """Makes the batch a change of the waivers: decisions that rest on the former ones are refused."""
        before = self.version if batch.guards_version is None else batch.guards_version[0]
        self.version = self._next_version()
        batch.guards_version = before, self.version

    def charge(
        self, device: Device, outcome: StepOutcome, now: float, batch: UnitOfWork, *, is_admitted: bool = True
    ) -> None:
        """Charges or refunds the blast radius as the step of `device` decided, in the same commit.

        `is_admitted`: the blast radius was asked, and the commit checks whether what it said is still right.
        """
        after, pool = outcome.device, self.guards.pool_of(device, now)
        if outcome.charge is None and not is_held_back(device) and not is_held_back(after):
            return
        batch.changes_radius = True
        is_new = is_held_back(after) and not is_held_back(device)
        batch.holds_back |= is_new
        if not self.guards.radius.bounds.is_unlimited and (is_new or (outcome.charge and is_admitted)):
            self._rest_on(pool, after.device_id if is_new else "", now, batch)
        if outcome.charge:
            self._set_charge(pool, after.device_id, now, batch)
        elif outcome.charge is not None:
            for charged in (ESTABLISHED, *self.guards.pools):  # it may have been charged in an earlier pool
                self._set_charge(charged, after.device_id, None, batch)
        changed = {pool}
        for one, difference in ((device, -1), (after, 1)):
            if is_held_back(one):
                held_in = self.guards.pool_of(one, now)
                self._waiting[held_in] += difference
                changed.add(held_in)
        for name in changed:
            self._set_radius(name, replace(self.guards.radius_of(name), waiting=self._waiting[name]))

    def _rest_on(self, pool: str, held: str, now: float, batch: UnitOfWork) -> None:
        """Has the commit check what was decided of a device: that there was room, or none for the device `held`."""
        if batch.guards_version is None:
            batch.guards_version = self.version, self.version
        bounds = self.guards.radius.bounds
        limit = bounds.limit(self.guards.fleet)
        check = batch.radius.get(pool) or RadiusCheck(_ledger(pool), pool, now - bounds.window, limit)
        if held:
            is_full = check.is_full or not 0 <= now - self._read_at <= _FRESH
            batch.radius[pool] = replace(check, is_full=is_full, held=check.held | {held})
        else:
            batch.radius[pool] = replace(check, limit=limit, admitted=True)

    def _set_charge(self, pool: str, device_id: str, at: float | None, batch: UnitOfWork) -> None:
        before = self.guards.radius_of(pool)
        after = before.refund(device_id) if at is None else before.charge(device_id, at)
        if after is not before:
            self._set_radius(pool, after)
            batch.charges[_ledger(pool), device_id] = at

    def _set_radius(self, pool: str, radius: BlastRadius) -> None:
        if pool == ESTABLISHED:
            self.update(radius=radius)
        elif radius.charged or radius.waiting:
            self.update(pools={**self.guards.pools, pool: radius})
        elif pool in self.guards.pools:
            self.update(pools={name: one for name, one in self.guards.pools.items() if name != pool})


def _ledger(pool: str) -> str:
    return f"{POOL_LEDGER}{pool}" if pool else ""


def is_held_back(device: Device) -> bool:
    """Whether the blast radius holds a containment of the device back."""
    return device.pending is not None and device.pending.why is HoldReason.BLAST_RADIUS
