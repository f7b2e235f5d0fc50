"""EMQX as the port's broker: the sequences and settings behind one object."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.http import EmqxHttpClient, HttpLimits
from controller.adapters.emqx.containment.authentication import AuthStrengthEvaluator
from controller.adapters.emqx.containment.context import BrokerContext, ContainmentRequest, RunContext
from controller.adapters.emqx.containment.describe import ban_wish, described
from controller.adapters.emqx.containment.runner import carry_out
from controller.domain.containment.plan import (
    ContainmentPlan,
    end_of_isolation_plan,
    isolation_plan,
    release_plan,
    restriction_plan,
)
from controller.ports.broker import (
    AuthStrength,
    BrokerControl,
    PlannedStage,
    PlanParameters,
    Proof,
    SavedSubscription,
    SaveRules,
    SaveSubscriptions,
    keep_no_subscriptions,
)
from controller.ports.broker_tables import AccessRules, Ban
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError


class EmqxBroker(BrokerControl):
    """Contains, reads back and releases over EMQX's HTTP API."""

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        """Use these calls; `open_emqx` builds both."""
        self.api = api
        self._clock = clock
        self._place = BrokerContext.at(api, clock)
        self._nodes = self._place.nodes
        self._grading = AuthStrengthEvaluator(api, clock, self._place.shared.urgent_clients)

    async def restrict(
        self,
        client_id: str,
        keep: SaveRules,
        *,
        keep_subscriptions: SaveSubscriptions = keep_no_subscriptions,
        kick: bool = False,
    ) -> Proof:
        """See the port."""
        wish = ContainmentRequest(keep_rules=keep, keep_subscriptions=keep_subscriptions)
        return await self._carry_out(client_id, restriction_plan(kick=kick), wish)

    async def isolate(
        self,
        client_id: str,
        keep: SaveRules,
        *,
        case: str,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
    ) -> Proof:
        """See the port."""
        wish = replace(ban_wish(case, reason, until), keep_rules=keep)
        return await self._carry_out(client_id, isolation_plan(clear_retained=clear_retained), wish)

    async def end_isolation(self, client_id: str, keep: SaveRules) -> Proof:
        """See the port."""
        return await self._carry_out(client_id, end_of_isolation_plan(), ContainmentRequest(keep_rules=keep))

    async def release(
        self, client_id: str, kept: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        """See the port."""
        return await self._carry_out(
            client_id, release_plan(), ContainmentRequest(kept_rules=kept, kept_subscriptions=subscriptions)
        )

    def planned(self, client_id: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
        """See the port."""
        return described(client_id, intent)

    async def grade(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        """See the port."""
        return await self._grading.grade(client_id, heard_at)

    async def admits_unproven(self) -> bool:
        """See the port."""
        return await self._grading.admits_unproven()

    async def lists_retained(self) -> bool:
        """See the port."""
        return await self.api.maybe(requests.list_retained(limit=1)) is not None

    def bans(self) -> AsyncIterator[Ban]:
        """See the port."""
        return self.api.bans()

    async def ping(self) -> Sequence[tuple[str, bool, str]]:
        """See the port."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ping(base)) for base in self.api.addresses]
        return [task.result() for task in tasks]

    async def _ping(self, base: str) -> tuple[str, bool, str]:
        here = self.api.at(base)
        try:
            rows = await here.nodes()
            await self._nodes.learn(here, base)
        except BrokerError as e:
            return base, False, str(e)
        name = self._nodes.name(base)
        mine = next((row for row in rows if row.node == name), None)
        return base, True, "" if mine is None else f"{mine.edition} {mine.version}".strip()

    async def _carry_out(self, client_id: str, plan: ContainmentPlan, wish: ContainmentRequest) -> Proof:
        requests.segment(client_id)
        return await carry_out(RunContext.of(self._place, client_id, wish), plan)


@asynccontextmanager
async def open_emqx(
    addresses: Sequence[str],
    key: str,
    secret: str,
    *,
    clock: Clock,
    limits: HttpLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[EmqxBroker]:
    """The broker behind these API addresses (base URLs without a path).

    Raises:
        ValueError: an address that is none.
    """
    async with EmqxHttpClient(addresses, key, secret, clock=clock, limits=limits, tls=tls) as http:
        yield EmqxBroker(EmqxApi(http), clock)
