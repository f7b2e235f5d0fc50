"""A node that hangs: what the API answers through the others, as it was recorded with SIGSTOP on three nodes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from controller.standin.options import StandInOptions
from controller.standin.server import StandIn
from tests.support.mqtt_probe import Endpoint, Probe
from tests.support.waiting import eventually

SECRET = "s3cret"
HUNG, ASKED, OTHER = 0, 1, 2
NODES = [f"emqx{n}@127.0.0.1" for n in (1, 2, 3)]
RULES = "/authorization/sources/built_in_database/rules/clients"
WAITING = [
    ("GET", "/clients/on-hung", 404),
    ("GET", "/clients/on-hung/subscriptions", 404),
    ("GET", "/nodes", 200),
    ("GET", "/clients", 200),
    ("GET", "/clients?clientid=on-other&clientid=on-asked", 200),
    ("DELETE", "/authorization/cache", 204),
    ("DELETE", "/clients/on-other/authorization/cache", 204),
    ("DELETE", "/clients/on-other", 204),
    ("POST", "/clients/kickout/bulk", 500),
]
PROMPT: list[tuple[str, str, Any, int]] = [
    ("PUT", f"{RULES}/on-other", {"clientid": "on-other", "rules": []}, 204),
    ("POST", RULES, [{"clientid": "on-asked", "rules": []}], 204),
    ("POST", "/clients/on-asked/unsubscribe/bulk", [{"topic": "a"}], 204),
    ("POST", "/clients/on-other/unsubscribe/bulk", [{"topic": "a"}], 204),
    ("POST", "/banned", {"as": "clientid", "who": "on-hung"}, 200),
    ("GET", "/banned", None, 200),
    ("DELETE", "/banned/clientid/on-hung", None, 204),
    ("GET", "/clients/on-asked", None, 200),
    ("GET", "/clients/on-other", None, 200),
    ("GET", "/clients/on-other/subscriptions", None, 200),
    ("GET", "/clients/nobody", None, 404),
    ("GET", f"/clients?node={NODES[OTHER]}", None, 200),
    ("GET", "/cluster", None, 200),
]


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    """Three nodes, the first of which will hang, each with a client."""
    async with StandIn(StandInOptions(api_secret=SECRET, nodes=3)) as opened:
        yield opened


@asynccontextmanager
async def _hung(standin: StandIn, seconds: float) -> AsyncIterator[tuple[httpx.AsyncClient, dict[int, Probe]]]:
    probes = {}
    for node, name in ((HUNG, "on-hung"), (ASKED, "on-asked"), (OTHER, "on-other")):
        probe = Probe(Endpoint(*standin.mqtt_addresses[node]), name, clean=False, expiry=3600)
        probes[node] = await asyncio.to_thread(probe.enter)
    base = f"{standin.api_urls[ASKED]}/api/v5"
    async with httpx.AsyncClient(base_url=base, auth=("cordon", SECRET), trust_env=False, timeout=60) as api:
        standin.hang_node(NODES[HUNG], seconds)
        yield api, probes
    for probe in probes.values():
        await asyncio.to_thread(probe.close)


async def test_what_needs_no_other_node_answers_at_once(standin: StandIn) -> None:
    async with _hung(standin, 600) as (api, _):
        for method, path, body, status in PROMPT:
            assert (await api.request(method, path, json=body)).status_code == status, (method, path)
        assert (await api.get("/cluster")).json()["nodes"] == NODES, "the cluster has not given it up"


@pytest.mark.parametrize(("method", "path", "status"), WAITING)
async def test_what_asks_every_node_answers_once_the_hung_node_is_given_up(
    standin: StandIn, method: str, path: str, status: int
) -> None:
    async with _hung(standin, 600) as (api, probes), asyncio.TaskGroup() as group:
        body = ["on-other"] if path.endswith("bulk") else None
        asked = group.create_task(api.request(method, path, json=body))
        if status == 500 or (method, path) == ("DELETE", "/clients/on-other"):
            # The effect on a healthy node does not wait for the answer.
            assert (await asyncio.to_thread(probes[OTHER].ended)).code == 152
        assert (await api.get("/clients/on-asked")).status_code == 200  # a later call is answered before
        assert not asked.done()
        standin._give_up(standin._nodes[NODES[HUNG]])
        assert (await asked).status_code == status
        assert (await api.get("/cluster")).json()["nodes"] == [NODES[ASKED], NODES[OTHER]]


async def test_the_hung_node_itself_says_nothing_until_it_resumes(standin: StandIn) -> None:
    async with _hung(standin, 600) as (api, probes):
        base = f"{standin.api_urls[HUNG]}/api/v5"
        async with (
            httpx.AsyncClient(base_url=base, auth=("cordon", SECRET), trust_env=False, timeout=60) as hung,
            asyncio.TaskGroup() as group,
        ):
            asked = group.create_task(hung.get("/cluster"))
            assert (await api.post("/banned", json={"as": "clientid", "who": "on-hung"})).status_code == 200
            assert not asked.done()
            standin.resume_node(NODES[HUNG])
            assert (await asked).status_code == 200
        assert (await asyncio.to_thread(probes[HUNG].ended)).code == 152  # the ban reaches it when it resumes


async def test_it_is_given_up_after_its_time_and_stays_outside_until_it_is_restarted(standin: StandIn) -> None:
    async with _hung(standin, 0.05) as (api, _):
        assert (await api.get("/nodes")).json()[HUNG]["node_status"] == "stopped"  # waits for it to be given up
        assert (await api.get("/clients/on-hung")).status_code == 404
        standin.resume_node(NODES[HUNG])
        assert (await api.get("/cluster")).json()["nodes"] == [NODES[ASKED], NODES[OTHER]]
        standin.kill_node(NODES[HUNG])
        await standin.restart_node(NODES[HUNG])
        await eventually(lambda: standin._nodes[NODES[HUNG]].state.running, "the node to run")
        assert (await api.get("/cluster")).json()["nodes"] == NODES
