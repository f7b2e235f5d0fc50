"""Looks at an EMQX cluster for an audit: one call for each thing, and a reason for each that is not to be had."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from controller.adapters.emqx.client.api import RULES_PATH, EmqxApi
from controller.adapters.emqx.tables import EmqxTables
from controller.adapters.tls_probe import TlsHandshake, look
from controller.domain.broker import inspection as ask
from controller.domain.broker.inspection import BrokerInspection, parse_bind
from controller.domain.broker.ports import PortsError, parse_node
from controller.ports.clock import Clock
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerRefusedError
from controller.ports.inspection import BrokerInspector, DashboardLogin

# EMQX locks a dashboard user after five wrong passwords in five minutes: one try, and no other before this has passed.
LOGIN_EVERY: Final = 600.0  # seconds
_DEFAULT_USER, _DEFAULT_PASSWORD = "admin", "public"
_WRONG_PASSWORD: Final = "BAD_USERNAME_OR_PWD"  # noqa: S105 - EMQX's code for it
MAX_LISTENERS: Final = 64
MAX_HANDSHAKES: Final = 64
_KEYS_NEED_LOGIN: Final = "EMQX lists API keys for a dashboard login only: give --dashboard-user"


@dataclass(slots=True)
class _Look:
    """The answers of one look, as they come."""

    answers: dict[str, Any] = field(default_factory=dict)
    silence: dict[str, str] = field(default_factory=dict)

    async def take(self, name: str, asking: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.answers[name] = await asking()
        except BrokerError as e:
            self.silence[name] = str(e)


class EmqxInspector(BrokerInspector):
    """See the port."""

    def __init__(
        self, api: EmqxApi, clock: Clock, *, receive_maximum: int, context: Callable[[], ssl.SSLContext]
    ) -> None:
        """`context` makes what TLS listeners are looked at with; called for each audit, for files may be renewed."""
        self._api = api
        self._clock = clock
        self._receive_maximum = receive_maximum
        self._context = context
        self._login: tuple[float, Any] | None = None

    async def endpoints(self) -> BrokerInspection:
        """See the port."""
        seen = _Look()
        await seen.take(ask.NODES, lambda: self._get("/nodes"))
        await seen.take(ask.LISTENERS, self._listeners)
        return self._inspection(seen)

    async def inspect(self, login: DashboardLogin | None) -> BrokerInspection:
        """See the port."""
        seen = _Look()
        await seen.take(ask.NODES, lambda: self._get("/nodes"))
        await seen.take(ask.LISTENERS, self._listeners)
        await seen.take(ask.AUTHENTICATION, lambda: self._get("/authentication"))
        await seen.take(ask.SOURCES, lambda: self._get("/authorization/sources"))
        await seen.take(ask.AUTHORIZATION, lambda: self._get("/authorization/settings"))
        await seen.take(ask.RULES_FOR_ALL, lambda: self._get(f"{RULES_PATH}/all"))
        await seen.take(ask.ZONE, lambda: self._get("/configs/global_zone"))
        await seen.take(ask.NODE_CONFIG, lambda: self._get("/configs"))
        await seen.take(ask.COUNTS, self._counts)
        await seen.take(ask.FILE_RULES, lambda: self._file_rules(seen.answers.get(ask.SOURCES)))
        await seen.take(ask.LOGIN, self._default_login)
        await seen.take(ask.API_KEYS, lambda: self._api_keys(login))
        await seen.take(ask.CERTIFICATES, lambda: self._certificates(seen.answers))
        return self._inspection(seen)

    def _inspection(self, seen: _Look) -> BrokerInspection:
        now = self._clock.now()
        return BrokerInspection(seen.answers, seen.silence, now, self._receive_maximum, self._api.addresses)

    async def _get(self, path: str) -> Any:
        return (await self._api.ask("GET", path, "audit")).data

    async def _listeners(self) -> list[Any]:
        """The listing with, for each listener, what only its own page tells."""
        listed = await self._get("/listeners")
        if not isinstance(listed, list):
            raise BrokerAnswerError("/listeners: not a list")
        whole: list[Any] = []
        for row in listed[:MAX_LISTENERS]:
            identity = str(row.get("id", "")) if isinstance(row, dict) else ""
            try:
                more = await self._get(f"/listeners/{quote(identity, safe='')}") if identity else {}
            except BrokerRefusedError:
                more = {}
            whole.append({**row, **more} if isinstance(row, dict) and isinstance(more, dict) else row)
        return whole

    async def _file_rules(self, sources: Any) -> Any:
        rows = sources.get("sources", ()) if isinstance(sources, dict) else None
        if rows is not None and all(isinstance(row, dict) and row.get("type") != "file" for row in rows):
            return {"enable": False, "rules": ""}  # there is none, so it allows nobody anything
        return await self._get("/authorization/sources/file")

    async def _counts(self) -> dict[str, list[int | None]]:
        tables = EmqxTables(self._api)
        counts = {base: await tables.counts(base) for base in tables.addresses}
        return {base: [one.bans, one.rules] for base, one in counts.items()}

    async def _default_login(self) -> str:
        """`accepted` or `refused`; remembered, so that audits one after the other lock nobody out.

        Raises:
            BrokerError: EMQX said something else, for one that the user is locked.
        """
        now = self._clock.monotonic()
        if self._login is None or now - self._login[0] >= LOGIN_EVERY:
            try:
                said: Any = await self._log_in(DashboardLogin(_DEFAULT_USER, _DEFAULT_PASSWORD))
            except BrokerError as e:
                said = e
            self._login = (now, said)
        said = self._login[1]
        if isinstance(said, str):
            return "accepted"
        if _WRONG_PASSWORD in str(said):
            return "refused"
        assert isinstance(said, BrokerError)
        raise said

    async def _log_in(self, login: DashboardLogin) -> str:
        body = {"username": login.username, "password": login.password}
        answer = await self._api.ask("POST", "/login", "log in", body=body, repeat=False)
        token = answer.data.get("token") if isinstance(answer.data, dict) else None
        if not isinstance(token, str) or not token:
            raise BrokerAnswerError("/login: an answer without a token")
        return token

    async def _api_keys(self, login: DashboardLogin | None) -> Any:
        if login is None:
            raise BrokerRefusedError(_KEYS_NEED_LOGIN)
        token = await self._log_in(login)
        return (await self._api.ask("GET", "/api_key", "list API keys", bearer=token)).data

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
    """Where to look: each TLS listener at each node, at the node's own host where the listener is bound to all."""
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
