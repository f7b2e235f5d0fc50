"""The stand-in: several nodes with their own listeners and a shared state."""

import asyncio
import os
import random
import socket
import ssl
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from controller.standin.api import (
    authn,
    banned,
    clients,
    cluster,
    configs,
    dashboard,
    event_rules,
    publish,
    retainer,
    rules,
    sources,
)
from controller.standin.api.control import control_routes
from controller.standin.api.hanging import answer_while_hung
from controller.standin.api.serving import HttpConnection
from controller.standin.api.web import HttpApi, RequestContext, Route
from controller.standin.connection import Connection
from controller.standin.options import BAN_SWEEP_SECONDS, HANG_SECONDS, IDLE_TIMEOUT_SECONDS, StandInOptions
from controller.standin.overrides import apply_overrides
from controller.standin.registry import ClientRegistry
from controller.standin.release import RELEASES
from controller.standin.router import Router
from controller.standin.settings import Settings
from controller.standin.state import ClusterState, NodeState

_BACKLOG = 1024
_DOWN_SECONDS = 0.5  # of a restarted node
_EMQX_ROUTES = (
    *clients.ROUTES,
    *banned.ROUTES,
    *rules.ROUTES,
    *sources.ROUTES,
    *dashboard.ROUTES,
    *authn.ROUTES,
    *publish.ROUTES,
    *retainer.ROUTES,
    *cluster.ROUTES,
    *configs.ROUTES,
    *event_rules.ROUTES,
)


@dataclass(slots=True)
class _Node:
    """The sockets of a node; it keeps its ports while it is down."""

    state: NodeState
    servers: list[asyncio.Server] = field(default_factory=list)
    mqtt: set[Connection] = field(default_factory=set)
    http: set[HttpConnection] = field(default_factory=set)
    given_up: asyncio.TimerHandle | None = None


class StandIn:
    """An EMQX stand-in in the running event loop; an async context manager, or with `start` and `stop`."""

    def __init__(self, options: StandInOptions) -> None:
        self.options = options
        self.mqtt_addresses: list[tuple[str, int]] = []
        self.tls_addresses: list[tuple[str, int]] = []
        self.api_urls: list[str] = []
        self._nodes: dict[str, _Node] = {}
        self._registry: ClientRegistry | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._restarts: set[asyncio.Task[None]] = set()
        self._tls = _tls_context(options) if options.tls else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def node_names(self) -> list[str]:
        """The names of the nodes, in the order of the addresses."""
        return list(self._nodes)

    async def start(self) -> None:
        """Opens all listeners.

        Raises:
            OSError: a port cannot be opened; all listeners are closed then.
        """
        loop = asyncio.get_running_loop()
        release = RELEASES[self.options.emqx]
        state = ClusterState(time.time, loop.call_later, os.urandom, release, Settings.of(release))
        if self.options.no_match is not None:
            state.settings.authz["no_match"] = self.options.no_match
        if self.options.tls:
            state.settings.zone["mqtt"]["peer_cert_as_clientid"] = "cn"
        for user, password in self.options.users:
            state.add_user(user, password)
        state.authn = True if self.options.users else None
        if self.options.config is not None:
            apply_overrides(state, self.options.config)
        router = Router(state, random.Random().randrange)  # noqa: S311 -- round robin, not used for security
        self._registry = ClientRegistry(state, router)
        try:
            for number in range(1, self.options.nodes + 1):
                await self._open(self._new_node(number))
        except BaseException:
            await self.stop()
            raise
        self._expire()

    def _new_node(self, number: int) -> _Node:
        name = f"emqx{number}@{self.options.host}"
        node = _Node(NodeState(name, time.time(), running=False))
        host = self.options.host
        node.state.mqtt = (host, _port(self.options.mqtt_ports, number))
        node.state.api = (host, _port(self.options.api_ports, number))
        node.state.tls = (host, _port(self.options.tls_ports, number)) if self.options.tls else None
        self._nodes[name] = node
        assert self._registry is not None
        self._registry.state.nodes[name] = node.state
        return node

    async def _open(self, node: _Node) -> None:
        loop = asyncio.get_running_loop()
        registry = self._registry
        state = node.state
        assert registry is not None
        assert state.mqtt is not None
        assert state.api is not None
        api = HttpApi(
            RequestContext(registry, state),
            (*_EMQX_ROUTES, *self._control_routes()),
            self.options.api_key,
            self.options.api_secret,
            answer_while_hung,
        )
        plain = _listen(*state.mqtt)
        state.mqtt = plain.getsockname()[:2]
        sockport = state.mqtt[1]

        def accept_plain() -> Connection:
            return Connection(registry, state.name, "tcp:default", sockport, node.mqtt)

        node.servers.append(await loop.create_server(accept_plain, sock=plain, backlog=_BACKLOG))
        if state.tls is not None:
            secure = _listen(*state.tls)
            state.tls = secure.getsockname()[:2]
            tls_port = state.tls[1]

            def accept_tls() -> Connection:
                return Connection(registry, state.name, "ssl:default", tls_port, node.mqtt)

            server = await loop.create_server(
                accept_tls,
                sock=secure,
                ssl=self._tls,
                backlog=_BACKLOG,
                ssl_handshake_timeout=IDLE_TIMEOUT_SECONDS,
            )
            node.servers.append(server)
        http = _listen(*state.api)
        state.api = http.getsockname()[:2]
        node.servers.append(
            await loop.create_server(lambda: HttpConnection(api, node.http), sock=http, backlog=_BACKLOG)
        )
        state.running, state.started_at = True, time.time()
        self._list_addresses()

    def _list_addresses(self) -> None:
        nodes = [node.state for node in self._nodes.values()]
        self.mqtt_addresses = [n.mqtt for n in nodes if n.mqtt is not None]
        self.tls_addresses = [n.tls for n in nodes if n.tls is not None]
        self.api_urls = [f"http://{_shown(*n.api)}" for n in nodes if n.api is not None]

    def kill_node(self, name: str) -> None:
        """Kills a node as `kill -9` does: its connections and sessions are lost; bans and rules stay.

        Raises:
            KeyError: there is no such node.
        """
        node = self._nodes[name]
        node.state.running = node.state.frozen = False
        self._end_hang(node)
        for server in node.servers:
            server.close()
        node.servers.clear()
        assert self._registry is not None
        self._registry.drop_node(name)
        for connection in list(node.mqtt):
            connection.abort()
        for request in list(node.http):
            request.abort()

    def hang_node(self, name: str, seconds: float = HANG_SECONDS) -> None:
        """Lets a node hang as SIGSTOP does; after `seconds` the cluster gives it up.

        Raises:
            KeyError: there is no such node.
        """
        node = self._nodes[name]
        if not node.state.running or node.state.hung:
            return
        node.state.frozen = node.state.hung = True
        for connection in node.mqtt:
            connection.hang()
        for request in node.http:
            request.hang()
        node.given_up = asyncio.get_running_loop().call_later(seconds, self._give_up, node)

    def resume_node(self, name: str) -> None:
        """Lets a hung node go on; one that was given up stays outside until it is restarted.

        Raises:
            KeyError: there is no such node.
        """
        node = self._nodes[name]
        if not node.state.hung:
            return
        node.state.frozen = False
        for connection in node.mqtt:
            connection.resume()
        for request in node.http:
            request.resume()
        self._end_hang(node)

    def _give_up(self, node: _Node) -> None:
        assert self._registry is not None
        node.state.running = False
        self._registry.drop_node(node.state.name, closes=False)
        self._end_hang(node)

    def _end_hang(self, node: _Node) -> None:
        if node.given_up is not None:
            node.given_up.cancel()
        node.state.hung, node.given_up = False, None
        assert self._registry is not None
        state = self._registry.state
        if not state.is_hung():
            waiting, state.waiting = state.waiting, []
            for go_on in waiting:
                go_on()

    async def restart_node(self, name: str) -> None:
        """Starts a killed node on its previous ports; does nothing for a running node.

        Raises:
            KeyError: there is no such node.
            OSError: a port is in use.
        """
        node = self._nodes[name]
        if not node.state.running:
            await self._open(node)

    async def stop(self) -> None:
        """Closes all sockets."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._registry is not None:
            for name in list(self._nodes):
                self.kill_node(name)
        # Aborted transports are closed in the following loop iterations.
        for _ in range(3):
            await asyncio.sleep(0)

    def _expire(self) -> None:
        assert self._registry is not None
        state = self._registry.state
        state.bans.remove_expired(state.now())
        self._sweeper = asyncio.get_running_loop().call_later(BAN_SWEEP_SECONDS, self._expire)

    def _control_routes(self) -> tuple[Route, ...]:
        return control_routes(
            {"kill": self.kill_node, "restart": self._restart_soon, "resume": self.resume_node}, self.hang_node
        )

    def _restart_soon(self, name: str) -> None:
        """Kills a node and starts it again after `_DOWN_SECONDS`."""
        self.kill_node(name)
        loop = asyncio.get_running_loop()

        def start_again() -> None:
            task = loop.create_task(self.restart_node(name))
            self._restarts.add(task)
            task.add_done_callback(self._restarts.discard)

        loop.call_later(_DOWN_SECONDS, start_again)


def _port(ports: tuple[int, ...], number: int) -> int:
    return ports[number - 1] if number <= len(ports) else 0


def _listen(host: str, port: int) -> socket.socket:
    """Binds a socket; SO_REUSEADDR lets a restarted node use its port while old connections are in TIME_WAIT."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio only sets TCP_NODELAY if the protocol is given; without it, answers are delayed by 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _tls_context(options: StandInOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    assert options.tls_cert is not None
    context.load_cert_chain(options.tls_cert, options.tls_key)
    context.load_verify_locations(options.tls_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
