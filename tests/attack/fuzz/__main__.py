"""As many hostile messages as wanted (`python -m tests.attack.fuzz --inputs 1000000`); 1 if what must hold did not."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.attack.fuzz.fuzz_run import BATCH, BreachError, Tally, run

_EVERY: Final = 20_000  # inputs between two lines


def _progress(inputs: int) -> Iterator[None]:
    begun, done = time.monotonic(), 0
    while True:
        done += BATCH
        if done % _EVERY == 0:
            print(f"{min(done, inputs):>9} of {inputs}  {done / (time.monotonic() - begun):.0f}/s", flush=True)
        yield


def _show(tally: Tally, seconds: float) -> None:
    print(f"\n{'verdict':<34}{'inputs':>10}")
    for name, count in tally.verdicts.most_common():
        print(f"{name:<34}{count:>10}")
    print(f"\n{'what was sent: what became of it':<64}{'inputs':>10}")
    for name, count in sorted(tally.kinds.items()):
        print(f"{name:<64}{count:>10}")
    print(
        f"\ninputs={tally.inputs} seconds={seconds:.1f} devices={tally.devices} dead_letters={tally.letters}"
        f" rss_growth_mb={tally.growth / 2**20:.1f}"
    )


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            tally = asyncio.run(run(Path(folder) / "c.db", options.inputs, options.seed, _progress(options.inputs)))
        except BreachError as e:
            print(f"breach: {e}", file=sys.stderr)
            return 1
    _show(tally, time.monotonic() - begun)
    return 0


if __name__ == "__main__":
    sys.exit(main())
