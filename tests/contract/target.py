"""The broker under test, the recording that it is compared with, and the cleanup after a test."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx

from tests.support.mqtt_probe import Endpoint, Probe
from tests.support.waiting import wait_for

RECORDED = Path(__file__).parent / "recorded"
RULES = "/authorization/sources/built_in_database/rules"
USERS = "/authentication/password_based:built_in_database/users"
FAR = "2036-01-01T00:00:00Z"
TIMEOUT_SECONDS = 15.0
VARIABLES = ("API", "KEY", "SECRET", "MQTT", "MQTT_USER", "MQTT_PASSWORD")  # of a real EMQX: CORDON_TEST_EMQX_*

Rule = dict[str, object]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded exchange; `path` is below `/api/v5`, `json` the request's body or `{"raw": text}`."""

    name: str
    method: str
    path: str
    json: Any
    status: int
    content_type: str | None
    body: Any


def recording(release: str) -> tuple[Recorded, ...]:
    """Every exchange recorded on a release, in order: `5.8.9` or `6.3`."""
    rows = json.loads((RECORDED / f"emqx-{release}.json").read_text())["exchanges"]
    return tuple(Recorded(**row) for row in rows)


ANSWERS = {one.name: one for one in reversed(recording("5.8.9"))}


def same_shape(recorded: Any, actual: Any, where: str = "body") -> None:
    """Requires the recorded keys and types; values may differ, and newer releases have more keys."""
    if isinstance(recorded, dict):
        assert isinstance(actual, dict), f"{where}: {actual!r}"
        assert recorded.keys() <= actual.keys(), f"{where}: missing {recorded.keys() - actual.keys()}"
        for key, value in recorded.items():
            same_shape(value, actual[key], f"{where}.{key}")
    elif isinstance(recorded, list):
        assert isinstance(actual, list), f"{where}: {actual!r}"
        if recorded:
            assert actual, f"{where} is empty"
            same_shape(recorded[0], actual[0], f"{where}[0]")
    elif isinstance(recorded, bool) or recorded is None:
        assert type(actual) is type(recorded), f"{where}: {actual!r}"
    elif isinstance(recorded, int | float):
        assert isinstance(actual, int | float), f"{where}: {actual!r}"
        assert not isinstance(actual, bool), f"{where}: {actual!r}"
    else:
        assert isinstance(actual, str), f"{where}: {actual!r}"


def answers_as(name: str, response: httpx.Response) -> Any:
    """Requires the recorded status, type and shape; returns the body."""
    recorded = ANSWERS[name]
    assert response.status_code == recorded.status, f"{name}: {response.status_code} {response.text}"
    if recorded.status == 204:
        assert response.content == b"", name
        return None
    assert (response.headers.get("content-type") or "").startswith(recorded.content_type or ""), name
    body = response.json()
    same_shape(recorded.body, body, name)
    return body


def fails_as(name: str, response: httpx.Response) -> str:
    """Requires the recorded status, type and error code; returns the text, which differs between releases."""
    recorded = ANSWERS[name]
    assert response.status_code == recorded.status, f"{name}: {response.status_code} {response.text}"
    assert (response.headers.get("content-type") or "").startswith(recorded.content_type or ""), name
    if isinstance(recorded.body, str):
        return response.text
    body = response.json()
    for key in ("code", "reason_code"):
        assert body.get(key) == recorded.body.get(key), f"{name}: {body}"
    return str(body["message"])


def allow(topic: str, action: Literal["publish", "subscribe", "all"] = "all") -> Rule:
    """A rule that allows."""
    return {"topic": topic, "permission": "allow", "action": action}


def deny(topic: str, action: Literal["publish", "subscribe", "all"] = "all") -> Rule:
    """A rule that denies."""
    return {"topic": topic, "permission": "deny", "action": action}


@dataclass
class Broker:
    """The cluster under test, the same for every test."""

    api_urls: list[str]
    endpoints: list[Endpoint]
    key: str
    secret: str
    restart: Callable[[int], None] | None = None  # restarts a node by its number from 0; absent where nobody can
    hang: Callable[[int], None] | None = None  # stops a node as SIGSTOP does; absent where nobody can
    resume: Callable[[int], None] | None = None
    foreign_bans: int = 500  # rows of somebody else that a containment must leave alone

    @cached_property
    def version(self) -> tuple[int, ...]:
        """Major and minor version of the first node."""
        with self.client() as api:
            text = str(api.get("/nodes").json()[0]["version"])
        return tuple(int(part) for part in text.split(".")[:2])

    @cached_property
    def hides_connack_events(self) -> bool:
        """Whether rules get no event of a CONNACK: on 6.x by default."""
        with self.client() as api:
            settings = api.get("/configs", params={"key": "rule_engine"}).text
        return "limit_selects_in_namespace = true" in settings

    @property
    def plus_is_wildcard(self) -> bool:
        """Whether a client id `+` becomes the wildcard where a rule has `${clientid}`: until 6.3."""
        return self.version < (6, 3)

    def client(self, node: int = 0, *, auth: tuple[str, str] | None = None) -> httpx.Client:
        """An HTTP client for one node's API."""
        return httpx.Client(
            base_url=f"{self.api_urls[node]}/api/v5",
            auth=auth or (self.key, self.secret),
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )


@dataclass(slots=True)
class Lab:
    """One test's access to the broker: removes afterwards what the test made through it."""

    broker: Broker
    prefix: str
    apis: list[httpx.Client]
    probes: list[Probe] = field(default_factory=list)
    _bans: set[tuple[str, str]] = field(default_factory=set)
    _rules: set[tuple[str, str]] = field(default_factory=set)
    _users: set[str] = field(default_factory=set)
    _retained: set[str] = field(default_factory=set)
    _event_rules: set[str] = field(default_factory=set)

    @property
    def api(self) -> httpx.Client:
        """The API of the first node."""
        return self.apis[0]

    def name(self, suffix: str) -> str:
        """A client id, user name or topic root that nobody else uses."""
        return f"{self.prefix}-{suffix}"

    def probe(self, suffix: str, *, node: int = 0, **options: Any) -> Probe:
        """A client on one of the nodes."""
        endpoint = options.pop("endpoint", None) or self.endpoint(node)
        probe = Probe(endpoint, self.name(suffix), **options)
        self.probes.append(probe)
        return probe

    def enter(self, suffix: str, *, node: int = 0, **options: Any) -> Probe:
        """A client that is connected."""
        return self.probe(suffix, node=node, **options).enter()

    def odd(self, clientid: str) -> Probe:
        """A connected client with exactly this id, which other tests may use after it."""
        probe = Probe(self.endpoint(), clientid)
        self.probes.append(probe)
        return probe.enter()

    def endpoint(self, node: int = 0) -> Endpoint:
        """The MQTT listener of a node; of the first one where there are fewer."""
        return self.broker.endpoints[node % len(self.broker.endpoints)]

    def api_of(self, node: int) -> httpx.Client:
        """The API of a node; of the first one where there are fewer."""
        return self.apis[node % len(self.apis)]

    # Calls that are undone after the test

    def ban(self, kind: str, who: str, *, node: int = 0, **fields: Any) -> httpx.Response:
        """POST a ban."""
        self._bans.add((kind, who))
        body = {"as": kind, "who": who, "until": FAR, "by": "cordon", "reason": "posture", **fields}
        body = {name: value for name, value in body.items() if value is not None}
        return self.api_of(node).post("/banned", json=body)

    def owns(self, kind: Literal["clientid", "username"], who: str) -> None:
        """Registers the rows that Cordon makes for this client or user for removal."""
        self._bans.add((kind, who))
        self._rules.add(("clients" if kind == "clientid" else "users", who))

    def ban_all(self, names: list[str]) -> None:
        """Ban many client ids, a few at a time."""
        self._bans.update(("clientid", who) for who in names)
        with ThreadPoolExecutor(8) as pool:
            for answer in pool.map(lambda who: self.ban("clientid", who, by="somebody"), names):
                assert answer.status_code == 200, answer.text

    def bans_of(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """The rows of these client ids, page by page."""
        wanted, found = set(names), {}
        for page in range(1, 10_000):
            rows = self.api.get("/banned", params={"page": page, "limit": 1000}).json()["data"]
            if not rows:
                break
            found.update({row["who"]: row for row in rows if row["who"] in wanted})
        return found

    def retained_topics(self) -> set[str]:
        """Topics of the retained messages under this test's prefix."""
        rows = self.api.get("/mqtt/retainer/messages", params={"page": 1, "limit": 10_000}).json()["data"]
        return {row["topic"] for row in rows if row["topic"].startswith(self.prefix)}

    def unban(self, kind: str, who: str) -> httpx.Response:
        """DELETE a ban."""
        return self.api.delete(f"/banned/{kind}/{quote(who, safe='')}")

    def put_rules(self, clientid: str, *rules: Rule) -> httpx.Response:
        """Replace a client's rules."""
        self._rules.add(("clients", clientid))
        body = {"clientid": clientid, "rules": list(rules)}
        return self.api.put(f"{RULES}/clients/{clientid}", json=body)

    def post_rules(self, clientid: str, *rules: Rule) -> httpx.Response:
        """Add a client's rules."""
        self._rules.add(("clients", clientid))
        return self.api.post(f"{RULES}/clients", json=[{"clientid": clientid, "rules": list(rules)}])

    def put_user_rules(self, username: str, *rules: Rule) -> httpx.Response:
        """Replace a user's rules."""
        self._rules.add(("users", username))
        body = {"username": username, "rules": list(rules)}
        return self.api.put(f"{RULES}/users/{username}", json=body)

    def add_user(self, name: str, password: str) -> httpx.Response:
        """Add an MQTT user."""
        self._users.add(name)
        return self.api.post(USERS, json={"user_id": name, "password": password, "is_superuser": False})

    def retains(self, topic: str) -> str:
        """Registers a retained message for removal."""
        self._retained.add(topic)
        return topic

    def make_event_rule(self, event: str, where: str = "") -> str:
        """Makes a rule that republishes an event's rows under the test's prefix; returns its id."""
        action = {
            "function": "republish",
            "args": {
                "topic": f"{self.prefix}/events/${{event}}", "qos": 1, "payload": "${.}", "retain": False,
                "user_properties": "", "mqtt_properties": {},
            },
        }  # fmt: skip
        body = {
            "name": self.name("rule"), "sql": f'SELECT * FROM "$events/{event}"{where}', "actions": [action],
            "enable": True, "description": "of a test",
        }  # fmt: skip
        row = answers_as("rule for failed authentication and denied access", self.api.post("/rules", json=body))
        self._event_rules.add(row["id"])
        return str(row["id"])

    def kick(self, clientid: str) -> httpx.Response:
        """DELETE a client."""
        return self.api.delete(f"/clients/{clientid}")

    def clear_cache(self, clientid: str) -> httpx.Response:
        """Clears the cache of access decisions of a client."""
        return self.api.delete(f"/clients/{clientid}/authorization/cache")

    # Waiting for a cluster

    def until_known(self, clientid: str, *, connected: bool = True) -> None:
        """Wait until the API knows the client in this state."""

        def known() -> bool:
            answer = self.api.get(f"/clients/{clientid}")
            return answer.status_code == 200 and answer.json()["connected"] is connected

        wait_for(known, f"{clientid} connected={connected}")

    def until_gone(self, clientid: str) -> None:
        """Wait until the API does not know the client any more."""
        wait_for(lambda: self.api.get(f"/clients/{clientid}").status_code == 404, f"{clientid} gone")

    def until_subscribed(self, clientid: str, topic: str) -> None:
        """Wait until every node routes to the subscription."""

        def listed() -> bool:
            rows = self.api.get(f"/clients/{clientid}/subscriptions")
            return rows.status_code == 200 and topic in [row["topic"] for row in rows.json()]

        wait_for(listed, f"{clientid} subscribed to {topic}")

    def clean(self) -> None:
        """Removes everything that the test made."""
        for topic in self._retained:
            self.api.post("/publish", json={"topic": topic, "payload": "", "retain": True})
        for probe in self.probes:
            probe.close()
        self.api.post("/clients/kickout/bulk", json=sorted({probe.clientid for probe in self.probes}))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda row: self.unban(*row), sorted(self._bans)))
        for kind, owner in self._rules:
            self.api.delete(f"{RULES}/{kind}/{owner}")
        for rule in self._event_rules:
            self.api.delete(f"/rules/{rule}")
        for user in self._users:
            self.api.delete(f"{USERS}/{user}")
