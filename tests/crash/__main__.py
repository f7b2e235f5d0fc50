"""`python -m tests.crash --kills 200 --seed 7 [--devices 30]`: kills the controller; exit status 1: problems."""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from pathlib import Path

from tests.crash.kill_run import KillReport, open_kill_run


async def _run(kills: int, devices: int, seed: int) -> KillReport:
    with tempfile.TemporaryDirectory() as folder:
        async with open_kill_run(Path(folder), devices, random.Random(seed)) as run:
            return await run.run(kills)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None, help="of everything left to chance (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    report = asyncio.run(_run(options.kills, options.devices, seed))
    for problem in report.problems:
        print(f"PROBLEM {problem}")
    print(
        f"kills={report.kills} at_start={report.at_start} actions={report.actions} audit_lines={report.lines} "
        f"settle_s={report.settle_seconds:.1f} problems={len(report.problems)}"
    )
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
