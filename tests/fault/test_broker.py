"""The broker itself fails: a node dies in the middle of a containment, the cluster comes back without its state."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from controller.adapters.emqx.containment.broker import open_emqx
from controller.adapters.system import SystemClock
from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRules, restriction
from controller.ports.errors import BrokerUnreachableError
from tests.support.emqx_calls import PATIENT, delete_rules, rules_of
from tests.support.faulty_emqx import FaultyDeployment, faulty_deployment
from tests.support.fleet_devices import devices_of
from tests.support.mosquitto import free_port
from tests.support.mqtt_device import Device
from tests.support.reports import full, incoming
from tests.support.standin import StandInProcess
from tests.support.waiting import WAIT_SECONDS, eventually

KEY, SECRET = "cordon", "not-a-secret"
NOT_AUTHORIZED, BANNED = 135, 138


async def test_a_node_killed_in_the_middle_of_a_containment(tmp_path: Path) -> None:
    with StandInProcess(nodes=3) as emqx, Device("edge-1", [emqx.mqtt[2]]) as device:
        async with (
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT) as broker,
            faulty_deployment(tmp_path / "c.db", broker) as it,
        ):
            ordinary = it.harness.store.keep_rules

            async def keep_and_kill(device_id: str, case_id: str, rules: AccessRules, at: float) -> None:
                await asyncio.to_thread(emqx.kill_node, emqx.names[0])
                await ordinary(device_id, case_id, rules, at)

            it.harness.store.keep_rules = keep_and_kill  # type: ignore[method-assign]  # between two calls of a sequence
            await it.harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
            await _settled(it)
            case = devices_of(it.harness.fleet)["edge-1"].case
            assert case is not None
            assert (case.level, case.proven_level, case.trouble) == (
                ContainmentLevel.RESTRICTED,
                ContainmentLevel.RESTRICTED,
                "",
            )
            assert await asyncio.to_thread(device.publish, "fleet/telemetry") == NOT_AUTHORIZED
            assert await rules_of(broker.api, "edge-1") == restriction("edge-1")


async def test_a_broker_that_lost_its_state_holds_it_again_within_seconds(tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    async with (
        open_emqx([f"http://127.0.0.1:{ports[1]}"], KEY, SECRET, clock=SystemClock(), limits=PATIENT) as broker,
        faulty_deployment(tmp_path / "c.db", broker) as at,
    ):
        async with stand_in(ports):
            await at.harness.ingest.process_batch(
                [incoming("edge-1", full("edge-1", 1, 23)), incoming("edge-2", full("edge-2", 1, 2375))]
            )
            await _settled(at)
        try:
            await at.reconciler.reconcile()
        except BrokerUnreachableError:
            pass
        else:
            raise AssertionError("the broker is gone, and a comparison succeeded")
        async with stand_in(ports), asyncio.TaskGroup() as group:  # nothing of before: no rule, no ban
            assert await rules_of(broker.api, "edge-1") == ()
            tasks = [group.create_task(at.reconciler.run()), group.create_task(at.outbox.run())]
            await eventually(lambda: at.reconciler.repaired == 2 and at.outbox.queue.pending == 0)
            for task in tasks:
                task.cancel()
            assert await rules_of(broker.api, "edge-1") == restriction("edge-1")
            assert await rules_of(broker.api, "edge-2") == restriction("edge-2")
            bans = [ban async for ban in broker.bans()]
            assert [(ban.who, ban.is_ours) for ban in bans] == [("edge-2", True)]
            device = await asyncio.to_thread(Device("edge-2", [("127.0.0.1", ports[0])]).connect)
            assert device.connacks == [BANNED]
            await asyncio.to_thread(device.close)
        assert AuditKind.BROKER_DRIFT_FOUND in await at.harness.audited("edge-1")


async def test_rules_altered_by_hand_at_a_running_broker(tmp_path: Path) -> None:
    with StandInProcess(nodes=2) as emqx:
        async with (
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT) as broker,
            faulty_deployment(tmp_path / "c.db", broker) as at,
        ):
            await at.harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
            await _settled(at)
            await delete_rules(broker.api, "edge-1")
            assert [one.what for one in await at.reconciler.reconcile()] == ["the rules of the restriction are missing"]
            await _settled(at)
            assert await rules_of(broker.api, "edge-1") == restriction("edge-1")
            assert await at.reconciler.reconcile() == []


async def _settled(at: FaultyDeployment) -> None:
    """Everything asked for is carried out, however many attempts it takes."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(at.outbox.run())
        await eventually(lambda: at.outbox.queue.pending == 0)
        working.cancel()


@asynccontextmanager
async def stand_in(ports: tuple[int, int]) -> AsyncIterator[None]:
    """A stand-in on these ports (MQTT, API) for the length of the block, killed in the end."""
    argv = [sys.executable, "-m", "controller.standin", "--mqtt-port", str(ports[0]), "--api-port", str(ports[1])]
    argv += ["--api-key", KEY, "--api-secret", SECRET]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            assert await process.stdout.readline(), "the stand-in did not start"
        yield
    finally:
        process.kill()
        await process.wait()
        await eventually(lambda: not _answers(ports[1]))


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
