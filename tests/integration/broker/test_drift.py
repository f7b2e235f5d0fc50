"""Drift at a stand-in of three nodes: found on whichever node it is, mended there, foreign rows untouched."""

import asyncio
from pathlib import Path

import httpx

from controller.adapters.emqx.containment.broker import open_emqx
from controller.adapters.system import SystemClock
from controller.ports.broker_tables import restriction
from controller.service.containment.drift import DriftState
from tests.support.emqx_calls import PATIENT, lift_ban, rules_of
from tests.support.faulty_emqx import FaultyDeployment, faulty_deployment
from tests.support.reports import full, incoming
from tests.support.standin import StandInProcess

FOREIGN = 300


async def settled(at: FaultyDeployment) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        working = group.create_task(at.outbox.run())
        while at.outbox.queue.pending:
            await asyncio.sleep(0.01)
        working.cancel()


async def test_a_node_that_missed_rows_is_found_and_holds_them_again(tmp_path: Path) -> None:
    with StandInProcess(nodes=3) as emqx:
        async with (
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT) as broker,
            faulty_deployment(tmp_path / "c.db", broker) as at,
        ):
            await at.harness.ingest.process_batch(
                [incoming("edge-1", full("edge-1", 1, 23)), incoming("edge-2", full("edge-2", 1, 2375))]
            )
            await settled(at)
            assert await at.reconciler.reconcile(everywhere=True) == []
            await asyncio.to_thread(emqx.hide, 2, clients=["edge-1"])
            found = await at.reconciler.reconcile()
            assert [(one.device_id, one.what) for one in found] == [
                ("", "nodes hold different bans or rules"),
                ("edge-1", "the rules of the restriction are missing"),
            ]
            await settled(at)
            assert await rules_of(broker.api.on_node(emqx.api_urls[2]), "edge-1") == restriction("edge-1")
            assert await at.reconciler.reconcile(everywhere=True) == []
            assert DriftState.REPAIRED in {one.state for one in at.reconciler.book.closed}


async def test_foreign_bans_and_rules_are_read_over_and_left(tmp_path: Path) -> None:
    with StandInProcess(nodes=1) as emqx:
        async with (
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT) as broker,
            faulty_deployment(tmp_path / "c.db", broker) as at,
            httpx.AsyncClient(
                base_url=f"{emqx.api_urls[0]}/api/v5", auth=(emqx.key, emqx.secret), trust_env=False
            ) as api,
        ):
            for number in range(FOREIGN):
                body = {"as": "clientid", "who": f"theirs-{number}", "by": "somebody", "until": "2036-01-01T00:00:00Z"}
                assert (await api.post("/banned", json=body)).status_code == 200
            await at.harness.ingest.process_batch([incoming("edge-2", full("edge-2", 1, 2375))])
            await settled(at)
            assert await lift_ban(broker.api, "edge-2")
            assert [one.what for one in await at.reconciler.reconcile()] == ["the ban is missing"]
            await settled(at)
            assert await at.reconciler.reconcile() == []
            bans = [ban async for ban in broker.bans()]
            assert sum(ban.by == "somebody" for ban in bans) == FOREIGN
            assert [ban.who for ban in bans if ban.is_ours] == ["edge-2"]
