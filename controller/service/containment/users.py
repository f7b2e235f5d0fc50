"""Contains users by name: every session they have, and sessions that appear while they are contained."""

import asyncio
from dataclasses import replace
from typing import Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.plan import Subject
from controller.domain.containment.users import (
    UserCase,
    contain_user,
    end_user_isolation,
    is_isolation_over,
    release_user,
)
from controller.domain.effects import AuditEntry
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import ContainmentBroker, Proof
from controller.ports.errors import ControllerError
from controller.ports.log import Log
from controller.ports.store import StoreWrites
from controller.service.containment.broker_effects import ContainmentExecutor
from controller.service.containment.enforcer import steps_of
from controller.service.fleet_state import FleetState
from controller.service.unit_of_work import UnitOfWork

MAX_CASES: Final = 1000  # users contained at once: each costs a few requests in every comparison
SHOWN: Final = 5  # differences in one audit entry


class TooManyUsersError(ControllerError):
    """More users are contained than can be compared in time."""


class OwnUserError(ControllerError):
    """It is the user of Cordon's own MQTT connection."""

    def __init__(self) -> None:
        super().__init__("That is the user of Cordon's own MQTT connection: nothing was done.")


class UserContainments:
    """The cases of contained users: carried out at the broker until they are proven, then compared with it.

    Cases need no outbox: an unproven case is what is still to be carried out, and it is stored with its decision.
    """

    def __init__(self, fleet: FleetState, broker: ContainmentBroker, every: float, log: Log) -> None:
        """`every`: seconds between comparisons."""
        self._fleet = fleet
        self._broker = broker
        self._executor = ContainmentExecutor(fleet, broker)
        self._every = every
        self._log = log
        self._work = asyncio.Event()
        self.cases: dict[str, UserCase] = {}

    @property
    def broker(self) -> ContainmentBroker:
        return self._broker

    async def load(self) -> None:
        self.cases = {case.name: case for case in await self._fleet.store.user_cases()}

    async def sessions_to_cut(self, name: str) -> tuple[str, ...]:
        """Returns the client ids of the user's sessions now.

        Raises:
            BrokerRefusedError: not a user name that Cordon acts on.
            OwnUserError: it is the user of Cordon's own MQTT connection.
        """
        self._broker.check(Subject.user(name))
        sessions = await self._broker.sessions(name)
        own = self._fleet.own
        if name in own.usernames or own.among(one.client_id for one in sessions):
            raise OwnUserError
        return tuple(one.client_id for one in sessions)

    async def contain(
        self, name: str, level: ContainmentLevel, *, by: str, reason: str, hold: float | None
    ) -> UserCase:
        """Decides and stores the decision, which `run` carries out; `hold` seconds bound an isolation.

        Raises:
            BrokerRefusedError: not a user name that Cordon acts on.
            TooManyUsersError: `MAX_CASES` users are contained.
        """
        self._broker.check(Subject.user(name))
        before = self.cases.get(name)
        if before is None and len(self.cases) >= MAX_CASES:
            raise TooManyUsersError(f"{MAX_CASES} users are contained already")
        now = self._fleet.clock.now()
        case = contain_user(before, name, self._fleet.new_id(), level, by=by, reason=reason, now=now, hold=hold)
        kind = AuditKind.CONTAINMENT_KEPT if case is before else AuditKind.CONTAINMENT_DECIDED
        until = None if hold is None else now + hold
        await self._save(case, kind, by, level=case.level.value, reason=reason, until=until)
        return case

    async def release(self, name: str, *, by: str, reason: str) -> UserCase | None:
        """Decides and stores the decision; `None` if the user is not contained."""
        before = self.cases.get(name)
        if before is None:
            return None
        case = release_user(before, by=by, reason=reason, now=self._fleet.clock.now())
        is_free = case.level is ContainmentLevel.NONE
        kind = AuditKind.CONTAINMENT_RELEASE_DECIDED if is_free else AuditKind.CONTAINMENT_STEPPED_DOWN
        await self._save(case, kind, by, reason=reason)
        return case

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            self._work.clear()
            await self.tick()
            try:
                async with asyncio.timeout(self._every):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def tick(self) -> None:
        """Ends isolations whose time is over, carries out unproven cases, compares proven ones with the broker."""
        for name in list(self.cases):
            case, now = self.cases[name], self._fleet.clock.now()
            if is_isolation_over(case, now):
                reason = "its time is over"
                case = end_user_isolation(case, reason, now)
                await self._save(case, AuditKind.CONTAINMENT_STEPPED_DOWN, "cordon", reason=reason)
            try:
                await self._enforce(case)
            except ControllerError as e:
                await self._record_failure(case, str(e), ())

    async def _enforce(self, case: UserCase) -> None:
        if case.is_proven:
            missing = await self._broker.missing(case.subject, case.level)
            if not missing or self.cases.get(case.name) is not case:
                return
            what = "; ".join(missing[:SHOWN])
            case = replace(case, proven_level=None)
            await self._save(case, AuditKind.BROKER_DRIFT_FOUND, "cordon", alert=True, what=what)
        proof = await self._carry_out(case)
        if not proof.holds:
            nodes = tuple((one.node, one.reason) for one in proof.unread) if proof.is_partial else ()
            await self._record_failure(case, proof.trouble, steps_of(proof), nodes)
        elif self.cases.get(case.name) is case:  # not if an operator has decided anew
            await self._record_proof(case, proof)

    async def _carry_out(self, case: UserCase) -> Proof:
        executor, subject, case_id = self._executor, case.subject, case.case_id
        match case.level:
            case ContainmentLevel.RESTRICTED if case.proven_level is ContainmentLevel.ISOLATED:
                return await executor.end_isolation(subject, case_id)
            case ContainmentLevel.RESTRICTED:
                # A ban of an isolation that a restart interrupted is lifted too, with the restriction below it.
                proof = await executor.restrict(subject, case_id)
                if not proof.holds:
                    return proof
                lifted = await executor.end_isolation(subject, case_id)
                return replace(lifted, steps=proof.steps + lifted.steps, cut_at=proof.cut_at)
            case ContainmentLevel.ISOLATED:
                return await executor.isolate(subject, case_id, reason=case.reason, until=case.until)
            case ContainmentLevel.NONE:
                return await executor.release(subject, case_id)

    async def _record_proof(self, case: UserCase, proof: Proof) -> None:
        now, left_open = self._fleet.clock.now(), proof.left_open
        after = replace(case, proven_level=case.level, proven_at=now, trouble="", unread=(), left_open=left_open)
        steps = list(steps_of(proof))
        if case.level is ContainmentLevel.NONE:
            await self._save(after, AuditKind.CONTAINMENT_RELEASE_PROVEN, "cordon", steps=steps)
            return
        await self._save(
            after,
            AuditKind.CONTAINMENT_PROVEN,
            "cordon",
            level=case.level.value,
            seconds=max(0.0, proof.cut_at - case.decided_at) if proof.cut_at else None,
            cut_at=proof.cut_at or None,
            evidence_at=case.decided_at,
            left_open=list(left_open),
            steps=steps,
        )

    async def _record_failure(
        self,
        case: UserCase,
        trouble: str,
        steps: tuple[dict[str, object], ...],
        unread: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Only the first failure of a kind is audited: retries without end would fill the audit log."""
        if self.cases.get(case.name) is not case or (case.trouble, case.unread) == (trouble, unread):
            return
        after = replace(case, trouble=trouble, unread=unread)
        if case.trouble and bool(case.unread) == bool(unread):
            self.cases[case.name] = after
            return
        kind = AuditKind.CONTAINMENT_PARTLY_PROVEN if unread else AuditKind.CONTAINMENT_FAILED
        detail = {"unread": [{"node": node, "reason": reason} for node, reason in unread]} if unread else {}
        if unread:
            detail["level"] = case.level.value  # type: ignore[assignment]
        await self._save(after, kind, "cordon", alert=True, wake=False, trouble=trouble, steps=list(steps), **detail)

    async def _save(
        self, case: UserCase, kind: AuditKind, actor: str, *, alert: bool = False, wake: bool = True, **detail: object
    ) -> None:
        """Commits the case with its audit entry."""
        now = self._fleet.clock.now()
        entry = AuditEntry(kind, "", actor, case.case_id, {"identity": str(case.subject), **detail}, alert)
        before = self.cases.get(case.name)
        self.cases[case.name] = case
        try:
            await self._fleet.store.commit(StoreWrites(audit=((now, entry),), users=(case,)))
        except BaseException:
            if self.cases.get(case.name) is case:
                self._restore(case.name, before)
            raise
        if case.is_over and self.cases.get(case.name) is case:
            del self.cases[case.name]
        self._fleet.publish_committed(UnitOfWork(audit=[(now, entry)]))
        if wake:
            self._work.set()

    def _restore(self, name: str, before: UserCase | None) -> None:
        if before is None:
            del self.cases[name]
        else:
            self.cases[name] = before
