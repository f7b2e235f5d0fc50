"""Whether a flood of sign-ins delays containments: p99 with 50 wrong passwords a second, and without.

`make bench-login-flood`, or `python -m tests.bench.login_flood [--devices 50] [--samples 2000] [--rate 50]
[--rounds 4] [--store-in FOLDER]`.

As `tests.bench.contain`, one device after the other opens a port that isolates. Rounds without and with the flood take
turns, so that what else the machine does is in both. The flood comes from as many loopback addresses as there are
sign-ins in a second, so that no limit of one address takes it away; half of it tries the first administrator's name.
Operators release the devices meanwhile, through the same API.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import httpx

from tests.bench.contain import NODES, TIMINGS, WAIT_SECONDS, Bench, tell
from tests.support.certs import Certs
from tests.support.deployment import open_deployment
from tests.support.processes import ModuleProcess
from tests.support.standin import StandInProcess

GOAL: Final = 2.0  # times the quiet p99
MOST_OPEN: Final = 1000  # sign-ins without an answer, beyond which further ones are left out
_FLOOD: Final = "flood"


class Flood:
    """Sign-ins with wrong passwords at a fixed rate, whether or not answers come."""

    def __init__(self, url: str, rate: int) -> None:
        self.answers: Counter[str] = Counter()
        self._url, self._rate, self._open = f"{url}/api/v1/sessions", rate, 0
        self._rand = random.Random(1)
        self._clients = [
            httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(local_address=f"127.0.1.{number % 250 + 1}"), timeout=20
            )
            for number in range(rate)
        ]

    async def run(self) -> None:
        """Runs until a line, or the end, of standard input."""
        loop = asyncio.get_running_loop()
        stopped = loop.run_in_executor(None, sys.stdin.readline)
        begun, sent = loop.time(), 0
        async with asyncio.TaskGroup() as group:
            while not stopped.done():
                due = int((loop.time() - begun) * self._rate)
                for number in range(sent, due):
                    if self._open < MOST_OPEN:
                        group.create_task(self._sign_in(self._clients[number % self._rate]))
                    else:
                        self.answers["left out"] += 1
                sent = due
                await asyncio.sleep(0.5 / self._rate)

    async def _sign_in(self, client: httpx.AsyncClient) -> None:
        name = self._rand.choice(("admin", f"nobody-{self._rand.getrandbits(32):x}"))
        body = {"name": name, "password": f"{self._rand.getrandbits(128):x}"}
        self._open += 1
        try:
            answer = await client.post(self._url, json=body, headers={"Sec-Fetch-Site": "same-origin"})
            self.answers[str(answer.status_code)] += 1
        except httpx.HTTPError as e:
            self.answers[type(e).__name__] += 1
        finally:
            self._open -= 1


async def measure(folder: Path, devices: int, samples: int, rate: int, rounds: int) -> str:
    """Runs all of it; the last line."""
    certs = Certs(folder / "certs")
    found: dict[str, list[float]] = {"quiet": [], "flooded": []}
    answers: Counter[str] = Counter()
    with StandInProcess(nodes=NODES, certs=certs) as emqx:
        async with open_deployment(folder, emqx, certs, pack="starter", timings=TIMINGS) as deployment:
            bench = Bench(deployment, await deployment.start_fleet(devices), random.Random(1))
            await bench.in_turn(devices)  # what is loaded late is loaded now
            for number in range(rounds):
                found["quiet"] += await bench.in_turn(samples // rounds)
                url = deployment.operator.url
                process = await ModuleProcess.start(
                    f"flood-{number}", "tests.bench.login_flood", [_FLOOD, url, str(rate)], folder
                )
                found["flooded"] += await bench.in_turn(samples // rounds)
                await process.send({"do": "stop"})
                answers.update(await process.answer(WAIT_SECONDS))
                await process.stop()
    quiet, flooded = tell("quiet", found["quiet"]), tell(f"at {rate} sign-ins a second", found["flooded"])
    print(f"answers to the sign-ins: {dict(answers)}", flush=True)
    mean = statistics.mean(found["flooded"]) / statistics.mean(found["quiet"])
    return (
        f"flood_quiet_p99_ms={quiet[1]:.1f} flood_p99_ms={flooded[1]:.1f} flood_p99_ratio={flooded[1] / quiet[1]:.2f} "
        f"flood_mean_ratio={mean:.2f} goal={GOAL:g}"
    )


def main() -> None:
    """Measures and prints; with `flood` as first word, is the flood."""
    if sys.argv[1:2] == [_FLOOD]:
        flood = Flood(sys.argv[2], int(sys.argv[3]))
        asyncio.run(flood.run())
        print(json.dumps(flood.answers), flush=True)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--samples", type=int, default=2000, help="of each kind")
    parser.add_argument("--rate", type=int, default=50, help="sign-ins a second")
    parser.add_argument("--rounds", type=int, default=4, help="of each kind, in turn")
    parser.add_argument("--store-in", type=Path, default=Path("/var/tmp"), help="folder of the store: a real disk")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.store_in) as folder:
        print(asyncio.run(measure(Path(folder), chosen.devices, chosen.samples, chosen.rate, chosen.rounds)))


if __name__ == "__main__":
    main()
