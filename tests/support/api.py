"""The API in process over a real store: `async with api(path) as made: await made.client.get(...)`."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from controller.api.context import Services
from controller.api.server import create_api
from controller.console.routes import page_routes
from controller.domain.accounts.secret_text import digest_of
from controller.domain.guards.guards import NO_GUARDS, FleetGuards
from controller.domain.policy.model import PolicySet
from controller.domain.scopes import ALL
from controller.ports.errors import ControllerError
from controller.ports.messages import IncomingMessage
from controller.ports.store import ApiToken
from controller.service.containment.operator_actions import OperatorLimits
from schemas.posture import digest_of as posture_digest
from schemas.topics import up_branch
from tests.support.controller_harness import ControllerHarness, open_harness, starter
from tests.support.identity import authority_settings
from tests.support.memory_users import MemoryUsers
from tests.support.persons import put_holder
from tests.support.rollouts import FakeTargets

TOKEN = "cordon_for-tests"
MANY = OperatorLimits(most=1000)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(slots=True)
class Api:
    """One API and its services; `reload`: what the next reading of the policies returns or raises."""

    harness: ControllerHarness
    app: FastAPI
    client: httpx.AsyncClient
    reload: list[PolicySet | ControllerError]

    @property
    def users(self) -> MemoryUsers:
        return self.harness.users

    @property
    def services(self) -> Services:
        return self.harness.services

    async def report(self, device_id: str, *, ports: tuple[int, ...] = (), seq: int = 1) -> None:
        """Ingests a full report of a device that listens on these ports."""
        message = report_message(device_id, ports, seq)
        await self.harness.ingest.process_batch([replace(message, received_at=self.harness.clock.monotonic())])

    async def json(self, method: str, path: str, status: int = 200, body: Any = None) -> Any:
        """The JSON of a response to the operator `tests`, which has to have this status."""
        response = await self.client.request(method, path, json=body)
        assert response.status_code == status, response.text
        return response.json() if response.content else None


def report_message(device_id: str, ports: tuple[int, ...], seq: int, boot_id: str = "b1") -> IncomingMessage:
    """A full report as it is received."""
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


@contextlib.asynccontextmanager
async def api(
    path: Path,
    policy_set: PolicySet | None = None,
    *,
    authority: Path | None = None,
    guards: FleetGuards = NO_GUARDS,
    by_hand: OperatorLimits = MANY,
    protected_if: str | None = None,
    tokens: Sequence[ApiToken] = (),
    accounts: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Api]:
    """An API with the token `TOKEN`, named `tests`, and `tokens`; `authority` is the folder of its authority.

    `accounts` is the table of the configuration.
    """
    answers: list[PolicySet | ControllerError] = []
    chosen = policy_set or starter()

    def reload() -> PolicySet:
        fresh = answers.pop(0) if answers else chosen
        if isinstance(fresh, ControllerError):
            raise fresh
        return fresh

    tables: dict[str, Any] = {
        "guards": {
            "by_hand": by_hand.most,
            "by_hand_window": f"{by_hand.window:g}s",
            "request_expiry": f"{by_hand.expiry:g}s",
            "protected_if": protected_if,
        },
        "notifications": {
            "secrets": {"key": "/nowhere", "address": "/nowhere", "password": "/nowhere"},
            "mail_servers": {"password": "mail.example.org:587"},
        },
        **({} if authority is None else authority_settings(authority)),
        **({} if accounts is None else {"accounts": accounts}),
    }
    async with open_harness(
        path, chosen, guards=guards, settings=tables, reload=reload, targets=FakeTargets(), **options
    ) as one:
        for token in (ApiToken("tests", digest_of(TOKEN), one.clock.at, ALL), *tokens):
            await put_holder(one.store, token)
        app = create_api(one.services, one.controller.durations, page_routes())
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://cordon", headers=HEADERS) as client:
            yield Api(one, app, client, answers)
