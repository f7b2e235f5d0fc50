"""The life of requests: any order of asking, deciding, withdrawing, time, disabled accounts and kills.

With more examples: CORDON_TEST_APPROVALS=500 pytest tests/property/test_approvals.py
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.domain.accounts.caller import Caller
from controller.domain.accounts.grants import MAX_GRANT
from controller.domain.guards.approvals import (
    ApprovalKind,
    ApprovalNotAllowedError,
    ApprovalRequest,
    ApprovalState,
    has_ended,
)
from controller.domain.policy.model import ContainmentLevel
from controller.domain.scopes import ALL, Scope
from controller.service.accounts.operations import AccountError, Administrator
from controller.service.containment.operator_actions import OperatorRequest
from tests.support.clocks import ManualClock
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.persons import account_of, put_holder, token_of

pytestmark = pytest.mark.slow

EXAMPLES: Final = int(os.environ.get("CORDON_TEST_APPROVALS", "12"))
EXPIRY: Final = 7200.0  # seconds
ROLES: Final = {"ada": "admin", "bob": "operator", "cy": "operator", "eve": "viewer"}
BASIS: Final = {"ada": set(ALL), "bob": {Scope.READ, Scope.CONTAIN, Scope.COMMAND}, "eve": {Scope.READ}}
BASIS["cy"] = BASIS["bob"]
people = st.sampled_from(sorted(ROLES))


class Approvals(RuleBasedStateMachine):
    """Keeps its own account of who asked and who decided, and compares it with what the controller stores."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._folder = Path(tempfile.mkdtemp(prefix="cordon-approvals-"))
        self.clock = ManualClock()
        self._stack = contextlib.AsyncExitStack()
        self.place: ControllerHarness
        self.asked: dict[str, tuple[str, float]] = {}  # by request: who asked, and when
        self.ended: dict[str, ApprovalState] = {}
        self.lent: dict[str, tuple[str, set[Scope], float]] = {}  # by request: to whom, what, until when
        self._open(self._people)

    def _open(self, then: Callable[[], Awaitable[None]] | None = None) -> None:
        tables = {"guards": {"by_hand": 1, "request_expiry": f"{EXPIRY:g}s"}}
        made = open_harness(self._folder / "cordon.db", clock=self.clock, settings=tables)
        self.place = self._run(self._stack.enter_async_context(made))
        if then is not None:
            self._run(then())

    async def _people(self) -> None:
        for name, role in ROLES.items():
            await put_holder(self.place.store, token_of(name), role)

    def _run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def teardown(self) -> None:
        self._run(self._stack.aclose())
        self._loop.close()
        shutil.rmtree(self._folder)

    def _caller(self, name: str) -> Caller | None:
        token = next(one for one in self._run(self.place.store.tokens()) if one.name == name)
        if token.is_over(self.clock.at):
            return None
        found: Caller | None = self._run(self.place.services.authentication.of_token(token, ""))
        return found

    def _request(self, request_id: str) -> ApprovalRequest:
        found = self._run(self.place.store.approval(request_id))
        assert isinstance(found, ApprovalRequest)
        return found

    @rule(who=people, devices=st.sets(st.sampled_from(["d1", "d2", "d3", "d4"]), min_size=2))
    def asks_to_contain(self, who: str, devices: set[str]) -> None:
        caller = self._caller(who)
        if caller is None or Scope.CONTAIN not in caller.scopes:
            return
        wanted = tuple(sorted(devices))
        action = OperatorRequest(ApprovalKind.CONTAIN, wanted, caller.principal, "r", ContainmentLevel.ISOLATED)
        found = self._run(self.place.services.containment.operators.decide(action))
        assert isinstance(found, ApprovalRequest), "more than one device needs two persons"
        self.asked.setdefault(found.request_id, (who, self.clock.at))

    @rule(who=people, hours=st.integers(1, 8))
    def asks_for_scopes(self, who: str, hours: int) -> None:
        caller = self._caller(who)
        if caller is None or Scope.CONTAIN in caller.scopes:
            return
        inbox = self.place.services.approvals
        found = self._run(inbox.ask_for_scopes(caller, [Scope.CONTAIN], hours * 3600.0, "r"))
        self.asked.setdefault(found.request_id, (who, self.clock.at))

    @rule(who=people, how=st.sampled_from(["approve", "approve", "reject", "withdraw", "end"]), data=st.data())
    def decides(self, who: str, how: str, data: st.DataObject) -> None:
        caller = self._caller(who)
        if caller is None or not self.asked:
            return
        request_id = data.draw(st.sampled_from(sorted(self.asked)))
        before, by = self._request(request_id), self.asked[request_id][0]
        inbox = self.place.services.approvals
        try:
            match how:
                case "approve":
                    self._run(inbox.approve(request_id, caller))
                case "reject":
                    self._run(inbox.reject(request_id, caller, "no"))
                case "withdraw":
                    self._run(inbox.withdraw(request_id, caller.principal, "over"))
                case _:
                    self._run(inbox.end_scopes(request_id, caller, "over"))
                    self.lent.pop(request_id)
                    return
        except ApprovalNotAllowedError:
            assert self._request(request_id) == before, "what is refused changes nothing"
            return
        assert before.state_at(self.clock.at) is ApprovalState.OPEN, "a request is decided once"
        after = self._request(request_id)
        assert not after.unfinished
        self.ended[request_id] = after.state
        if how == "approve":
            assert who != by, "nobody approves their own request"
            assert set(before.needed) <= caller.scopes
            assert after.kind is not ApprovalKind.SCOPES or set(before.needed) <= BASIS[who]
            if after.kind is ApprovalKind.SCOPES:
                self.lent[request_id] = (by, set(before.scopes), self.clock.at + (before.hold or 0.0))
        assert (how == "withdraw") <= (who == by), "only who asked withdraws"

    @rule(seconds=st.sampled_from([1.0, 1800.0, EXPIRY, MAX_GRANT]))
    def time_passes(self, seconds: float) -> None:
        self.clock.at += seconds
        self._run(self.place.services.approvals.run_once())

    @rule(who=people, enabled=st.booleans())
    def is_disabled_or_enabled(self, who: str, enabled: bool) -> None:
        accounts = self.place.services.accounts
        account = self._run(accounts.store.account(account_of(who).account_id))
        with contextlib.suppress(AccountError):  # the last administrator stays
            self._run(accounts.operations.set_enabled(account, Administrator(), self.clock.at, enabled=enabled))
            if not enabled:
                self.lent = {key: one for key, one in self.lent.items() if one[0] != who}
                for request_id, (by, _) in self.asked.items():
                    assert by != who or self._request(request_id).state is not ApprovalState.OPEN
        if enabled:
            self._run(self.place.store.put_token(token_of(who)))  # it would stay ended

    @rule()
    def is_killed(self) -> None:
        self._run(self._stack.aclose())
        self._stack = contextlib.AsyncExitStack()
        self._open()

    @invariant()
    def what_has_ended_stays_so(self) -> None:
        for request_id, state in self.ended.items():
            assert self._request(request_id).state is state

    @invariant()
    def nothing_is_contained_without_two(self) -> None:
        found = [self._request(request_id) for request_id in self.asked]
        allowed = {name for one in found if one.state is ApprovalState.APPROVED for name in one.devices}
        for device in devices_of(self.place.fleet).values():
            assert device.case is None or device.device_id in allowed
            assert device.case is None or " with " in device.case.by

    @invariant()
    def scopes_are_those_of_role_and_grants(self) -> None:
        for name in ROLES:
            caller = self._caller(name)
            mine = (scopes for by, scopes, end in self.lent.values() if by == name and self.clock.at < end)
            lent = {scope for scopes in mine for scope in scopes}
            assert caller is None or set(caller.scopes) == BASIS[name] | lent

    @invariant()
    def memory_is_what_is_stored(self) -> None:
        standing = self._run(self.place.services.authentication.standing())
        for one in self.place.services.approvals.book.open:
            assert self._request(one.request_id) == one
            assert not has_ended(one.requester, standing) or one.kind is ApprovalKind.CONTAIN


TestApprovals = Approvals.TestCase
TestApprovals.settings = settings(max_examples=EXAMPLES, stateful_step_count=30, deadline=None)
