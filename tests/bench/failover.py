"""How long nobody decides: `python -m tests.bench.failover [--rounds N] [--controllers N]`; nothing is asserted.

Right after a controller or the database has failed, every device violates a policy. Told are, in seconds since the
failure, when devices had their receipts, when the broker had the rules that contain them, and when there was a leader.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import psycopg

from controller.ports.broker_tables import restriction
from tests.soak.cluster import Cluster, Member, open_cluster
from tests.support.certs import Certs
from tests.support.deployment import Timings
from tests.support.emqx_calls import rules_of
from tests.support.postgres import WHEEL, postgres_server
from tests.support.simulated_fleet import SimulatedFleetProcess
from tests.support.standin import StandInProcess

DEVICES = 10
HALTED = 15.0  # seconds
WAIT = 120.0  # seconds
LEADERLESS = 12.0  # seconds in which it is looked whether there is a leader
_LEADER = (
    "SELECT leader FROM fleet JOIN writers ON writer = leader WHERE NOT fenced AND lease_until > clock_timestamp()"
)
Failure = Callable[[Cluster, Member], Coroutine[Any, Any, None]]


async def death(_cluster: Cluster, member: Member) -> None:
    """The process dies."""
    member.signal(signal.SIGKILL)


async def host(_cluster: Cluster, member: Member) -> None:
    """The host vanishes: connections stay open, nothing answers."""
    process = member.process
    member.signal(signal.SIGSTOP)

    async def go_on() -> None:
        await asyncio.sleep(HALTED)
        if member.process is process:
            member.signal(signal.SIGCONT)

    asyncio.get_running_loop().create_task(go_on())


async def database(cluster: Cluster, _member: Member) -> None:
    """PostgreSQL is killed and starts again at once."""
    await asyncio.to_thread(cluster.server.kill)
    await asyncio.to_thread(cluster.server.start)


async def leader_of(cluster: Cluster) -> int | None:
    """The number of the run that leads; `None` if nobody does."""
    found = await cluster.query(_LEADER)
    return found[0][0] if found else None


async def one_round(
    cluster: Cluster, fleet: SimulatedFleetProcess, failure: Failure, member: Member
) -> dict[str, list[float]]:
    """Seconds since the failure."""
    begun = time.monotonic()
    failing = asyncio.get_running_loop().create_task(failure(cluster, member))
    await asyncio.sleep(0.05)
    for device in fleet.device_ids:
        await fleet.change(device, {"open_port": 23, "process": "not-telnetd"})
    told: dict[str, list[float]] = {"receipts": [], "contained": [], "leader": []}

    async def receipt(device: str) -> None:
        seen = await fleet.observations.wait_for(device, "receipt", seconds=WAIT, since=begun, verdict="accepted")
        told["receipts"].append(seen.moment - begun)
        while await rules_of(cluster.broker.api, device) != restriction(device):
            await asyncio.sleep(0.05)
        told["contained"].append(time.monotonic() - begun)

    async def leader() -> None:
        """The last moment at which nobody led."""
        until = 0.0
        while time.monotonic() < begun + LEADERLESS:
            found = None
            with contextlib.suppress(psycopg.Error):
                found = await leader_of(cluster)
            if found is None:
                until = time.monotonic() - begun
            await asyncio.sleep(0.1)
        told["leader"].append(until)

    async with asyncio.TaskGroup() as group:
        for device in fleet.device_ids:
            group.create_task(receipt(device))
        group.create_task(leader())
    await failing
    await _repaired(cluster, fleet)
    return told


async def _repaired(cluster: Cluster, fleet: SimulatedFleetProcess) -> None:
    """Everything is well again."""
    await cluster.until_ready(WAIT)
    for device in fleet.device_ids:
        await fleet.change(device, {"close_port": 23})
    for device in fleet.device_ids:
        while await rules_of(cluster.broker.api, device):
            await asyncio.sleep(0.1)


def _shown(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 2), "most": round(max(seconds), 2)}


async def main(rounds: int, controllers: int) -> None:
    with tempfile.TemporaryDirectory() as folder, postgres_server(WHEEL) as server:
        certs = Certs(Path(folder) / "certs")
        with StandInProcess(nodes=2, certs=certs) as emqx:
            timings = Timings(stale_after="30s")
            async with open_cluster(Path(folder), server, emqx, certs, controllers, timings) as cluster:
                fleet = await cluster.start_fleet(DEVICES)
                chance = random.Random(1)
                for failure in (death, host, database):
                    told: dict[str, list[float]] = {}
                    for _ in range(rounds):
                        found = await one_round(cluster, fleet, failure, chance.choice(cluster.members))
                        for what, seconds in found.items():
                            told.setdefault(what, []).extend(seconds)
                    print(json.dumps({"failure": failure.__name__, **{one: _shown(of) for one, of in told.items()}}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--controllers", type=int, default=2)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.controllers))
