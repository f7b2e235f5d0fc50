"""A whole controller on PostgreSQL: contains, proves, releases; and loses nothing when something is killed."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from controller.app.offline import open_store
from controller.domain.audit_kinds import AuditKind
from controller.ports.broker_tables import restriction
from controller.ports.errors import StoreError
from controller.ports.leases import ALL_BUCKETS
from controller.service.settings.settings import load_settings
from tests.support.certs import Certs
from tests.support.cli import cordon
from tests.support.deployment import WAIT_SECONDS, Deployment, open_deployment
from tests.support.emqx_calls import rules_of
from tests.support.postgres import SERVERS, WHEEL, PostgresServer, PostgresServers, postgres_server
from tests.support.postgres_leases import running
from tests.support.processes import ModuleProcess
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

DEVICE = "dev-002"
_AWAY_SECONDS = 20.0


async def _until(deployment: Deployment, level: str) -> None:
    async def is_so() -> bool:
        row = (await deployment.operator.devices(DEVICE))[DEVICE]
        return bool(row["level"] == level and (row["case"] is None or row["case"]["proven"]))

    await eventually(is_so, f"{DEVICE} is {level}, and proven so", seconds=WAIT_SECONDS)


async def _lines(deployment: Deployment) -> list[str]:
    """The kinds of the device's audit lines, oldest first; the whole log has to be intact."""
    async with open_store(load_settings(deployment.config).store) as store:
        assert (await store.check_audit()).is_intact
        return [one.entry.kind.value for one in await store.audit(device_id=DEVICE, newest_first=False, limit=1000)]


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_device_is_contained_proven_and_released(
    tmp_path: Path, emqx: StandInProcess, certs: Certs, postgres_servers: PostgresServers, kind: str
) -> None:
    server = postgres_servers[kind]
    url = server.url(server.new_database(), socket_file=True)
    async with open_deployment(tmp_path, emqx, certs, store_url=url) as deployment:
        fleet = await deployment.start_fleet(3)
        await fleet.change(DEVICE, {"open_port": 23})
        await _until(deployment, "restricted")
        assert await rules_of(deployment.broker.api, DEVICE) == restriction(DEVICE)
        await fleet.change(DEVICE, {"close_port": 23})
        await _until(deployment, "none")
        await eventually(lambda: _has_no_rules(deployment), "its rules are gone", seconds=WAIT_SECONDS)
        await eventually(lambda: _steps(deployment), "every step is in the audit", seconds=WAIT_SECONDS)
        await _commands(deployment, tmp_path)
        await _second_controller(deployment)
    status, out, _ = await cordon("store", "status", "--config", str(deployment.config), "--output", "json")
    assert status == 0
    assert json.loads(out)["controllers"] == []


async def _steps(deployment: Deployment) -> bool:
    steps = ["containment.decided", "containment.proven", "containment.release_decided", "containment.release_proven"]
    return [one for one in await _lines(deployment) if one in steps] == steps


async def _has_no_rules(deployment: Deployment) -> bool:
    return await rules_of(deployment.broker.api, DEVICE) == ()


async def _commands(deployment: Deployment, folder: Path) -> None:
    config = str(deployment.config)
    status, out, _ = await cordon("store", "status", "--config", config)
    assert status == 0
    assert "PostgreSQL 1" in out
    assert "devices 3" in out
    status, _, error = await cordon("backup", str(folder / "copy.db"), "--config", config)
    assert status == 2
    assert "pg_dump" in error


async def _second_controller(deployment: Deployment) -> None:
    """One of the same name is refused, and the first goes on."""
    second = await ModuleProcess.start(
        "second", "controller.main", ["serve", "--config", str(deployment.config)], deployment.folder
    )
    await eventually(lambda: second.exit_code is not None, "the second ends", seconds=120.0)
    assert second.exit_code != 0
    assert "in use by a controller of the same name" in second.log_tail()
    await second.stop()
    assert await deployment.operator.is_ready()


async def test_reports_that_were_acknowledged_survive_kills_and_a_server_that_is_away(
    tmp_path: Path, emqx: StandInProcess, certs: Certs
) -> None:
    """The controller is killed, then PostgreSQL, then it is away for 20 s: the same process goes on by itself."""
    with postgres_server(WHEEL) as server:
        url = server.url(server.new_database())
        async with open_deployment(tmp_path, emqx, certs, store_url=url) as deployment:
            fleet = await deployment.start_fleet(3)
            begun = time.monotonic()
            await fleet.change(DEVICE, {"open_port": 23})
            await fleet.observations.wait_for(DEVICE, "receipt", seconds=WAIT_SECONDS, since=begun, verdict="accepted")
            await deployment.kill_controller()
            await deployment.start_controller()
            await eventually(lambda: _is_proven(deployment), "the report was not lost", seconds=WAIT_SECONDS)
            await _outage(deployment, server)
            await fleet.change(DEVICE, {"open_port": 2375})
            await _until(deployment, "isolated")
            assert (await _lines(deployment)).count("containment.decided") == 2


@pytest.mark.slow
async def test_a_controller_that_was_halted_for_longer_than_its_lease_ends_and_acknowledges_nothing(
    tmp_path: Path, emqx: StandInProcess, certs: Certs, postgres_servers: PostgresServers
) -> None:
    server = postgres_servers[WHEEL]
    url = server.url(server.new_database(), socket_file=True)
    async with open_deployment(tmp_path, emqx, certs, store_url=url) as deployment:
        fleet = await deployment.start_fleet(3)
        async with running(url, "other") as other:
            leases = other.shared_leases
            assert leases is not None
            await eventually(lambda: len(leases.buckets) == 128, "they share the buckets")
            assert [leases.is_leader] == [False]
            os.kill(deployment.controller.pid, signal.SIGSTOP)
            begun = time.monotonic()
            await eventually(lambda: leases.is_leader and leases.buckets == ALL_BUCKETS, "the other takes over")
            assert 2.0 < time.monotonic() - begun < 10.0
            (fenced,) = await other.audit(kind=AuditKind.CONTROLLER_FENCED)
            last = (fenced.entry.detail or {})["last"]
            halted = time.monotonic()
            await fleet.change(DEVICE, {"open_port": 23})
            await asyncio.sleep(2.0)  # its report waits in the halted controller's connection
            os.kill(deployment.controller.pid, signal.SIGCONT)
            await eventually(lambda: deployment.controller.exit_code is not None, "it ends", seconds=WAIT_SECONDS)
            assert deployment.controller.exit_code != 0
            assert "another controller has taken over" in deployment.controller.log_tail()
            own = [one.id for one in await other.audit(limit=1000) if one.id.writer == leases.run_number - 1]
            assert str(max(own)) == last
            assert fleet.observations.first(DEVICE, "receipt", since=halted) is None


async def _is_proven(deployment: Deployment) -> bool:
    return "containment.proven" in await _lines(deployment)


async def _outage(deployment: Deployment, server: PostgresServer) -> None:
    controller = deployment.controller
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await eventually(deployment.operator.is_ready, "the controller is ready again", seconds=WAIT_SECONDS)
    await asyncio.to_thread(server.stop)

    async def tells() -> bool:
        return not await deployment.operator.is_ready()

    await eventually(tells, "the controller says that it cannot write", seconds=WAIT_SECONDS)
    await asyncio.sleep(_AWAY_SECONDS)  # heartbeats, timers and loops go on meanwhile
    with pytest.raises(StoreError):
        async with open_store(load_settings(deployment.config).store):
            pass
    await asyncio.to_thread(server.start)
    await eventually(deployment.operator.is_ready, "the controller is ready again", seconds=WAIT_SECONDS)
    assert deployment.controller is controller
    assert controller.exit_code is None
