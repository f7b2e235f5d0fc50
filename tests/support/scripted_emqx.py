"""A scripted EMQX behind the real HTTP client: tables for each node, and what happens between two calls.

Only for sequences that no real broker shows on demand; everything else is tested over sockets.
"""

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

import httpx

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.http import EmqxHttpClient, HttpLimits
from controller.adapters.emqx.containment.broker import EmqxBroker
from controller.adapters.system import SystemClock

BASES: Final = ("http://n1", "http://n2", "http://n3")
_RULES: Final = "/authorization/sources/built_in_database/rules/clients/"


def error(status: int, code: str, message: str = "x") -> httpx.Response:
    """An error response of EMQX."""
    return httpx.Response(status, json={"code": code, "message": message})


class ScriptedEmqx:
    """Three nodes, one client `dev`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.rules: dict[str, dict[str, list[dict[str, Any]]]] = {base: {} for base in BASES}
        self.bans: dict[str, dict[str, Any]] = {}
        self.subscriptions: list[str] = []
        self.cache: list[dict[str, Any]] = []
        self.session: str = "connected"  # connected, away, none
        self.stopped: set[str] = set()
        self.silent: set[str] = set()
        self.sources: list[dict[str, Any]] = [{"type": "built_in_database", "enable": True}]
        self.lag: dict[str, int] = {}  # node -> how many reads return the old rules
        self.before: list[Callable[[str, str, str], httpx.Response | None]] = []

    def broker(self) -> EmqxBroker:
        """The adapter over this broker."""
        limits = HttpLimits(wait_first_seconds=0.001, wait_most_seconds=0.002, wait_jitter_seconds=0.001)
        http = EmqxHttpClient(
            BASES, "k", "secret", clock=SystemClock(), limits=limits, transport=httpx.MockTransport(self.answer)
        )
        return EmqxBroker(EmqxApi(http), SystemClock())

    def made(self, text: str) -> int:
        """How many calls begin with this method and path."""
        return sum(f"{method} {path}".startswith(text) for method, path in self.calls)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The response of a node."""
        base = f"http://{request.url.host}"
        path = unquote(request.url.path).removeprefix("/api/v5")
        self.calls.append((request.method, path))
        if base in self.silent:
            raise httpx.ConnectError("refused", request=request)
        for knob in self.before:
            early = knob(base, request.method, path)
            if early is not None:
                return early
        if path.startswith(_RULES):
            return self._rules(base, request, path.removeprefix(_RULES))
        if path.startswith("/banned"):
            return self._banned(request, path)
        if path.startswith("/clients/"):
            return self._client(request, path)
        return self._settings(base, path)

    def _settings(self, base: str, path: str) -> httpx.Response:
        if path == "/cluster":
            running = [f"emqx@{b[-2:]}" for b in BASES if b not in self.stopped]
            return httpx.Response(200, json={"self": f"emqx@{base[-2:]}", "nodes": running})
        if path == "/nodes":
            rows = [(f"emqx@{b[-2:]}", "stopped" if b in self.stopped else "running") for b in BASES]
            return httpx.Response(200, json=[{"node": name, "node_status": state} for name, state in rows])
        if path == "/authentication":
            return httpx.Response(200, json=[])
        if path == "/authorization/sources":
            return httpx.Response(200, json={"sources": self.sources})
        return error(404, "NOT_FOUND")

    def _rules(self, base: str, request: httpx.Request, who: str) -> httpx.Response:
        if request.method == "GET":
            if self.lag.get(base, 0) > 0:
                self.lag[base] -= 1
                return error(404, "NOT_FOUND")
            found = self.rules[base].get(who)
            return (
                error(404, "NOT_FOUND")
                if found is None
                else httpx.Response(200, json={"clientid": who, "rules": found})
            )
        for table in self.rules.values():
            table.pop(who, None)
            if request.method == "PUT":
                table[who] = json.loads(request.content)["rules"]
        return httpx.Response(204)

    def _banned(self, request: httpx.Request, path: str) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": list(self.bans.values()), "meta": {"count": len(self.bans)}})
        if request.method == "DELETE":
            gone = self.bans.pop(path.rpartition("/")[2], None)
            return error(404, "NOT_FOUND") if gone is None else httpx.Response(204)
        row = json.loads(request.content) | {"at": "2026-01-01T00:00:00+00:00"}
        if row["who"] in self.bans:
            return error(400, "ALREADY_EXISTS", json.dumps(self.bans[row["who"]]))
        self.bans[row["who"]] = row
        return httpx.Response(200, json=row)

    def _client(self, request: httpx.Request, path: str) -> httpx.Response:
        if self.session == "none":
            return error(404, "CLIENTID_NOT_FOUND")
        rest = path.split("/", 3)[3:]
        if not rest:
            if request.method == "DELETE":
                self.session, self.subscriptions, self.cache = "none", [], []
                return httpx.Response(204)
            return httpx.Response(200, json={"clientid": "dev", "connected": self.session == "connected"})
        if rest == ["subscriptions"]:
            return httpx.Response(200, json=[{"topic": topic} for topic in self.subscriptions])
        if rest == ["unsubscribe/bulk"]:
            cut = {row["topic"] for row in json.loads(request.content)}
            self.subscriptions = [topic for topic in self.subscriptions if topic not in cut]
            return httpx.Response(204)
        if request.method == "DELETE":
            self.cache = []
            return httpx.Response(204)
        return httpx.Response(200, json=self.cache)
