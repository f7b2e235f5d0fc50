"""The API in process over a real store: `async with api(path) as it: await it.client.get(...)`."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from controller.adapters.policies.loader import candidate_policies, load_policies
from controller.api.auth import digest_of
from controller.api.context import Services
from controller.api.metrics import ContainmentDurations
from controller.api.server import create_api
from controller.domain.broker.facts import TYPES as BROKER_TYPES
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.model import PolicySet
from controller.domain.scopes import ALL
from controller.packs import broker_pack_path
from controller.ports.errors import ControllerError
from controller.ports.messages import IncomingMessage
from controller.ports.store import ApiToken
from controller.service.broker.audit import BROKER, BrokerAuditor
from controller.service.containment.operator_actions import OperatorActions, OperatorLimits
from controller.service.containment.users import UserContainments
from controller.service.containment.waivers import WaiverService
from controller.service.settings.settings import Settings
from schemas.posture import digest_of as posture_digest
from schemas.topics import up_branch
from tests.support.controller_harness import World, world
from tests.support.identity import identity_of
from tests.support.memory_users import MemoryUsers
from tests.support.rollouts import desk_of

BROKER_LANGUAGE = CelEnvironment(BROKER_TYPES, BROKER)
TOKEN = "cordon_for-tests"
MANY = OperatorLimits(most=1000)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
SETTINGS: dict[str, Any] = {
    "mqtt": {"servers": ["mqtt://127.0.0.1:1"]},
    "emqx": {"api": ["http://127.0.0.1:1"], "key_file": "/nowhere"},
    "store": {"path": "/nowhere"},
    "policy": {"paths": ["/nowhere"]},
    "commands": {"signing_key": "/nowhere"},
}


@dataclass(slots=True)
class Api:
    """One API with what is behind it; `reload`: what reading the policies again yields or raises."""

    world: World
    app: FastAPI
    client: httpx.AsyncClient
    services: Services
    reload: list[PolicySet | ControllerError]

    @property
    def users(self) -> MemoryUsers:
        """The broker's users in memory."""
        assert self.services.users is not None
        assert isinstance(self.services.users.broker, MemoryUsers)
        return self.services.users.broker

    async def report(self, device_id: str, *, ports: tuple[int, ...] = (), seq: int = 1) -> None:
        """A full report of the device with these listening ports comes in."""
        message = report_message(device_id, ports, seq)
        await self.world.ingest.take([replace(message, received_at=self.world.clock.monotonic())])

    async def json(self, method: str, path: str, status: int = 200, body: Any = None) -> Any:
        """The answer to a request of the operator `tests`, whose status has to be `status`."""
        response = await self.client.request(method, path, json=body)
        assert response.status_code == status, response.text
        return response.json() if response.content else None


def _broker_policies() -> PolicySet:
    return load_policies((broker_pack_path(),), BROKER_LANGUAGE)


def report_message(device_id: str, ports: tuple[int, ...], seq: int, boot_id: str = "b1") -> IncomingMessage:
    """A full report as it comes off the link."""
    sections = {
        "sockets": {
            "state": "ok",
            "listening": [{"proto": "tcp", "address": "0.0.0.0", "port": port} for port in ports],
        }
    }
    report = {
        "v": 1,
        "kind": "full",
        "device_id": device_id,
        "seq": seq,
        "sent_at": "2026-11-23T10:00:00Z",
        "boot_id": boot_id,
        "agent": "1.0",
        "digest": posture_digest(sections),
        "sections": sections,
    }
    topic = up_branch(device_id).replace("#", "posture")
    return IncomingMessage(topic, json.dumps(report).encode(), 1, retain=False, dup=False, ticket=seq, received_at=0.0)


async def _guards(
    one: World, by_hand: OperatorLimits, protected_if: str | None
) -> tuple[OperatorActions, WaiverService]:
    guarding, waiving = (
        OperatorActions(one.keeper, by_hand, lambda _event, _fields: None),
        WaiverService(one.keeper, protected_if),
    )
    books = await one.store.guard_books()
    guarding.load(books)
    waiving.load(books)
    return guarding, waiving


@contextlib.asynccontextmanager
async def api(
    path: Path,
    policy_set: PolicySet | None = None,
    *,
    authority: Path | None = None,
    guards: FleetGuards = NO_GUARDS,
    by_hand: OperatorLimits = MANY,
    protected_if: str | None = None,
) -> AsyncIterator[Api]:
    """An API whose one token is `TOKEN`, named `tests`; `authority` is the folder of one that it shall have."""
    durations = ContainmentDurations()
    async with world(path, policy_set, guards=guards, listeners=(durations,)) as one:
        await one.store.put_token(ApiToken("tests", digest_of(TOKEN), one.clock.at, ALL))
        reload: list[PolicySet | ControllerError] = []

        async def reload_policies(*, force: bool = False) -> PolicySet:
            fresh = reload.pop(0) if reload else one.keeper.policies
            if isinstance(fresh, ControllerError):
                raise fresh
            one.keeper.use(fresh)
            return fresh

        users = MemoryUsers(one.clock.at)
        guarding, waiving = await _guards(one, by_hand, protected_if)
        services = Services(
            keeper=one.keeper,
            store=one.store,
            messages=one.link,
            outbox=one.outbox,
            reconciler=one.reconciler,
            ingest=one.ingest,
            broker=one.broker,
            inspector=one.inspector,
            auditor=BrokerAuditor(one.inspector, BROKER_LANGUAGE, _broker_policies),
            settings=Settings.model_validate(SETTINGS),
            started_at=one.clock.at,
            reload_policies=reload_policies,
            signing=one.signing,
            users=UserContainments(one.keeper, one.store, users, 5.0, lambda *_: None),
            guarding=guarding,
            waiving=waiving,
            waiters=one.waiters,
            candidate=partial(candidate_policies, one.keeper),
            rollouts=desk_of(one),
            identity=None if authority is None else await identity_of(one, authority),
        )
        app = create_api(services, durations)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://cordon", headers=HEADERS) as client:
            yield Api(one, app, client, services, reload)
