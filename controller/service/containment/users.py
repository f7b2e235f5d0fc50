"""Contains users by their name: every session they have, and those that appear while they are contained."""

import asyncio
from dataclasses import replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment import users
from controller.domain.containment.plan import Subject
from controller.domain.containment.users import UserCase
from controller.domain.effects import AuditEntry
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import ContainmentBroker, Proof, SaveRules
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import ControllerError
from controller.ports.log import Log
from controller.ports.store import StoreWrites
from controller.service.containment.enforcer import steps_of
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

MAX_CASES: Final = 1000  # users contained at once: each costs a few requests with every comparison
SHOWN: Final = 5  # of what differed, in a line of the record


class TooManyUsersError(ControllerError):
    """As many users are contained as are compared in time."""


class UserContainments:
    """The decision is the case in the store; what the broker lacks of it is done until it is proven, then compared.

    No outbox: a case that is not proven is what is still to be carried out, and it survives with its decision.
    """

    def __init__(self, keeper: FleetState, broker: ContainmentBroker, every: float, log: Log) -> None:
        self._keeper = keeper
        self._broker = broker
        self._every = every
        self._log = log
        self._work = asyncio.Event()
        self.cases: dict[str, UserCase] = {}

    @property
    def broker(self) -> ContainmentBroker:
        """What is asked of the broker about users."""
        return self._broker

    async def load(self) -> None:
        """Take up what the store holds, at the start."""
        self.cases = {case.name: case for case in await self._keeper.store.user_cases()}

    async def contain(
        self, name: str, level: ContainmentLevel, *, by: str, reason: str, hold: float | None
    ) -> UserCase:
        """Decide, keep, and have it carried out; `hold` seconds bound an isolation.

        Raises:
            BrokerRefusedError: no user name that Cordon acts on.
            TooManyUsersError: as many are contained as can be.
        """
        self._broker.check(Subject.user(name))
        was = self.cases.get(name)
        if was is None and len(self.cases) >= MAX_CASES:
            raise TooManyUsersError(f"{MAX_CASES} users are contained already")
        now = self._keeper.clock.now()
        case = users.contained(was, name, self._keeper.new_id(), level, by=by, reason=reason, now=now, hold=hold)
        kind = AuditKind.CONTAINMENT_KEPT if case is was else AuditKind.CONTAINMENT_DECIDED
        until = None if hold is None else now + hold
        await self._keep(case, kind, by, level=case.level.value, reason=reason, until=until)
        return case

    async def release(self, name: str, *, by: str, reason: str) -> UserCase | None:
        """Decide and keep; `None` if the user is not contained."""
        was = self.cases.get(name)
        if was is None:
            return None
        case = users.released(was, by=by, reason=reason, now=self._keeper.clock.now())
        await self._keep(
            case,
            AuditKind.CONTAINMENT_STEPPED_DOWN
            if case.level is not ContainmentLevel.NONE
            else AuditKind.CONTAINMENT_RELEASE_DECIDED,
            by,
            reason=reason,
        )
        return case

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._work.clear()
            await self.tick()
            try:
                async with asyncio.timeout(self._every):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """Carry out what is not proven, compare what is, end what is due."""
        for name in list(self.cases):
            case = self.cases[name]
            if users.is_due(case, self._keeper.clock.now()):
                reason = "its time is over"
                case = users.stepped_down(case, reason, self._keeper.clock.now())
                await self._keep(case, AuditKind.CONTAINMENT_STEPPED_DOWN, "cordon", reason=reason)
            try:
                await self._settle(case)
            except ControllerError as e:
                await self._trouble(case, str(e), ())

    async def _settle(self, case: UserCase) -> None:
        if case.is_proven:
            missing = await self._broker.missing(case.subject, case.level)
            if not missing or self.cases.get(case.name) is not case:
                return
            what = "; ".join(missing[:SHOWN])
            case = replace(case, proven_level=None)
            await self._keep(case, AuditKind.BROKER_DRIFT_FOUND, "cordon", alert=True, what=what)
        proof = await self._carry_out(case)
        if not proof.holds:
            await self._trouble(case, proof.missing, steps_of(proof))
        elif self.cases.get(case.name) is case:  # else an operator decided anew meanwhile
            await self._proven(case, proof)

    async def _carry_out(self, case: UserCase) -> Proof:
        broker, store, subject, key = self._broker, self._keeper.store, case.subject, str(case.subject)

        async def keep(rules: AccessRules) -> None:
            await store.keep_rules(key, case.case_id, rules, self._keeper.clock.now())

        keeping: SaveRules = keep
        match case.level:
            case ContainmentLevel.RESTRICTED if case.proven_level is ContainmentLevel.ISOLATED:
                return await broker.end_isolation(subject, keeping)
            case ContainmentLevel.RESTRICTED:
                return await self._restrict(case, keeping)
            case ContainmentLevel.ISOLATED:
                return await broker.isolate(subject, keeping, case=case.case_id, reason=case.reason, until=case.until)
            case ContainmentLevel.NONE:
                proof = await broker.release(subject, await store.kept_rules(key, case.case_id) or ())
                if proof.holds:
                    await store.forget_rules(key, case.case_id)
                return proof

    async def _restrict(self, case: UserCase, keep: SaveRules) -> Proof:
        """Also after a restart in the middle of a step down: a ban of ours that is left is lifted below the rules."""
        proof = await self._broker.restrict(case.subject, keep)
        if not proof.holds:
            return proof
        down = await self._broker.end_isolation(case.subject, keep)
        return replace(down, steps=proof.steps + down.steps, cut_at=proof.cut_at)

    async def _proven(self, case: UserCase, proof: Proof) -> None:
        now = self._keeper.clock.now()
        seconds = (
            max(0.0, proof.cut_at - case.decided_at)
            if proof.cut_at and case.level is not ContainmentLevel.NONE
            else None
        )
        after = replace(case, proven_level=case.level, proven_at=now, trouble="")
        steps = list(steps_of(proof))
        if case.level is ContainmentLevel.NONE:
            await self._keep(after, AuditKind.CONTAINMENT_RELEASE_PROVEN, "cordon", steps=steps)
            return
        level, cut_at, evidence_at = case.level.value, proof.cut_at or None, case.decided_at
        await self._keep(
            after,
            AuditKind.CONTAINMENT_PROVEN,
            "cordon",
            level=level,
            seconds=seconds,
            cut_at=cut_at,
            evidence_at=evidence_at,
            steps=steps,
        )

    async def _trouble(self, case: UserCase, trouble: str, steps: tuple[dict[str, object], ...]) -> None:
        """Told once: what goes on being tried for ever would otherwise fill the record."""
        if self.cases.get(case.name) is not case or case.trouble == trouble:
            return
        after = replace(case, trouble=trouble)
        if case.trouble:
            self.cases[case.name] = after
            return
        await self._keep(
            after, AuditKind.CONTAINMENT_FAILED, "cordon", alert=True, wake=False, trouble=trouble, steps=list(steps)
        )

    async def _keep(
        self, case: UserCase, kind: AuditKind, actor: str, *, alert: bool = False, wake: bool = True, **detail: object
    ) -> None:
        """The case and the record's line about it, kept together."""
        now = self._keeper.clock.now()
        entry = AuditEntry(kind, "", actor, case.case_id, {"identity": str(case.subject), **detail}, alert)
        before = self.cases.get(case.name)
        self.cases[case.name] = case
        try:
            await self._keeper.store.commit(StoreWrites(audit=((now, entry),), users=(case,)))
        except BaseException:
            if self.cases.get(case.name) is case:
                self._put_back(case.name, before)
            raise
        if case.is_over and self.cases.get(case.name) is case:
            del self.cases[case.name]
        self._keeper.hand_on(UnitOfWork(audit=[(now, entry)]))
        if wake:
            self._work.set()

    def _put_back(self, name: str, before: UserCase | None) -> None:
        if before is None:
            del self.cases[name]
        else:
            self.cases[name] = before
