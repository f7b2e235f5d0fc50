"""Two real controllers on one PostgreSQL: their clients at the broker, the policies that both judge by, the doctor."""

from pathlib import Path
from typing import Any

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.setup.baseline import rules_for_controller
from schemas.topics import SHARED_UP
from tests.soak.cluster import Cluster, Member, open_cluster
from tests.support.certs import Certs
from tests.support.deployment import Timings
from tests.support.emqx_calls import rules_of
from tests.support.postgres import WHEEL, PostgresServers
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]
_RULE = """
policy: added
version: 1
title: Added later
rules:
  - id: no-9999
    title: Nothing listens on 9999
    check: '!listening_ports.exists(p, p == 9999)'
    severity: low
    fix: Stop it.
"""


async def test_two_controllers_share_the_broker_the_policies_and_the_keys(
    tmp_path: Path, emqx: StandInProcess, certs: Certs, postgres_servers: PostgresServers
) -> None:
    async with open_cluster(tmp_path, postgres_servers[WHEEL], emqx, certs, 2, Timings()) as cluster:
        await _at_the_broker(cluster)
        await _doctor(cluster)
        await _policies(cluster)


async def _call(member: Member, method: str, path: str) -> Any:
    assert member.operator is not None
    return await member.operator.call(method, path)


async def _at_the_broker(cluster: Cluster) -> None:
    api = cluster.broker.api
    for member in cluster.members:
        assert await rules_of(api, member.client_id) == rules_for_controller()
        held = await api.send(requests.read_subscriptions(member.client_id))
        assert held is not None
        assert SHARED_UP in {row.topic for row in held}


async def _doctor(cluster: Cluster) -> None:
    groups = {"shared_subscription_group": {"cordon": {"strategy": "hash_clientid"}}}
    await cluster.broker.api.send(requests.json_request("PUT", "/configs/broker", "set", body=groups))
    for member in cluster.members:
        found = await _call(member, "GET", "/doctor")
        results = {one["check"]: (one["result"], one["detail"]) for one in found["items"]}
        assert found["controller"] == member.name
        assert results["keys"] == ("ok", "the same on every controller (c1, c2)")
        assert results["policies"][0] == "ok"
        assert results["a-device-stays-with-a-controller"][0] == "ok"


async def _policies(cluster: Cluster) -> None:
    """A file that is added on every host is in force everywhere once it was reloaded at one of them."""
    before = (await _call(cluster.members[0], "GET", "/policies"))["version"]
    for member in cluster.members:
        (member.config.parent / "policies" / "added.yaml").write_text(_RULE)
    loaded = await _call(cluster.members[1], "POST", "/policies/reload")
    assert loaded["version"] != before

    async def everywhere() -> bool:
        found = [await _call(member, "GET", "/policies") for member in cluster.members]
        return {one["version"] for one in found} == {loaded["version"]} and found[0]["shared"]["epoch"] == 2

    await eventually(everywhere, "both judge by the new policies", seconds=30.0)
