"""Which controllers work with the store, and what each says of its own lease."""

from pathlib import Path

import pytest

from controller.api.health import all_warnings
from controller.cli.app import run_safely
from controller.ports.leases import ControllerInfo
from tests.support.api import TOKEN, Api, api
from tests.support.api_server import ApiServer
from tests.support.leases import MemoryLeases


async def test_controllers_are_listed_with_leader_buckets_and_what_waits(tmp_path: Path) -> None:
    leases = MemoryLeases(frozenset(range(128)), run_number=3)
    leases.known = (
        ControllerInfo("a", 2, 1_700_000_000.0, "1.2", True, 128, 2.5, 4, -0.01),
        ControllerInfo("b", 3, 1_700_000_060.0, "1.2", False, 128, -0.2, 0, 0.0),
    )
    async with api(tmp_path / "c.db", leases=leases) as one:
        first, second = (await one.json("GET", "/api/v1/controllers"))["items"]
    assert first == {
        "name": "a", "run": 2, "since": "2023-11-14T22:13:20.000Z", "version": "1.2", "is_leader": True, "buckets": 128,
        "pending": 4, "lease_left": 2.5, "clock_offset": -0.01, "answers": False,
    }  # fmt: skip
    assert (second["name"], second["is_leader"], second["lease_left"], second["answers"]) == ("b", False, -0.2, True)


async def test_a_controller_says_what_it_holds_and_that_its_lease_is_over(tmp_path: Path) -> None:
    leases = MemoryLeases(frozenset(range(100)))
    leases.fenced, leases.clock_offset = 2, 0.1
    async with api(tmp_path / "c.db", leases=leases) as one:
        await one.services.nodes.look()
        assert (await one.json("GET", "/readyz"))["reasons"] == []
        lines = (await one.client.get("/metrics")).text.splitlines()
        for line in (
            "cordon_leader 0.0", "cordon_buckets 100.0", "cordon_lease_left_seconds 3.0",
            "cordon_clock_offset_seconds 0.1", "cordon_controllers_fenced_total 2.0",
        ):  # fmt: skip
            assert line in lines
        leases.left = -0.1
        (reason,) = (await one.json("GET", "/readyz", 503))["reasons"]
        assert reason.startswith("the lease of this controller is over")


async def test_what_the_store_does_not_promise_is_a_warning(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def warnings() -> tuple[str, ...]:
        return ("no standby",)

    assert "no standby" not in await all_warnings(api.services)
    monkeypatch.setattr(api.services.store, "warnings", warnings)
    assert "no standby" in await all_warnings(api.services)


def test_the_command_lists_the_one_controller_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ApiServer(tmp_path / "c.db", {}) as server:
        assert run_safely(["controllers", "list", "--url", server.url, "--token", f"command:echo {TOKEN}"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["name", "run", "since", "leads"]
    assert row.split()[:3] == ["tests", "*", "1"]
    assert row.endswith("yes    256      0                    +0.000 s  1.2")
