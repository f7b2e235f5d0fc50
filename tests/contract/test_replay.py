"""Every exchange recorded on a real EMQX is made again with the stand-in, which has to give the same answer.

The clients of the recording connect where they did. Of values that differ from run to run only the type is compared.
"""

import json
import re
import time
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import httpx
import pytest

from controller.standin.release import RELEASES
from tests.contract.target import RULES, Recorded, recording
from tests.support.mqtt_probe import Endpoint, Probe, close_all
from tests.support.standin import StandInProcess
from tests.support.waiting import wait_for

USER, PASSWORD = "lab", "lab-password"
RECORDED: Final = {"5.8": "5.8.9", "6.3": "6.3"}  # by release of the stand-in
NODES: Final = {"5.8": 3, "6.3": 1}
# Exchanges that the stand-in's API does not cover: Cordon makes none of them.
NOT_COVERED: Final = {
    "metrics of the cluster": "Cordon reads no metrics of EMQX",
}
# Values of which only the type is compared, by the name of their key.
OF_THE_RUN: Final = frozenset(
    {
        # times and identities
        "at", "until", "created_at", "last_modified_at", "connected_at", "disconnected_at", "updated_time", "uptime",
        "cursor", "port",
        # of the machine, and of Erlang
        "load1", "load5", "load15", "memory_total", "memory_used", "max_fds", "otp_release", "process_available",
        "process_used", "sys_path", "acceptors", "heap_size", "mailbox_len", "reductions", "recv_oct", "send_oct",
        "data_dir",
        # names that say that it is a stand-in, and the lab's own
        "edition", "node", "self", "nodes", "bind", "cookie",
    }
)  # fmt: skip
_PAGE: Final = ("clientid", "count", "hasnext", "proto_ver")
# ... and in single exchanges.
OF_THE_EXCHANGE: Final = {
    "cluster": ("name",),
    "cluster names all nodes, also those whose address is not configured": ("name",),
    # which of the lab's clients were connected
    "clients page": _PAGE,
    "clients like": _PAGE,
    "clients_v2 page": _PAGE,
    "list bans page 2 of 2": ("data",),  # the order is that of EMQX's table
    # EMQX counts packets in intervals
    "persistent session while away": ("recv_cnt", "recv_pkt", "send_cnt", "send_pkt"),
    # ids of rules and messages
    "rule for failed authentication and denied access": ("id",),
    "rule, read": ("id",),
    "rule, metrics": ("id",),
    "publish": ("id",),
    "publish with properties": ("id",),
    "publish bulk": ("id",),
}
NUMBERS_DIFFER: Final = {"stats"}  # the maxima are the lab's


@dataclass(frozen=True, slots=True)
class Answer:
    """What the stand-in answered."""

    status: int
    content_type: str
    text: str


class Stage:
    """The clients of the recording; `before` does what was done before an exchange."""

    def __init__(self, emqx: StandInProcess, api: httpx.Client) -> None:
        self._emqx = emqx
        self._api = api
        self._probes: dict[str, Probe] = {}

    def _enter(self, clientid: str, user: tuple[str, str] = (USER, PASSWORD), **options: Any) -> Probe:
        probe = Probe(Endpoint(*self._emqx.mqtt[0], *user), clientid, **options).enter()
        self._probes[clientid] = probe
        return probe

    def before(self, name: str) -> None:
        """Connects the clients that the exchange needs."""
        if name == "client, exact":
            self._enter("rec-a")
            self._enter("rec-b")
        elif name == "client subscriptions":
            self._probes["rec-a"].subscribe("rec/1", "rec/2")
        elif name == "kick bulk with an absent one":
            self._enter("rec-x")
        elif name == "persistent session while away":
            self._enter("rec-p", clean=False, expiry=3600).subscribe("rec/q")
            self._probes["rec-p"].leave()
            wait_for(lambda: self._api.get("/clients/rec-p").json()["connected"] is False, "rec-p is away")
        elif name == "ban username (live)":
            self._enter("rec-u", ("rec-user", "rec-pass-1"))
        elif name == "rules for a client: absent":
            self._enter("rec-z").subscribe("fleet/data")
            self._probes["rec-z"].publish("fleet/up")
        elif name == "add rules":
            self._api.delete(f"{RULES}/clients/rec-z")
        elif name == "cache of a client":
            self._probes["rec-z"].publish("fleet/other")
        elif name == "publish":
            self._enter("rec-api").subscribe("rec/api")

    def close(self) -> None:
        close_all(self._probes.values())


def _configuration(one: tuple[Recorded, ...]) -> dict[str, Any]:
    """The lab's settings that differ from the defaults of its release."""
    settings = next(exchange.body for exchange in one if exchange.name == "authorization settings")
    return {"authorization": {"no_match": settings["no_match"]}}


def _request(exchange: Recorded) -> dict[str, Any]:
    if exchange.json is None:
        return {}
    if isinstance(exchange.json, dict) and exchange.json.keys() == {"raw"}:
        return {"content": exchange.json["raw"], "headers": {"content-type": "application/json"}}
    if exchange.name == "ban for two seconds":
        return {"json": {**exchange.json, "until": int(time.time()) + 2}}
    return {"json": exchange.json}


@cache
def _replayed(release: str) -> tuple[Answer, ...]:
    exchanges = recording(RECORDED[release])
    with StandInProcess(nodes=NODES[release], users=[(USER, PASSWORD)], emqx=release) as emqx:
        emqx.configure(_configuration(exchanges))
        with httpx.Client(base_url=f"{emqx.api_urls[0]}/api/v5", timeout=15, trust_env=False) as plain:
            key = (emqx.key, emqx.secret)
            keys: dict[str, Any] = {"no credentials": None, "wrong key": ("nobody", "nothing")}
            with httpx.Client(base_url=plain.base_url, auth=key, timeout=15, trust_env=False) as api:
                stage = Stage(emqx, api)
                answers, rule_id = [], ("", "")
                for one in exchanges:
                    stage.before(one.name)
                    auth = keys.get(one.name, key)
                    path = one.path.replace(*rule_id)
                    response = plain.request(one.method, path, auth=auth, **_request(one))
                    if (one.method, one.path) == ("POST", "/rules"):
                        rule_id = one.body["id"], response.json()["id"]
                    content_type = response.headers.get("content-type", "")
                    answers.append(Answer(response.status_code, content_type, response.text))
                stage.close()
        return tuple(answers)


CASES: Final = [
    pytest.param(release, number, id=f"{release}-{number}-{one.name.replace(' ', '-')}")
    for release in RELEASES
    for number, one in enumerate(recording(RECORDED[release]))
]


@pytest.mark.parametrize(("release", "number"), CASES)
def test_the_stand_in_answers_as_recorded(release: str, number: int) -> None:
    one, answer = recording(RECORDED[release])[number], _replayed(release)[number]
    if one.name in NOT_COVERED:
        assert (answer.status, answer.content_type) == (404, "text/html"), "covered by now: remove the exception"
        return
    assert (answer.status, answer.content_type) == (one.status, one.content_type or ""), answer.text
    body: Any = json.loads(answer.text) if one.content_type == "application/json" else answer.text
    if isinstance(one.body, str) and one.content_type == "text/plain":
        assert _lines(body) == _lines(one.body)
        return
    if one.name == "listeners":  # the lab had WebSocket and TLS listeners too
        assert isinstance(body, list)
        body = [row for row in body if row["type"] == "tcp"]
        recorded: Any = [row for row in one.body if row["type"] == "tcp"]
    else:
        recorded = one.body
    assert _comparable(body, one.name) == _comparable(recorded, one.name)


def test_every_exception_is_recorded() -> None:
    names = {one.name for release in RECORDED.values() for one in recording(release)}
    assert names >= NOT_COVERED.keys() | OF_THE_EXCHANGE.keys() | NUMBERS_DIFFER


def _lines(text: str) -> list[str]:
    """Lines of text without the values that are of the run."""
    lines = [line for line in text.strip().splitlines() if line != "this is a stand-in, not EMQX"]
    lines = [re.sub(r"^Node emqx\d+@", "Node emqx@", line) for line in lines]
    return [line.partition("=")[0] + "=" if line.split("=")[0].strip() in OF_THE_RUN else line for line in lines]


def _comparable(value: Any, name: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {part: _comparable(item, name, part) for part, item in sorted(value.items())}
    if isinstance(value, list) and key not in (*OF_THE_RUN, *OF_THE_EXCHANGE.get(name, ())):
        return sorted((_comparable(item, name) for item in value), key=repr)
    if isinstance(value, str) and key == "message":
        return _message(value)
    varies = key in OF_THE_RUN or key in OF_THE_EXCHANGE.get(name, ())
    if varies or (name in NUMBERS_DIFFER and isinstance(value, int)):
        return type(value).__name__ if not isinstance(value, int | float) or isinstance(value, bool) else "number"
    return value


def _message(text: str) -> Any:
    """A text as JSON where it is JSON, without the times in it."""
    try:
        value = json.loads(text)
    except ValueError:
        words = text.partition("}")[0] if "badkey" in text else text
        return " ".join("number" if word.isdecimal() else word for word in words.split())
    if isinstance(value, list) and all(isinstance(item, int | str) for item in value):
        return ["number" if isinstance(item, str) and item.isdecimal() else item for item in value]
    return _comparable(value, "message")
