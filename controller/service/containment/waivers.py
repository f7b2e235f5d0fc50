"""Waivers: stored, in force at once, expired by time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.events import DeadlineReached
from controller.domain.guards.guards import PROTECTED_PREDICATE
from controller.domain.guards.waivers import ANY_RULE, Waiver, Waivers
from controller.domain.policy.cel import ExpressionError
from controller.domain.policy.model import DevicePredicate
from controller.ports.errors import ControllerError
from controller.ports.fleet_queries import DeviceFilter
from controller.ports.store import GuardSnapshot
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

MAX_WAIVERS: Final = 1000
MAX_EXPRESSIONS: Final = 50  # waivers by expression: each is evaluated for every report
MAX_LASTING: Final = 366 * 86_400.0  # seconds; a longer exception belongs in the policy
MOST_AT_ONCE: Final = 1000  # devices that are stepped in one commit when a waiver ends
TICK: Final = 5.0  # seconds between two checks for expired waivers


class WaiverError(ControllerError):
    """A waiver that is not valid; `str()` says why."""


@dataclass(frozen=True, slots=True)
class WaiverRequest:
    """A new waiver; exactly one of device, tag and expression is given, `lasting` is in seconds."""

    rule: str
    owner: str
    reason: str
    granted_by: str
    lasting: float
    device: str = ""
    tag: str = ""
    expression: str = ""


class WaiverService:
    """Adds, revokes and expires waivers. An expired waiver has no effect, also before its row is deleted."""

    def __init__(self, fleet: FleetState, protected_if: str | None = None) -> None:
        """`protected_if` is the expression of the settings; it is evaluated for reports as those of waivers are.

        Raises:
            ExpressionError: it does not compile.
        """
        self._fleet = fleet
        self._protected: tuple[DevicePredicate, ...] = ()
        if protected_if is not None:
            # An unknown result protects the device: unknown facts never lead to a containment.
            mark = DevicePredicate(PROTECTED_PREDICATE, fleet.language.compile(protected_if), when_unknown=True)
            self._protected = (mark,)
        self._expressions: dict[str, DevicePredicate] = {}
        self._loaded = False

    def load(self, snapshot: GuardSnapshot) -> None:
        """Puts the stored waivers in force, in place of those that were."""
        if {waiver.waiver_id: waiver for waiver in snapshot.waivers} == self._fleet.guards.waivers.all and self._loaded:
            return
        self._loaded = True
        found = {waiver.waiver_id: waiver for waiver in snapshot.waivers if waiver.expression}
        self._expressions = {key: self._expressions.get(key) or self._compile(one) for key, one in found.items()}
        self._fleet.set_guards(waivers=Waivers(snapshot.waivers), predicates=self._predicates())

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self.expire()
            await asyncio.sleep(TICK)

    def all(self) -> Sequence[Waiver]:
        """The waivers in force, by expiry."""
        now = self._fleet.clock.now()
        valid = [waiver for waiver in self._fleet.guards.waivers.all.values() if now < waiver.expires_at]
        return sorted(valid, key=lambda waiver: (waiver.expires_at, waiver.waiver_id))

    async def add(self, new: WaiverRequest) -> Waiver:
        """Puts a waiver in force.

        Raises:
            WaiverError: no such rule, no target or several, too long, too many, or the expression does not compile.
        """
        self._check(new)
        fleet = self._fleet
        now = fleet.clock.now()
        waiver = Waiver(
            fleet.new_id(), new.rule, new.owner, new.reason, new.granted_by, now, now + new.lasting,
            new.device, new.tag, new.expression,
        )  # fmt: skip
        if waiver.expression:
            self._expressions[waiver.waiver_id] = self._compile(waiver)

        def decide(now: float, batch: UnitOfWork) -> None:
            fleet.held.touch(batch)
            batch.waivers[waiver.waiver_id] = waiver
            self._record(AuditKind.WAIVER_GRANTED, new.granted_by, waiver, now, batch)
            fleet.set_guards(waivers=fleet.guards.waivers.with_waiver(waiver), predicates=self._predicates())

        await fleet.decide((), decide)
        return waiver

    async def revoke(self, waiver_id: str, by: str) -> Waiver:
        """Ends a waiver early; the rules that it covered apply at once.

        Raises:
            KeyError: there is no such waiver.
        """
        waiver = self._fleet.guards.waivers.all[waiver_id]
        await self._end((waiver,), AuditKind.WAIVER_REVOKED, by)
        return waiver

    async def expire(self) -> None:
        """Deletes expired waivers."""
        now = self._fleet.clock.now()
        expired = tuple(waiver for waiver in self._fleet.guards.waivers.all.values() if now >= waiver.expires_at)
        if expired:
            await self._end(expired, AuditKind.WAIVER_EXPIRED, "cordon")

    async def _end(self, waivers: Sequence[Waiver], kind: AuditKind, by: str) -> None:
        fleet = self._fleet
        covered = await self._covered(waivers)
        ended = [one.waiver_id for one in waivers]

        def end(now: float, batch: UnitOfWork) -> None:
            fleet.set_guards(waivers=fleet.guards.waivers.without_waivers(*ended))
            fleet.held.touch(batch)
            for one in waivers:
                batch.waivers[one.waiver_id] = None
                self._record(kind, by, one, now, batch)
            self._apply_to(covered[:MOST_AT_ONCE], now, batch)

        await fleet.decide(covered[:MOST_AT_ONCE], end)
        for first in range(MOST_AT_ONCE, len(covered), MOST_AT_ONCE):
            some = covered[first : first + MOST_AT_ONCE]
            await fleet.decide(some, partial(self._apply_to, some))
        # Only after the steps: with other predicates no stored result is of the policies in force any more.
        for waiver_id in ended:
            self._expressions.pop(waiver_id, None)
        fleet.set_guards(predicates=self._predicates())

    def _apply_to(self, ids: Sequence[str], now: float, batch: UnitOfWork) -> None:
        fleet = self._fleet
        for device in [one for one in map(fleet.get, ids) if one is not None]:
            fleet.apply(device, DeadlineReached(fleet.new_id()), now, batch)

    async def _covered(self, waivers: Sequence[Waiver]) -> list[str]:
        """The devices of which a waiver covers a rule that fails."""
        found: dict[str, None] = {}
        for one in waivers:
            if one.device:
                found[one.device] = None
                continue
            for rule in {one.rule, *filter(one.covers_rule, self._fleet.policies.rules)}:
                async for device in self._fleet.select(DeviceFilter(rule=rule, tag=one.tag or None)):
                    if one.selects(device):
                        found[device.device_id] = None
        return list(found)

    def _check(self, new: WaiverRequest) -> None:
        waivers = self._fleet.guards.waivers.all
        policy, _, rule = new.rule.rpartition("/")
        known = self._fleet.policies.rules
        if new.rule not in known and not (rule == ANY_RULE and any(key.startswith(f"{policy}/") for key in known)):
            raise WaiverError(
                f"no rule {new.rule} is in force: `cordon policy list` names them (policy/rule, policy/*)"
            )
        if sum(bool(one) for one in (new.device, new.tag, new.expression)) != 1:
            raise WaiverError("a waiver is for a device, or for a tag, or for an expression: give one of them")
        if not 0 < new.lasting <= MAX_LASTING:
            raise WaiverError("a waiver lasts up to 366 days; a permanent exception belongs in the policy")
        if len(waivers) >= MAX_WAIVERS:
            raise WaiverError(f"there are {MAX_WAIVERS} waivers already: revoke some, or change the policy")
        if new.expression:
            if len(self._expressions) >= MAX_EXPRESSIONS:
                raise WaiverError(f"there are {MAX_EXPRESSIONS} waivers by expression already")
            try:
                self._fleet.language.compile(new.expression)
            except ExpressionError as e:
                raise WaiverError(f"the expression cannot be used: {e}") from e

    def _compile(self, waiver: Waiver) -> DevicePredicate:
        return DevicePredicate(waiver.predicate, self._fleet.language.compile(waiver.expression))

    def _predicates(self) -> tuple[DevicePredicate, ...]:
        return (*self._protected, *self._expressions.values())

    def _record(self, kind: AuditKind, by: str, waiver: Waiver, now: float, batch: UnitOfWork) -> None:
        detail: dict[str, object] = {
            "waiver": waiver.waiver_id,
            "rule": waiver.rule,
            "for": waiver.device or (f"tag {waiver.tag}" if waiver.tag else waiver.expression),
            "owner": waiver.owner,
            "reason": waiver.reason,
            "until": waiver.expires_at,
        }
        batch.audit.append((now, AuditEntry(kind, waiver.device, by, "", detail)))
