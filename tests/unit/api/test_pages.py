"""Listings read page by page while rows come, go and change: each row that stays is told once."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.domain.evolve import evolve
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.rollout.model import MemberState, RolloutMember
from controller.ports.messages import IncomingMessage
from controller.ports.store import StoreWrites
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.fleet_devices import devices_of

BASE = "/api/v1"
Change = Callable[[], Awaitable[object]]


async def pages(api: Api, path: str, limit: int, change: Change) -> list[dict[str, Any]]:
    """All items of a listing; `change` happens after the first page."""
    found: list[dict[str, Any]] = []
    after, separator = "", "&" if "?" in path else "?"
    for number in range(100):
        page = await api.json("GET", f"{BASE}{path}{separator}limit={limit}{after}")
        found += page["items"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"
        if not number:
            await change()
    raise AssertionError("the listing has no end")


async def reported(api: Api, *ids: str, ports: tuple[int, ...] = ()) -> None:
    for device_id in ids:
        await api.report(device_id, ports=ports)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_devices_when_a_device_comes(api: Api, limit: int) -> None:
    ids = [f"edge-{number}" for number in range(1, 6)]
    await reported(api, *ids)
    found = await pages(api, "/devices", limit, lambda: reported(api, "a-first", "edge-0"))
    assert [one["device_id"] for one in found] == ids


@pytest.mark.parametrize("limit", [1, 2])
async def test_contained_devices_when_one_is_released(api: Api, limit: int) -> None:
    ids = [f"edge-{number}" for number in range(1, 6)]
    await reported(api, *ids, ports=(23,))

    async def release() -> None:
        released = evolve(devices_of(api.harness.fleet)["edge-1"], case=None)
        await api.harness.store.commit(StoreWrites(devices=(released,)))

    found = await pages(api, "/quarantine", limit, release)
    assert [one["device_id"] for one in found] == ids


async def test_devices_of_a_rollout_when_their_state_changes(api: Api) -> None:
    ids = [f"edge-{number}" for number in range(1, 6)]
    await reported(api, *ids)
    rings = [{"name": "one", "select": "id:edge-[34]"}, {"name": "rest", "select": "rest"}]
    await api.json("POST", f"{BASE}/rollouts", 201, {"target": "app/2.0", "rings": rings})

    async def change() -> None:
        rollout = await store.rollout("r-0001")
        assert rollout is not None
        await store.keep(rollout, (RolloutMember("edge-3", 0, MemberState.AWAY),), StoreWrites())

    store = api.services.rollouts.operations.store
    found = await pages(api, "/rollouts/r-0001/devices?state=pending", 1, change)
    assert [one["device_id"] for one in found] == ["edge-3", "edge-4", "edge-1", "edge-2", "edge-5"]


async def test_rollouts_and_commands_when_another_is_made(api: Api) -> None:
    await reported(api, "edge-1")
    body = {"device_id": "edge-1", "action": "service.disable", "params": {"name": "telnetd"}}

    async def rollout() -> None:
        rings = [{"name": "all", "select": "rest"}]
        made = await api.json("POST", f"{BASE}/rollouts", 201, {"target": "app/2.0", "rings": rings})
        await api.json("POST", f"{BASE}/rollouts/{made['rollout_id']}/abort", 200, {})

    async def command() -> None:
        await api.json("POST", f"{BASE}/commands", 201, body)

    for path, make, key in (("/rollouts", rollout, "rollout_id"), ("/commands", command, "command_id")):
        for _ in range(3):
            await make()
        before = [one[key] for one in (await api.json("GET", f"{BASE}{path}"))["items"]]
        assert [one[key] for one in await pages(api, path, 1, make)] == before


async def test_dead_letters_when_another_comes(api: Api) -> None:
    async def letter() -> None:
        message = IncomingMessage("cordon/v1/up/edge-1/posture", b"{", 1, False, False, 1, 0.0)
        await api.harness.ingest.process_batch([message])

    for _ in range(3):
        await letter()
    before = (await api.json("GET", f"{BASE}/dead-letters"))["items"]
    assert await pages(api, "/dead-letters", 2, letter) == before
    assert len(before) == 3


async def test_held_containments_when_one_is_decided(tmp_path: Path) -> None:
    guards = FleetGuards(BlastRadius(BlastRadiusLimits(1, 100.0, 600.0)))
    async with open_api(tmp_path / "cordon.db", guards=guards) as api:
        ids = [f"edge-{number}" for number in range(1, 6)]
        await reported(api, *ids, ports=(23,))

        async def dismiss() -> None:
            await api.json("POST", f"{BASE}/guard/dismiss", 200, {"devices": ["edge-2"], "reason": "test"})

        found = await pages(api, "/guard", 1, dismiss)
        assert [one["device_id"] for one in found] == ids[1:]


@pytest.mark.parametrize(
    "path", ["/commands?after=none", "/rollouts?after=r-9999", "/rollouts/r-0001/devices?after=none", "/guard?after=x"]
)
async def test_row_that_is_gone_is_told_and_hides_nothing(api: Api, path: str) -> None:
    await reported(api, "edge-1")
    rings = [{"name": "all", "select": "rest"}]
    await api.json("POST", f"{BASE}/rollouts", 201, {"target": "app/2.0", "rings": rings})
    answer = await api.json("GET", f"{BASE}{path}", 404)
    assert answer["error"]["code"] == "page_unknown"
