"""EMQX as the port's broker: the one object that the rest of the controller contains devices and users with."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi, find_sessions
from controller.adapters.emqx.client.cluster import ClusterNodes
from controller.adapters.emqx.client.http import EmqxHttpClient, HttpLimits
from controller.adapters.emqx.client.paths import subject_segment
from controller.adapters.emqx.client.prefixes import PrefixesInUse
from controller.adapters.emqx.client.slots import CallRank
from controller.adapters.emqx.containment.authentication import AuthStrengthEvaluator
from controller.adapters.emqx.containment.context import BrokerContext, ContainmentRequest, RunContext
from controller.adapters.emqx.containment.runner import carry_out, compare, describe
from controller.adapters.emqx.containment.verification import HOLD_SECONDS
from controller.domain.containment.plan import (
    ContainmentGoal,
    ContainmentPlan,
    Subject,
    SubjectKind,
    end_of_isolation_plan,
    isolation_plan,
    release_plan,
    restriction_plan,
)
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import (
    AuthStrength,
    BrokerControl,
    MqttSession,
    PlannedStage,
    PlanParameters,
    Proof,
    SavedSubscription,
    SaveRules,
    SaveSubscriptions,
    save_no_subscriptions,
)
from controller.ports.broker_tables import AccessRules, Ban
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError, BrokerNotFoundError

_COMMON_NAME: Final = "cn"


class EmqxBroker(BrokerControl):
    """Contains, reads back and releases over EMQX's HTTP API; `open_emqx` makes one."""

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        self.api = api
        self._context = BrokerContext.create(api, clock)
        self._authentication = AuthStrengthEvaluator(api, clock, self._context.shared.urgent_clients)

    @property
    def cluster(self) -> ClusterNodes:
        return self._context.cluster

    @property
    def prefixes(self) -> PrefixesInUse:
        return self._context.prefixes

    # Containment

    def check(self, subject: Subject) -> None:
        subject_segment(subject)

    def planned(self, subject: Subject, parameters: PlanParameters) -> tuple[PlannedStage, ...]:
        return describe(subject, parameters)

    async def restrict(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        save_subscriptions: SaveSubscriptions = save_no_subscriptions,
        kick: bool = False,
        violates: bool = False,
    ) -> Proof:
        request = ContainmentRequest(
            save_rules=save_rules, save_subscriptions=save_subscriptions, rank=_rank(violates=violates)
        )
        return await self._carry_out(subject, restriction_plan(kick=kick), request)

    async def isolate(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        case: str,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
        violates: bool = False,
    ) -> Proof:
        parameters = PlanParameters(ContainmentGoal.ISOLATE, case, reason, until)
        rank = _rank(violates=violates)
        request = replace(ContainmentRequest.of(parameters), save_rules=save_rules, rank=rank)
        return await self._carry_out(subject, isolation_plan(subject.kind, clear_retained=clear_retained), request)

    async def end_isolation(self, subject: Subject, save_rules: SaveRules) -> Proof:
        return await self._carry_out(subject, end_of_isolation_plan(), ContainmentRequest(save_rules=save_rules))

    async def release(
        self, subject: Subject, rules: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        request = ContainmentRequest(saved_rules=rules, saved_subscriptions=subscriptions)
        return await self._carry_out(subject, release_plan(), request)

    async def missing(self, subject: Subject, level: ContainmentLevel) -> Sequence[str]:
        return await compare(self._run(subject, ContainmentRequest()), level)

    async def _carry_out(self, subject: Subject, plan: ContainmentPlan, request: ContainmentRequest) -> Proof:
        return await carry_out(self._run(subject, request), plan)

    def _run(self, subject: Subject, request: ContainmentRequest) -> RunContext:
        self.check(subject)
        return RunContext.start(self._context, subject, request, HOLD_SECONDS)

    # Identities and sessions

    async def auth_strength(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        return await self._authentication.auth_strength(client_id, heard_at)

    async def is_connected(self, client_id: str) -> bool:
        return await self._authentication.is_connected(client_id)

    async def has_session(self, client_id: str) -> bool:
        return await self._authentication.has_session(client_id)

    async def proves_username(self, client_id: str) -> bool:
        return await self._authentication.proves_username(client_id)

    async def allows_unauthenticated(self) -> bool:
        return await self._authentication.allows_unauthenticated()

    async def sessions(self, username: str) -> Sequence[MqttSession]:
        rows = await find_sessions(self.api, partial(requests.list_sessions, username), username)
        return tuple(MqttSession(row.clientid, row.username or "", row.connected, row.node) for row in rows)

    async def named_by_certificate(self) -> frozenset[SubjectKind]:
        mqtt = (await self.api.send(requests.read_zone())).mqtt
        taken_from = {SubjectKind.CLIENT: mqtt.peer_cert_as_clientid, SubjectKind.USER: mqtt.peer_cert_as_username}
        return frozenset(kind for kind, part in taken_from.items() if part == _COMMON_NAME)

    # The broker

    async def lists_retained(self) -> bool:
        try:
            await self.api.send(requests.list_retained(limit=1))
        except BrokerNotFoundError:
            return False
        return True

    async def bans(self) -> AsyncIterator[Ban]:
        async for row in self.api.rows(requests.list_bans):
            yield row.ban()

    async def ping(self) -> Sequence[tuple[str, bool, str]]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ping(base)) for base in self.api.addresses]
        return [task.result() for task in tasks]

    async def _ping(self, base: str) -> tuple[str, bool, str]:
        api = self.api.on_node(base).prompt()
        try:
            name = (await api.send(requests.read_cluster())).self
            mine = await api.send(requests.read_node(name))
        except BrokerError as e:
            return base, False, str(e)
        return base, True, f"{mine.edition} {mine.version}".strip()


def _rank(*, violates: bool) -> CallRank:
    return CallRank.VIOLATION if violates else CallRank.URGENT


@asynccontextmanager
async def open_emqx(
    addresses: Sequence[str],
    key: str,
    secret: str,
    *,
    clock: Clock,
    limits: HttpLimits | None = None,
    tls: ssl.SSLContext | None = None,
    lease_left: Callable[[], float] = lambda: math.inf,
) -> AsyncIterator[EmqxBroker]:
    """Opens the broker behind these API addresses (base URLs without a path); `lease_left` as for `EmqxHttpClient`.

    Raises:
        ValueError: a malformed address.
    """
    http = EmqxHttpClient(addresses, key, secret, clock=clock, limits=limits, tls=tls, lease_left=lease_left)
    async with http:
        yield EmqxBroker(EmqxApi(http), clock)
