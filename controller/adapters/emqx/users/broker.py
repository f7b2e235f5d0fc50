"""Users and certificates at EMQX: the same plans as for a client, done with what acts on a user."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.containment.context import Place, Scene, Wish
from controller.adapters.emqx.containment.describe import ban_wish
from controller.adapters.emqx.containment.runner import carry_out, see
from controller.adapters.emqx.users.actions import USER
from controller.adapters.emqx.users.describe import described_user
from controller.domain.containment.plan import (
    IdentityKind,
    Look,
    Plan,
    Stage,
    end_of_isolation_plan,
    isolation_plan,
    release_plan,
    restriction_plan,
)
from controller.domain.policy.model import Level
from controller.ports.broker import Intent, KeepRules, PlannedStage, Proof, Rules
from controller.ports.clock import Clock
from controller.ports.users import Session, UserBroker

_COMMON_NAME: Final = "cn"
_WANTED: Final[dict[Level, tuple[Look, ...]]] = {
    Level.NONE: (Look.UNBANNED,),
    Level.RESTRICTED: (Look.RESTRICTED, Look.QUIET, Look.UNBANNED),
    Level.ISOLATED: (Look.RESTRICTED, Look.OUT),
}


class EmqxUsers(UserBroker):
    """See the port."""

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        """Use these calls."""
        self._api = api
        self._clock = clock
        self._place = Place.at(api, clock)

    def check(self, username: str) -> None:
        """See the port."""
        requests.user_segment(username)

    async def sessions(self, username: str) -> Sequence[Session]:
        """See the port."""
        found = await self._api.sessions_of(username)
        return tuple(Session(each.clientid, each.username or "", each.connected, each.node) for each in found)

    async def named_by_certificate(self) -> frozenset[IdentityKind]:
        """See the port."""
        mqtt = (await self._api.zone()).mqtt
        found = set()
        if mqtt.peer_cert_as_clientid == _COMMON_NAME:
            found.add(IdentityKind.CLIENT)
        if mqtt.peer_cert_as_username == _COMMON_NAME:
            found.add(IdentityKind.USER)
        return frozenset(found)

    def planned(self, username: str, intent: Intent) -> tuple[PlannedStage, ...]:
        """See the port."""
        return described_user(username, intent)

    async def restrict(self, username: str, keep: KeepRules) -> Proof:
        """See the port."""
        return await self._carry_out(username, restriction_plan(), Wish(keep_rules=keep))

    async def isolate(self, username: str, keep: KeepRules, *, case: str, reason: str, until: float | None) -> Proof:
        """See the port."""
        wish = replace(ban_wish(case, reason, until), keep_rules=keep)
        return await self._carry_out(username, isolation_plan(of=IdentityKind.USER), wish)

    async def end_isolation(self, username: str) -> Proof:
        """See the port."""
        return await self._carry_out(username, end_of_isolation_plan(), Wish())

    async def release(self, username: str, kept: Rules) -> Proof:
        """See the port."""
        return await self._carry_out(username, release_plan(), Wish(kept_rules=kept))

    async def missing(self, username: str, level: Level) -> Sequence[str]:
        """See the port."""
        scene = self._scene(username, Wish())
        # Its time is up before it begins: it looks once and waits for nothing.
        return await see(replace(scene, deadline=self._clock.monotonic() - 1), Stage(see=_WANTED[level]), USER)

    async def _carry_out(self, username: str, plan: Plan, wish: Wish) -> Proof:
        return await carry_out(self._scene(username, wish), plan, USER)

    def _scene(self, username: str, wish: Wish) -> Scene:
        requests.user_segment(username)
        return Scene.of(self._place, username, wish)
