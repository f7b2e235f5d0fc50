"""Waivers as they come and go: kept, in force at once, over by themselves."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.events import DeadlineReached
from controller.domain.guards.guards import PROTECTED_PREDICATE
from controller.domain.guards.waivers import ANY_RULE, Waiver
from controller.domain.policy.cel import ExpressionError
from controller.domain.policy.model import DevicePredicate
from controller.ports.errors import ControllerError
from controller.ports.store import GuardSnapshot
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

MAX_WAIVERS: Final = 1000
MAX_EXPRESSIONS: Final = 50  # waivers by expression: each is asked of every report
MAX_LASTING: Final = 366 * 86_400.0  # seconds: an exception without an end is a policy
TICK: Final = 5.0  # seconds between two looks at what is over


class WaiverError(ControllerError):
    """A waiver that cannot be; `str()` says why."""


@dataclass(frozen=True, slots=True)
class WaiverRequest:
    """What an operator asks for; exactly one of device, tag and expression is given, `lasting` is in seconds."""

    rule: str
    owner: str
    reason: str
    granted_by: str
    lasting: float
    device: str = ""
    tag: str = ""
    expression: str = ""


class WaiverService:
    """Keeps waivers. Their end needs nobody: a decision asks the time, and the device's own timer rings."""

    def __init__(self, keeper: FleetState, protected_if: str | None = None) -> None:
        """Take the expression of `guards.protected_if` along: it is asked of reports like those of waivers.

        Raises:
            ExpressionError: it is none.
        """
        self._keeper = keeper
        self._protected: tuple[DevicePredicate, ...] = ()
        if protected_if is not None:
            # What cannot be answered protects: nothing unknown contains anyone.
            mark = DevicePredicate(PROTECTED_PREDICATE, keeper.language.compile(protected_if), when_unknown=True)
            self._protected = (mark,)
        self._expressions: dict[str, DevicePredicate] = {}

    def load(self, books: GuardSnapshot) -> None:
        """Take up what the store holds, at the start."""
        for waiver in books.waivers:
            if waiver.expression:
                self._expressions[waiver.waiver_id] = self._mark(waiver)
        waivers = self._keeper.guards.waivers
        for waiver in books.waivers:
            waivers = waivers.with_waiver(waiver)
        self._keeper.use_guards(waivers=waivers, marks=self._marks())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.expire()
            await asyncio.sleep(TICK)

    def all(self) -> Sequence[Waiver]:
        """Those in force, the next to end first."""
        now = self._keeper.clock.now()
        found = [one for one in self._keeper.guards.waivers.all.values() if now < one.expires_at]
        return sorted(found, key=lambda one: (one.expires_at, one.waiver_id))

    async def add(self, new: WaiverRequest) -> Waiver:
        """Put a waiver in force.

        Raises:
            WaiverError: no such rule, no target or several, too long, too many, an expression that is none.
        """
        self._check(new)
        keeper = self._keeper
        now = keeper.clock.now()
        waiver = Waiver(
            keeper.new_id(), new.rule, new.owner, new.reason, new.granted_by, now, now + new.lasting,
            new.device, new.tag, new.expression,
        )  # fmt: skip
        if waiver.expression:
            self._expressions[waiver.waiver_id] = self._mark(waiver)
        batch = UnitOfWork()
        batch.waivers[waiver.waiver_id] = waiver
        self._record(AuditKind.WAIVER_GRANTED, new.granted_by, waiver, now, batch)
        keeper.use_guards(waivers=keeper.guards.waivers.with_waiver(waiver), marks=self._marks())
        await keeper.commit(batch)
        return waiver

    async def revoke(self, waiver_id: str, by: str) -> Waiver:
        """End a waiver before its time; what it covered bites at once.

        Raises:
            KeyError: there is no such waiver.
        """
        waiver = self._keeper.guards.waivers.all[waiver_id]
        await self._end((waiver,), AuditKind.WAIVER_REVOKED, by)
        return waiver

    async def expire(self) -> None:
        """Forget those that are over; they have had no effect since."""
        now = self._keeper.clock.now()
        over = tuple(one for one in self._keeper.guards.waivers.all.values() if now >= one.expires_at)
        if over:
            await self._end(over, AuditKind.WAIVER_EXPIRED, "cordon")

    async def _end(self, waivers: Sequence[Waiver], kind: AuditKind, by: str) -> None:
        keeper = self._keeper
        now = keeper.clock.now()
        batch = UnitOfWork()
        covered = [
            device
            for device in keeper.devices.values()
            if device.rules and any(one.selects(device) and any(map(one.covers_rule, device.rules)) for one in waivers)
        ]
        for one in waivers:
            batch.waivers[one.waiver_id] = None
            self._expressions.pop(one.waiver_id, None)
            self._record(kind, by, one, now, batch)
        left = keeper.guards.waivers.without_waivers(*(one.waiver_id for one in waivers))
        keeper.use_guards(waivers=left)
        for device in covered:
            keeper.apply(device, DeadlineReached(keeper.new_id()), now, batch)
        # After the devices were looked at: without its mark none would be judged by the policies in force any more.
        keeper.use_guards(marks=self._marks())
        await keeper.commit(batch)

    def _check(self, new: WaiverRequest) -> None:
        waivers = self._keeper.guards.waivers.all
        policy, _, rule = new.rule.rpartition("/")
        known = self._keeper.policies.rules
        if new.rule not in known and not (rule == ANY_RULE and any(key.startswith(f"{policy}/") for key in known)):
            raise WaiverError(
                f"no rule {new.rule} is in force: `cordon policy list` names them (policy/rule, policy/*)"
            )
        if sum(bool(one) for one in (new.device, new.tag, new.expression)) != 1:
            raise WaiverError("a waiver is for a device, or for a tag, or for an expression: give one of them")
        if not 0 < new.lasting <= MAX_LASTING:
            raise WaiverError("a waiver lasts up to 366 days; what shall last for ever belongs into the policy")
        if len(waivers) >= MAX_WAIVERS:
            raise WaiverError(f"there are {MAX_WAIVERS} waivers already: revoke some, or change the policy")
        if new.expression:
            if len(self._expressions) >= MAX_EXPRESSIONS:
                raise WaiverError(f"there are {MAX_EXPRESSIONS} waivers by expression already")
            try:
                self._keeper.language.compile(new.expression)
            except ExpressionError as e:
                raise WaiverError(f"the expression cannot be used: {e}") from e

    def _mark(self, waiver: Waiver) -> DevicePredicate:
        return DevicePredicate(waiver.predicate, self._keeper.language.compile(waiver.expression))

    def _marks(self) -> tuple[DevicePredicate, ...]:
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
