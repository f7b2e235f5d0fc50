"""Users and certificates at EMQX: the same plans as for a client, done with what acts on a user."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.containment.context import BrokerContext, ContainmentRequest, RunContext
from controller.adapters.emqx.containment.describe import ban_wish
from controller.adapters.emqx.containment.runner import carry_out, see
from controller.adapters.emqx.users.actions import USER
from controller.adapters.emqx.users.describe import described_user
from controller.domain.containment.plan import (
    ContainmentCheck,
    ContainmentPlan,
    PlanStage,
    SubjectKind,
    end_of_isolation_plan,
    isolation_plan,
    release_plan,
    restriction_plan,
)
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import PlannedStage, PlanParameters, Proof, SaveRules
from controller.ports.broker_tables import AccessRules
from controller.ports.clock import Clock
from controller.ports.users import MqttSession, UserBroker

_COMMON_NAME: Final = "cn"
_WANTED: Final[dict[ContainmentLevel, tuple[ContainmentCheck, ...]]] = {
    ContainmentLevel.NONE: (ContainmentCheck.UNBANNED,),
    ContainmentLevel.RESTRICTED: (ContainmentCheck.RESTRICTED, ContainmentCheck.QUIET, ContainmentCheck.UNBANNED),
    ContainmentLevel.ISOLATED: (ContainmentCheck.RESTRICTED, ContainmentCheck.OUT),
}


class EmqxUsers(UserBroker):
    """See the port."""

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        """Use these calls."""
        self._api = api
        self._clock = clock
        self._place = BrokerContext.at(api, clock)

    def check(self, username: str) -> None:
        """See the port."""
        requests.user_segment(username)

    async def sessions(self, username: str) -> Sequence[MqttSession]:
        """See the port."""
        found = await self._api.sessions_of(username)
        return tuple(MqttSession(each.clientid, each.username or "", each.connected, each.node) for each in found)

    async def named_by_certificate(self) -> frozenset[SubjectKind]:
        """See the port."""
        mqtt = (await self._api.zone()).mqtt
        found = set()
        if mqtt.peer_cert_as_clientid == _COMMON_NAME:
            found.add(SubjectKind.CLIENT)
        if mqtt.peer_cert_as_username == _COMMON_NAME:
            found.add(SubjectKind.USER)
        return frozenset(found)

    def planned(self, username: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
        """See the port."""
        return described_user(username, intent)

    async def restrict(self, username: str, keep: SaveRules) -> Proof:
        """See the port."""
        return await self._carry_out(username, restriction_plan(), ContainmentRequest(keep_rules=keep))

    async def isolate(self, username: str, keep: SaveRules, *, case: str, reason: str, until: float | None) -> Proof:
        """See the port."""
        wish = replace(ban_wish(case, reason, until), keep_rules=keep)
        return await self._carry_out(username, isolation_plan(of=SubjectKind.USER), wish)

    async def end_isolation(self, username: str) -> Proof:
        """See the port."""
        return await self._carry_out(username, end_of_isolation_plan(), ContainmentRequest())

    async def release(self, username: str, kept: AccessRules) -> Proof:
        """See the port."""
        return await self._carry_out(username, release_plan(), ContainmentRequest(kept_rules=kept))

    async def missing(self, username: str, level: ContainmentLevel) -> Sequence[str]:
        """See the port."""
        scene = self._scene(username, ContainmentRequest())
        # Its time is up before it begins: it looks once and waits for nothing.
        return await see(replace(scene, deadline=self._clock.monotonic() - 1), PlanStage(see=_WANTED[level]), USER)

    async def _carry_out(self, username: str, plan: ContainmentPlan, wish: ContainmentRequest) -> Proof:
        return await carry_out(self._scene(username, wish), plan, USER)

    def _scene(self, username: str, wish: ContainmentRequest) -> RunContext:
        requests.user_segment(username)
        return RunContext.of(self._place, username, wish)
