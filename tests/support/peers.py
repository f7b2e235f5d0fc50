"""Two controllers over one set of services: one that leads, and one that forwards to it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import httpx

from controller.adapters.http_peers import HttpPeers
from controller.api.forwarding import PeerAccess, PeerOrigin
from controller.api.server import create_api
from controller.console.routes import page_routes
from controller.ports.peers import PeerAnswer, PeerRequest
from tests.support.api import HEADERS, Api
from tests.support.controller_harness import LogLines

KEY = b"k" * 32
LEADER_URL = "http://leader:1"


@dataclass
class NotedPeers:
    """Keeps what was forwarded."""

    real: HttpPeers
    sent: list[PeerRequest] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def send(self, base: str, request: PeerRequest) -> AsyncIterator[PeerAnswer]:
        self.sent.append(request)
        async with self.real.send(base, request) as answer:
            yield answer


@dataclass
class Pair:
    """Clients of both; `url`: where the follower takes the leader to be."""

    api: Api
    leader: httpx.AsyncClient
    follower: httpx.AsyncClient
    peers: NotedPeers
    logged: LogLines
    url: str = LEADER_URL
    leads: bool = True


@contextlib.asynccontextmanager
async def pair(api: Api, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Pair]:
    """`transport`: in place of the one that reaches the leader."""
    logged, services = LogLines(), api.services
    made: list[Pair] = []

    def access(peers: NotedPeers | HttpPeers, *, leads: bool) -> PeerAccess:
        return PeerAccess(
            KEY, peers, lambda: leads and made[0].leads, lambda: made[0].url, api.harness.clock.now, logged
        )

    def client_of(app: PeerOrigin, address: str) -> httpx.AsyncClient:
        made_transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
        return httpx.AsyncClient(transport=made_transport, base_url="http://cordon", headers=HEADERS)

    durations = api.harness.controller.durations
    unused = HttpPeers(httpx.ASGITransport(api.app))
    first = access(unused, leads=True)
    leader = PeerOrigin(create_api(services, durations, page_routes(), first), first)
    peers = NotedPeers(HttpPeers(transport or httpx.ASGITransport(leader, False, client=("10.0.0.2", 1))))
    second = access(peers, leads=False)
    app = create_api(replace(services, leader=None), durations, page_routes(), second)
    async with client_of(leader, "192.0.2.9") as there, client_of(PeerOrigin(app, second), "192.0.2.7") as here:
        made.append(Pair(api, there, here, peers, logged))
        yield made[0]
