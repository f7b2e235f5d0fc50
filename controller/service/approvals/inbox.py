"""The inbox: all questions that need a second person, decided and carried out in one place."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from controller.domain.accounts.caller import Caller
from controller.domain.accounts.grants import check_wanted
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.users import UserCase
from controller.domain.effects import CommandRecord
from controller.domain.events import CommandCountersigned, CommandWithdrawn
from controller.domain.guards.approvals import (
    ApprovalKind,
    ApprovalNotAllowedError,
    ApprovalRequest,
    ApprovalState,
    check_scopes,
    check_second_person,
)
from controller.domain.identity.certificates import Certificate
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.domain.rollout.lifecycle import APPROVAL_TIMEOUT
from controller.domain.rollout.model import Rollout, RolloutState
from controller.domain.scopes import Scope, ordered
from controller.domain.transition import StepOutcome
from controller.ports.errors import BrokerUnreachableError, ControllerError, StoreError
from controller.ports.log import Log
from controller.service.approvals.book import ApprovalBook
from controller.service.containment.operator_actions import OperatorActions
from controller.service.containment.users import UserContainments
from controller.service.fleet_state import FleetState
from controller.service.identity.own_certificates import OwnCertificateInUseError, OwnCertificates
from controller.service.identity.services import IdentityServices
from controller.service.rollout.operations import RolloutOperations
from controller.service.unit_of_work import UnitOfWork

TICK: Final = 5.0  # seconds between two passes over the requests
_MAX_REASON: Final = 500  # characters
_OF_ROLLOUTS: Final = frozenset(kind for kind in AuditKind if kind.value.startswith("rollout."))


@dataclass(frozen=True, slots=True)
class Approved:
    """An approved request, and what was done for it."""

    request: ApprovalRequest
    outcomes: Sequence[StepOutcome] = ()
    user: UserCase | None = None
    certificates: Sequence[Certificate] = ()


class ApprovalInbox:
    """Decides requests and carries out what was approved, also after a restart."""

    def __init__(
        self,
        fleet: FleetState,
        book: ApprovalBook,
        operators: OperatorActions,
        users: UserContainments,
        rollouts: RolloutOperations,
        identity: IdentityServices | None,
        own: OwnCertificates,
        log: Log,
        still: Callable[[Caller], Awaitable[Caller]],
    ) -> None:
        """`still` returns a caller with what they may do by then."""
        self._fleet = fleet
        self.book = book
        self._operators = operators
        self._users = users
        self._rollouts = rollouts
        self._identity = identity
        self._own = own
        self._log = log
        self._still = still
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()  # held while the request of a rollout, and the rollout, change together

    def on_commit(self, batch: UnitOfWork) -> None:
        """Looks at the rollouts when one of them has changed."""
        if any(entry.kind in _OF_ROLLOUTS for _, entry in batch.audit):
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled: carries out what was approved before a restart, and ends what has expired."""
        while True:
            self._changed.clear()
            try:
                await self.run_once()
            except StoreError as e:
                self._log("approvals: this pass failed", {"error": str(e)})
            try:
                async with asyncio.timeout(TICK):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def run_once(self) -> None:
        """One pass."""
        await self.follow_rollouts()
        await self.book.expire()
        for request in self.book.unfinished:
            try:
                await self._carry_out(request)
            except BrokerUnreachableError as e:
                self._log("approvals: an approved request waits for the broker", {"error": str(e)})

    async def approve(self, request_id: str, by: Caller, digest: str | None = None) -> Approved:
        """A second person approves; what follows is stored with the approval, or carried out also after a crash.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: see `check_decision` and `check_scopes`.
            ControllerError: it cannot be carried out as things are; the request stays open.
        """
        request = await self.book.to_approve(request_id, by.principal, digest)
        self._check_scopes(request, by, approves=True)
        if request.kind is ApprovalKind.COMMAND:
            text = f"a command is approved by signing it: cordon command sign {request.subject} --key FILE"
            raise ApprovalNotAllowedError(text)
        if request.kind is ApprovalKind.ROLLOUT:
            return Approved(await self._approve_rollout(request, by.principal))
        await self._check_possible(request)
        await self._fleet.load(request.devices, fresh=True)
        # The broker may have taken its time.
        by, request = await self._still(by), await self.book.to_approve(request_id, by.principal, digest)
        self._check_scopes(request, by, approves=True)
        # Of two approvals at one moment the second finds it approved.
        is_done = request.kind not in (ApprovalKind.CONTAIN_USER, ApprovalKind.REVOKE)

        def decide(now: float, batch: UnitOfWork) -> Approved:
            approved = self.book.approve(request, by.principal, now, batch)
            outcomes: Sequence[StepOutcome] = ()
            if approved.kind in (ApprovalKind.CONTAIN, ApprovalKind.LET_THROUGH):
                outcomes = self._operators.apply_approved(approved, by.principal, now, batch)
            return Approved(self.book.finish(approved, now, batch) if is_done else approved, outcomes)

        decided = await self._fleet.decide(request.devices, decide)
        return decided if is_done else await self._carry_out(decided.request)

    async def _approve_rollout(self, request: ApprovalRequest, by: Principal) -> ApprovalRequest:
        async with self._lock:
            await self._rollouts.approve(request.subject, by)
            now, batch = self._fleet.clock.now(), UnitOfWork()
            done = self.book.finish(self.book.approve(request, by, now, batch), now, batch)
            await self._fleet.commit(batch)
        return done

    async def reject(self, request_id: str, by: Caller, reason: str) -> ApprovalRequest:
        """Whoever may decide it rejects a request; one person is enough, since nothing is done.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it has ended, or a scope is missing.
        """
        request = await self.book.to_end(request_id)
        self._check_scopes(request, by, approves=False)
        return await self._end(request, ApprovalState.REJECTED, by.principal, reason)

    async def withdraw(self, request_id: str, by: Principal, reason: str) -> ApprovalRequest:
        """The requester withdraws a request.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it has ended, or it is another person's.
        """
        request = await self.book.to_end(request_id)
        if request.requester.key != by.key:
            raise ApprovalNotAllowedError("only who made a request withdraws it: reject it")
        return await self._end(request, ApprovalState.WITHDRAWN, by, reason)

    async def end_scopes(self, request_id: str, by: Caller, reason: str) -> ApprovalRequest:
        """Ends scopes for a while early: for oneself, or by whoever could give them.

        Raises:
            KeyError: there is no such request.
            ApprovalNotAllowedError: it gives no scopes now, or a scope is missing.
        """
        request = await self.book.to_end_early(request_id)
        if request.requester.key != by.principal.key:
            self._check_scopes(request, by, approves=False)
        now, batch = self._fleet.clock.now(), UnitOfWork()
        ended = self.book.end_scopes(request, by.principal.actor, now, batch, reason)
        await self._fleet.commit(batch)
        return ended

    async def ask_for_scopes(self, by: Caller, wanted: Sequence[Scope], seconds: float, reason: str) -> ApprovalRequest:
        """Asks for scopes for a while.

        Raises:
            GrantNotPossibleError: see `check_wanted`.
            TooManyApprovalRequestsError: too many requests are open.
        """
        check_wanted(wanted, seconds, by.scopes)
        now, batch = self._fleet.clock.now(), UnitOfWork()
        request = ApprovalRequest(
            self._fleet.new_id(),
            ApprovalKind.SCOPES,
            by.principal,
            reason,
            ContainmentLevel.NONE,
            seconds,
            (),
            now,
            now + self._operators.limits.expiry,
            scopes=ordered(wanted),
        )
        request = self.book.add(request, now, batch)
        await self._fleet.commit(batch)
        return request

    def ask_for_signature(self, command: CommandRecord, by: Principal, now: float, batch: UnitOfWork) -> None:
        """Adds the request of a command that waits for a second signature to the `batch` that issues it."""
        params = " ".join(f"{name}={value}" for name, value in command.params)
        request = ApprovalRequest(
            command.command_id,
            ApprovalKind.COMMAND,
            by,
            f"{command.action} {params}".strip()[:_MAX_REASON],
            ContainmentLevel.NONE,
            None,
            (command.device_id,),
            now,
            command.expires_at,
            subject=command.command_id,
        )
        self.book.add(request, now, batch)

    async def sign(self, device_id: str, event: CommandCountersigned, by: Caller, *, by_hand: bool) -> StepOutcome:
        """Adds the signature of another person to a command; `by_hand`: an operator asked for it.

        Raises:
            ApprovalNotAllowedError: `by` counts as the person who asked for it, or has the scope from them; or that
                one's account or token ended.
        """
        request = await self.book.find(event.command_id)
        if request is None and by_hand:
            raise ApprovalNotAllowedError("this command was not held for a second signature: send it with --hold")
        if request is not None and request.state is not ApprovalState.APPROVED:
            request = await self.book.to_approve(event.command_id, by.principal)
        elif request is not None:
            check_second_person(request.requester, by.principal, self._fleet.clock.now())
        if request is not None:
            self._check_scopes(request, by, approves=True)

        def decide(now: float, batch: UnitOfWork) -> StepOutcome:
            outcome = self._fleet.apply(self._fleet.known_or_new(device_id, now), event, now, batch)
            if outcome.commands and request is not None and request.state is ApprovalState.OPEN:
                self.book.finish(self.book.approve(request, by.principal, now, batch), now, batch)
            return outcome

        return await self._fleet.decide((device_id,), decide)

    async def withdraw_command(self, device_id: str, command_id: str, by: Principal, reason: str) -> StepOutcome:
        """Ends an open command, and its request if it still waits for a signature; it is not sent any more."""

        def decide(now: float, batch: UnitOfWork) -> StepOutcome:
            event = CommandWithdrawn(self._fleet.new_id(), command_id, by.actor, reason)
            outcome = self._fleet.apply(self._fleet.known_or_new(device_id, now), event, now, batch)
            request = next((one for one in self.book.open if one.request_id == command_id), None)
            if request is not None and outcome.commands:
                state = ApprovalState.WITHDRAWN if request.requester.key == by.key else ApprovalState.REJECTED
                self.book.end(request, state, by.actor, now, batch, reason)
            return outcome

        return await self._fleet.decide((device_id,), decide)

    async def follow_rollouts(self) -> None:
        """Opens a request for each rollout that waits for a second person, and ends those of the others."""
        async with self._lock:
            going_on = (one for one in self._rollouts.open() if one.state is RolloutState.AWAITING_APPROVAL)
            waiting = {one.rollout_id: one for one in going_on}
            # One that has ended with its requester stays ended.
            new = [one for key, one in waiting.items() if await self.book.find(key) is None]
            asked = [one for one in self.book.open if one.kind is ApprovalKind.ROLLOUT and one.subject not in waiting]
            over = [(one, await self._rollouts.store.rollout(one.subject)) for one in asked]
            now, batch = self._fleet.clock.now(), UnitOfWork()
            for rollout in new:
                self.book.add(_of_rollout(rollout, now), now, batch)
            for request, found in over:
                if found is not None and found.approved_by:
                    self.book.end(request, ApprovalState.APPROVED, found.approved_by, now, batch)
                else:
                    why = "" if found is None else f"the rollout is {found.state.value}: {found.why}"
                    self.book.end(request, ApprovalState.EXPIRED, "cordon", now, batch, why)
            await self._fleet.commit(batch)

    def _check_scopes(self, request: ApprovalRequest, by: Caller, *, approves: bool) -> None:
        now = self._fleet.clock.now()
        check_scopes(request, by.scopes, self.book.grants.of(by.principal.key, now), now, approves=approves)

    async def _check_possible(self, request: ApprovalRequest) -> None:
        """Checks what the guards say by now.

        Raises:
            ControllerError: it cannot be carried out.
        """
        devices = request.devices
        if request.kind is ApprovalKind.CONTAIN_USER:
            devices = await self._users.sessions_to_cut(request.username)
        elif request.kind is ApprovalKind.REVOKE:
            if self._identity is None:
                raise ControllerError("this controller has no certificate authority any more")
            found = [await self._identity.certificates.registry.find(serial) for serial in request.serials]
            if await self._own.uses([one for one in found if one is not None]):
                raise OwnCertificateInUseError
        await self._operators.check_protected(devices, even_protected=request.even_protected)

    async def _carry_out(self, request: ApprovalRequest) -> Approved:
        """Carries out what was approved, once more after a crash: it is idempotent.

        Raises:
            BrokerUnreachableError, StoreError: not now; it is tried again.
        """
        user: UserCase | None = None
        certificates: Sequence[Certificate] = ()
        trouble = "" if request.digest == request.approved_digest else "it was changed after the approval"
        both = f"{request.by} with {request.decided_by}"
        try:
            if not trouble:
                await self._check_possible(request)
                if request.kind is ApprovalKind.CONTAIN_USER:
                    user = await self._users.contain(
                        request.username, request.level, by=both, reason=request.reason, hold=request.hold
                    )
                elif request.kind is ApprovalKind.REVOKE and self._identity is not None:
                    revoke = self._identity.revocation.revoke
                    certificates = await revoke(request.serials, both, request.word, request.reason)
        except (BrokerUnreachableError, StoreError):
            raise
        except ControllerError as e:
            trouble = str(e)
        now, batch = self._fleet.clock.now(), UnitOfWork()
        done = self.book.finish(request, now, batch, trouble)
        await self._fleet.commit(batch)
        return Approved(done, user=user, certificates=certificates)

    async def _end(self, request: ApprovalRequest, state: ApprovalState, by: Principal, reason: str) -> ApprovalRequest:
        async with self._lock:
            if request.kind is ApprovalKind.ROLLOUT:
                await self._rollouts.abort(request.subject, by.actor, revert=False, reason=reason)
            ids = request.devices[:1] if request.kind is ApprovalKind.COMMAND else ()

            def decide(now: float, batch: UnitOfWork) -> ApprovalRequest:
                ended = self.book.end(request, state, by.actor, now, batch, reason)
                for device in [one for one in map(self._fleet.get, ids) if one is not None]:
                    event = CommandWithdrawn(self._fleet.new_id(), request.subject, by.actor, reason)
                    self._fleet.apply(device, event, now, batch)
                return ended

            return await self._fleet.decide(ids, decide)


def _of_rollout(rollout: Rollout, now: float) -> ApprovalRequest:
    """The request of a rollout that waits; a policy's is nobody's own."""
    starter, following = rollout.starter, rollout.rings[rollout.ring + 1]
    return ApprovalRequest(
        rollout.rollout_id,
        ApprovalKind.ROLLOUT,
        starter or Principal("", rollout.by),
        f"{rollout.target.path} to {following.total} devices of ring {following.name}: {rollout.reason}"[:_MAX_REASON],
        ContainmentLevel.NONE,
        None,
        (),
        now,
        now + APPROVAL_TIMEOUT,
        subject=rollout.rollout_id,
        asked_by="" if starter is not None else rollout.by,
    )
