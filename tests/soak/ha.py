"""Faults without end: `python -m tests.soak.ha --kills 300 --state FILE`, which goes on where an earlier run ended.

Faults come in blocks, each with new processes and an empty database. After each block every receipt, level, rule at
the broker, line and chain of the audit log is checked; only then the block counts.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from controller.app.offline import open_store
from controller.service.settings.settings import load_settings
from tests.soak.cluster import Cluster, open_cluster
from tests.soak.faults import FAULTS
from tests.soak.load import Load
from tests.support.certs import Certs
from tests.support.deployment import Timings
from tests.support.postgres import WHEEL, postgres_server
from tests.support.standin import StandInProcess

BLOCK: Final = 20  # faults
DEVICES: Final = 10
_TIMINGS: Final = Timings(stale_after="30s")
_BETWEEN: Final = (0.0, 0.5, 2.0, 5.0)  # seconds between two faults


@dataclass
class Progress:
    """What all runs so far have shown."""

    kills: int = 0
    blocks: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    containments: int = 0
    receipts: int = 0
    slowest: float = 0.0  # seconds from a violation to the rules that contain the device, with a fault between
    fenced: int = 0

    @classmethod
    def read(cls, state: Path | None) -> "Progress":
        return cls(**json.loads(state.read_text())) if state is not None and state.exists() else cls()

    def note(self, state: Path | None) -> None:
        if state is not None:
            state.write_text(json.dumps(asdict(self), indent=2) + "\n")
        print(json.dumps(asdict(self)), flush=True)

    def add(self, faults: Counter[str], load: Load, fenced: int) -> None:
        self.kills += faults.total()
        self.blocks += 1
        self.faults = dict(Counter(self.faults) + faults)
        self.containments += load.rounds.total()
        self.receipts += load.receipts
        self.slowest = max(self.slowest, round(load.slowest, 1))
        self.fenced += fenced


async def run(kills: int, controllers: int, state: Path | None, *, seed: int = 0, faults: str = "") -> Progress:
    """Goes on until `kills` faults are done; `faults`: only these, by name.

    Raises:
        AssertionError: something was lost, wrong, missing, or changed by who may not.
    """
    progress = Progress.read(state)
    while progress.kills < kills:
        most = min(BLOCK, kills - progress.kills)
        await _block(progress, most, controllers, random.Random(f"{seed} {progress.blocks}"), faults)
        progress.note(state)
    return progress


async def _block(progress: Progress, most: int, controllers: int, chance: random.Random, only: str) -> None:
    with tempfile.TemporaryDirectory() as folder, postgres_server(WHEEL) as server:
        certs = Certs(Path(folder) / "certs")
        with StandInProcess(nodes=2, certs=certs) as emqx:
            async with open_cluster(Path(folder), server, emqx, certs, controllers, _TIMINGS) as cluster:
                load = Load(cluster, await cluster.start_fleet(DEVICES))
                done: Counter[str] = Counter()
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(load.run())
                        await _faults(cluster, most, chance, done, only)
                        await cluster.until_ready(120.0)
                        load.is_ending = True
                    await load.check_end()
                    await _verify(cluster)
                except BaseException:
                    sys.stderr.write(f"faults so far: {dict(done)}\n{_logs(cluster)}\n")
                    raise
                ((fenced,),) = await cluster.query("SELECT count(*) FROM writers WHERE fenced AND writer > 0")
                progress.add(done, load, fenced)


async def _faults(cluster: Cluster, most: int, chance: random.Random, done: Counter[str], only: str) -> None:
    known = [fault for fault in FAULTS if not only or fault.__name__ in only.split(",")]
    weights = [FAULTS[fault] for fault in known]
    for _ in range(most):
        (fault,) = chance.choices(known, weights)
        member = chance.choice(cluster.members)
        print(f"  {time.strftime('%H:%M:%S')} {fault.__name__} {member.name}", flush=True)
        await fault(cluster, member, chance)
        done[fault.__name__] += 1
        # Mostly once all is well again, sometimes in the middle of a recovery.
        if chance.random() < 0.7:
            await cluster.until_ready(120.0)
        await asyncio.sleep(chance.choice(_BETWEEN))


async def _verify(cluster: Cluster) -> None:
    async with open_store(load_settings(cluster.members[0].config).store) as store:
        checked = await store.check_audit()
    assert checked.is_intact, f"the audit log is not as it was written: {checked}"


def _logs(cluster: Cluster) -> str:
    return "\n".join(
        f"{one.name}, {one.starts} starts, exits {one.exits}:\n{one.process.log_tail()}"
        for one in cluster.members
        if one.process
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--controllers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, help="a file that a later run goes on from")
    parser.add_argument("--faults", default="", help=f"only these: {', '.join(one.__name__ for one in FAULTS)}")
    given = parser.parse_args()
    asyncio.run(run(given.kills, given.controllers, given.state, seed=given.seed, faults=given.faults))


if __name__ == "__main__":
    main()
