"""`python -m tests.crash --kills 200 --seed 7 [--devices 30]`: kill the controller so often; exit code 1: found."""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from pathlib import Path

from tests.crash.kill_run import Report, open_siege


async def _run(kills: int, devices: int, seed: int) -> Report:
    with tempfile.TemporaryDirectory() as folder:
        async with open_siege(Path(folder), devices, random.Random(seed)) as siege:
            return await siege.hold(kills)


def main() -> int:
    """Run one siege."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--seed", type=int, default=None, help="of everything left to chance (default: a new one)")
    chosen = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    report = asyncio.run(_run(chosen.kills, chosen.devices, seed))
    for complaint in report.complaints:
        print(f"FOUND {complaint}")
    print(
        f"kills={report.kills} at_start={report.at_start} acts={report.acts} record_lines={report.lines} "
        f"settle_s={report.settle_seconds:.1f} complaints={len(report.complaints)}"
    )
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
