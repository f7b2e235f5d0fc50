"""Reads an EMQX cluster for an audit: one call for each item, and the reason for each that cannot be read."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.cluster import ClusterNodes
from controller.adapters.emqx.client.paths import quoted
from controller.adapters.emqx.client.prefixes import PrefixesInUse
from controller.adapters.emqx.client.requests import RULES
from controller.adapters.emqx.controller_zone import read_controller_zone
from controller.adapters.emqx.share_group import read_share_strategy
from controller.adapters.emqx.tables import EmqxTables
from controller.adapters.emqx.wildcard import is_wildcard_banned
from controller.adapters.probes import TlsHandshake, look
from controller.domain.broker import inspection as ask
from controller.domain.broker.inspection import BrokerInspection, parse_bind
from controller.domain.broker.ports import PortsError, parse_node
from controller.ports.clock import Clock
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerRefusedError
from controller.ports.inspection import BrokerInspector, DashboardLogin, NodeListeners

# EMQX locks a dashboard user after five wrong passwords in five minutes: one attempt in this time.
LOGIN_EVERY: Final = 600.0  # seconds
_DEFAULT_USER, _DEFAULT_PASSWORD = "admin", "public"
_WRONG_PASSWORD: Final = "BAD_USERNAME_OR_PWD"  # noqa: S105 - an error code of EMQX
MAX_LISTENERS: Final = 64
MAX_HANDSHAKES: Final = 64
_KEYS_NEED_LOGIN: Final = "EMQX lists API keys for a dashboard login only: give --dashboard-user"


@dataclass(slots=True)
class _Collection:
    """Answers by name; `silence` has the errors of those that are missing."""

    answers: dict[str, Any] = field(default_factory=dict)
    silence: dict[str, str] = field(default_factory=dict)

    async def collect(self, name: str, read: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.answers[name] = await read()
        except BrokerError as e:
            self.silence[name] = str(e)


class EmqxInspector(BrokerInspector):
    def __init__(
        self,
        api: EmqxApi,
        clock: Clock,
        *,
        controller_id: str,
        ports: frozenset[int],
        receive_maximum: int,
        context: Callable[[], ssl.SSLContext],
        is_shared: bool = False,
    ) -> None:
        """Reads nothing yet.

        Args:
            api: of the cluster.
            clock: for expiries and the pause between logins.
            controller_id: client id of the controller.
            ports: at which the controller connects to the broker.
            receive_maximum: messages that it wants in flight.
            is_shared: whether controllers share the fleet's messages.
            context: makes the TLS context of handshakes; called for each audit, because its files may be renewed.
        """
        self._api = api
        self._cluster = ClusterNodes(api, clock)
        self._controller_id = controller_id
        self._ports = ports
        self._clock = clock
        self._receive_maximum = receive_maximum
        self._context = context
        self._is_shared = is_shared
        self._login: tuple[float, BrokerError | None] | None = None

    async def versions(self) -> Sequence[str]:
        rows = await self._get("/nodes")
        if not isinstance(rows, list):
            raise BrokerAnswerError("/nodes: not a list")
        return sorted({str(row.get("version", "")) for row in rows if isinstance(row, dict)} - {""})

    async def endpoints(self) -> Sequence[NodeListeners]:
        reading = await self._cluster.read(fresh=True)
        found = await asyncio.gather(*(self._listeners_of(base, reading.names) for base in self._api.addresses))
        known = {one.node for one in found}
        unread = [NodeListeners(one.node, "", None, one.reason) for one in reading.unread if one.node not in known]
        # An address that does not say whose it is belongs to one of the nodes that cannot be read.
        named = [one for one in found if one.api not in reading.stopped and (one.node or not unread)]
        return [*named, *unread]

    async def _listeners_of(self, base: str, names: Mapping[str, str]) -> NodeListeners:
        """A listing has the ports of the node that is asked, so each is asked; one that hangs does not delay others."""
        try:
            rows = (
                await self._api.on_node(base)
                .prompt()
                .send(requests.json_request("GET", "/listeners", "read listeners"))
            )
        except BrokerError as e:
            return NodeListeners(names.get(base, ""), base, None, str(e))
        return NodeListeners(names.get(base, ""), base, rows)

    async def inspect(self, login: DashboardLogin | None) -> BrokerInspection:
        seen = _Collection()
        await seen.collect(ask.NODES, lambda: self._get("/nodes"))
        await seen.collect(ask.LISTENERS, self._listeners)
        await seen.collect(ask.AUTHENTICATION, lambda: self._get("/authentication"))
        await seen.collect(ask.SOURCES, lambda: self._get("/authorization/sources"))
        await seen.collect(ask.AUTHORIZATION, lambda: self._get("/authorization/settings"))
        await seen.collect(ask.RULES_FOR_ALL, lambda: self._get(f"{RULES}/all"))
        await seen.collect(ask.ZONE, lambda: self._get("/configs/global_zone"))
        await seen.collect(
            ask.CONTROLLER_ZONE, lambda: read_controller_zone(self._api, self._controller_id, self._ports)
        )
        await seen.collect(ask.AUTO_SUBSCRIBE, lambda: self._get("/mqtt/auto_subscribe"))
        await seen.collect(ask.RULE_ENGINE, lambda: self._api.send(requests.read_section("rule_engine")))
        await seen.collect(ask.WILDCARD_BAN, lambda: is_wildcard_banned(self._api))
        await seen.collect(ask.NODE_CONFIG, self._node_config)
        await seen.collect(ask.COUNTS, self._counts)
        await seen.collect(ask.FILE_RULES, lambda: self._file_rules(seen.answers.get(ask.SOURCES)))
        await seen.collect(ask.LOGIN, self._default_login)
        await seen.collect(ask.API_KEYS, lambda: self._api_keys(login))
        await seen.collect(ask.SHARE_GROUP, lambda: self._share_strategy(seen.answers.get(ask.ZONE)))
        await seen.collect(ask.CERTIFICATES, lambda: self._certificates(seen.answers))
        return self._inspection(seen)

    def _inspection(self, seen: _Collection) -> BrokerInspection:
        now = self._clock.now()
        return BrokerInspection(
            seen.answers, seen.silence, now, self._receive_maximum, self._api.addresses, self._is_shared
        )

    async def _get(self, path: str) -> Any:
        return await self._api.send(requests.json_request("GET", path, "audit"))

    async def _node_config(self) -> dict[str, Any]:
        return {"node": await self._api.send(requests.read_section("node"))}

    async def _listeners(self) -> list[Any]:
        """The listing, with what only the request for a single listener returns."""
        listed = await self._get("/listeners")
        if not isinstance(listed, list):
            raise BrokerAnswerError("/listeners: not a list")
        rows: list[Any] = []
        for row in listed[:MAX_LISTENERS]:
            listener_id = str(row.get("id", "")) if isinstance(row, dict) else ""
            try:
                detail = await self._get(f"/listeners/{quoted(listener_id)}") if listener_id else {}
            except BrokerRefusedError:
                detail = {}
            rows.append({**row, **detail} if isinstance(row, dict) and isinstance(detail, dict) else row)
        return rows

    async def _file_rules(self, sources: Any) -> Any:
        rows = sources.get("sources", ()) if isinstance(sources, dict) else None
        if rows is not None and all(isinstance(row, dict) and row.get("type") != "file" for row in rows):
            return {"enable": False, "rules": ""}  # there is no such source, so it allows nothing
        return await self._get("/authorization/sources/file")

    async def _share_strategy(self, zone: Any) -> str:
        strategy = await read_share_strategy(self._api, zone.get("mqtt") if isinstance(zone, dict) else None)
        if not strategy:
            raise BrokerRefusedError("/configs/broker: this EMQX does not show it, or the API key may not read it")
        return strategy

    async def _counts(self) -> dict[str, list[int | None]]:
        tables = EmqxTables(self._api, ClusterNodes(self._api, self._clock), PrefixesInUse(self._api, self._clock))
        counts = {base: await tables.counts(base) for base in tables.addresses}
        return {base: [count.bans, count.rules] for base, count in counts.items()}

    async def _default_login(self) -> str:
        """`accepted` or `refused`; cached, so that frequent audits do not lock the user.

        Raises:
            BrokerError: another answer of EMQX, for example that the user is locked.
        """
        now = self._clock.monotonic()
        if self._login is None or now - self._login[0] >= LOGIN_EVERY:
            try:
                await self._log_in(DashboardLogin(_DEFAULT_USER, _DEFAULT_PASSWORD))
            except BrokerError as e:
                self._login = (now, e)
            else:
                self._login = (now, None)
        error = self._login[1]
        if error is None:
            return "accepted"
        if _WRONG_PASSWORD in str(error):
            return "refused"
        raise error

    async def _log_in(self, login: DashboardLogin) -> str:
        body = {"username": login.username, "password": login.password}
        data = await self._api.send(requests.json_request("POST", "/login", "log in", body=body, repeat=False))
        token = data.get("token") if isinstance(data, dict) else None
        if not isinstance(token, str) or not token:
            raise BrokerAnswerError("/login: an answer without a token")
        return token

    async def _api_keys(self, login: DashboardLogin | None) -> Any:
        if login is None:
            raise BrokerRefusedError(_KEYS_NEED_LOGIN)
        token = await self._log_in(login)
        return await self._api.send(requests.json_request("GET", "/api_key", "list API keys", bearer=token))

    async def _certificates(self, answers: dict[str, Any]) -> list[TlsHandshake]:
        targets = _tls_targets(answers.get(ask.LISTENERS), answers.get(ask.NODES), self._api.addresses)
        if not targets:
            return []
        try:
            context = self._context()
        except OSError as e:
            raise BrokerRefusedError(f"the controller's own certificate cannot be used for a handshake: {e}") from e
        return list(await asyncio.gather(*(look(host, port, context) for host, port in targets)))


def _tls_targets(listeners: Any, nodes: Any, api: Sequence[str]) -> list[tuple[str, int]]:
    """Host and port of each TLS listener at each node: the node's own host where the listener is bound to all."""
    hosts = [_host(row.get("node")) for row in nodes or () if isinstance(row, dict)]
    hosts = [host for host in hosts if host] or [urlsplit(base).hostname or "" for base in api]
    targets: list[tuple[str, int]] = []
    for row in listeners or ():
        if not isinstance(row, dict) or row.get("type") not in ("ssl", "wss") or row.get("enable", True) is False:
            continue
        address, port = parse_bind(row.get("bind"))
        if port:
            targets += [(host, port) for host in (hosts if address == "*" else [address])]
    return list(dict.fromkeys(targets))[:MAX_HANDSHAKES]


def _host(name: Any) -> str:
    try:
        return parse_node(str(name))[0]
    except PortsError:
        return ""
