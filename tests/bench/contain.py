"""How long it takes from publishing a violating report until the broker closes the device's socket.

`make bench-contain`, or `python -m tests.bench.contain [--devices 100] [--samples 100] [--load REPORTS_A_SECOND]
[--many 1000] [--bans 10000] [--rounds 3] [--store-in FOLDER]`.

A stand-in of three nodes, `cordon serve` with the starter pack and a store with FULL sync, and devices connected over
TLS with certificates of their own. One device after the other opens a port that isolates; the time is taken at the
device, from handing the report to the socket until the broker's DISCONNECT has come. First while nothing else happens,
then while healthy reports flow at half of the rate that was measured before with the same processes, in the end with
all devices at once. Between the rounds operators let the devices out again. Then, without MQTT, many devices at once
and a comparison of many bans: `tests.bench.contain_many` tells how.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from controller.ports.broker import CLOCK_SLACK
from controller.ports.broker_tables import AccessRule
from schemas.topics import ALL_UP, DownChannel, down
from tests.bench import contain_many
from tests.bench.contain_worker import CONNECTIONS
from tests.support.certs import Certs
from tests.support.deployment import Deployment, Timings, open_deployment
from tests.support.emqx_calls import write_rules
from tests.support.processes import ModuleProcess
from tests.support.simulated_fleet import SimulatedFleetProcess
from tests.support.standin import StandInProcess

NODES: Final = 3
# As a real installation has them: reports every now and then, the broker compared every five seconds; devices that are
# turned away try again only now and then, or their handshakes would be most of what is measured.
TIMINGS: Final = Timings(heartbeat_every="30s", reconnect_max="15s", stale_after="300s", reconcile_every="5s")
PORT: Final = 2375
CUT: Final = 152  # the reason code of a client that an administrator's ban ends
LONGEST_PAUSE: Final = 0.15  # seconds between one device's end and the next one's violation
MEASURE_SECONDS: Final = 8.0
WAIT_SECONDS: Final = 60.0
LOAD_RULES: Final = (
    AccessRule(ALL_UP, "allow", "publish"),
    AccessRule(down("+", DownChannel.RECEIPT), "allow", "subscribe"),
)
_POLL_SECONDS: Final = 0.1
# As the controller's zone has it in docs/deployment.md: with EMQX's default the broker drops the oldest of 1,000 queued
# reports while the controller waits for a processor, and the device sends it again 10 s later.
LONG_QUEUE: Final = {"zone": {"mqtt": {"max_mqueue_len": 100_000}}}
RELEASES_A_SECOND: Final = 40  # the API admits 50 new connections of an address in a second


@dataclass(frozen=True, slots=True)
class Bench:
    """What runs."""

    deployment: Deployment
    fleet: SimulatedFleetProcess
    rand: random.Random

    async def one(self, device: str) -> float:
        """Seconds from a device's violating report to its cut."""
        begun = time.monotonic()
        await self.fleet.change(device, {"open_port": PORT})
        return await self.cut(device, begun)

    async def cut(self, device: str, begun: float) -> float:
        """Wait for the cut of a device that violates since `begun`."""
        observed = self.fleet.observations
        end = await observed.wait_for(device, "disconnected", seconds=WAIT_SECONDS, since=begun, code=CUT)
        sent = observed.first(device, "report_sent", since=begun, report="full")
        assert sent is not None
        return end.moment - sent.moment

    async def in_turn(self, samples: int) -> list[float]:
        """One device after the other, let out again after each round of the fleet."""
        found: list[float] = []
        while len(found) < samples:
            devices = list(self.fleet.device_ids)[: samples - len(found)]
            self.rand.shuffle(devices)
            for device in devices:
                found.append(await self.one(device))
                await asyncio.sleep(self.rand.random() * LONGEST_PAUSE)
            await self.let_out()
        return found

    async def at_once(self) -> list[float]:
        """Every device in the same moment."""
        begun = time.monotonic()
        await self.fleet.change("*", {"open_port": PORT})
        found = [await self.cut(device, begun) for device in self.fleet.device_ids]
        await self.let_out()
        return found

    async def let_out(self) -> None:
        """Every device passes again, reports so, and is free."""
        await self.fleet.change("*", {"close_port": PORT})
        deadline = time.monotonic() + WAIT_SECONDS
        while contained := await self._contained():
            assert time.monotonic() < deadline, f"still contained: {contained}"
            for device, level in contained.items():
                if level == "isolated":
                    await self.deployment.operator.release(device, "the next round")
                    await asyncio.sleep(1 / RELEASES_A_SECOND)
            await asyncio.sleep(_POLL_SECONDS)
        # This broker has a listener without proof too, so that a session is vouched for once it is older than this.
        await asyncio.sleep(2 * CLOCK_SLACK)

    async def _contained(self) -> dict[str, str]:
        rows = await self.deployment.operator.devices("dev-")
        return {name: row["level"] for name, row in rows.items() if row["case"] is not None or not row["online"]}


def tell(what: str, found: list[float]) -> tuple[float, float]:
    """Print and give p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    p50, p99 = cuts[49] * 1000, cuts[98] * 1000
    print(
        f"{what}: {len(found)} cuts, p50 {p50:.1f} ms, p90 {cuts[89] * 1000:.1f} ms, p99 {p99:.1f} ms, "
        f"worst {max(found) * 1000:.1f} ms (load average {os.getloadavg()[0]:.1f})",
        flush=True,
    )
    return p50, p99


async def _ask(load: ModuleProcess, **request: Any) -> dict[str, Any]:
    await load.send(request)
    return await load.answer(WAIT_SECONDS)


async def measure(folder: Path, devices: int, samples: int, rate: float | None) -> str:
    """Run all of it; the last line."""
    certs = Certs(folder / "certs")
    with StandInProcess(nodes=NODES, certs=certs) as emqx:
        emqx.configure(LONG_QUEUE)
        async with open_deployment(folder, emqx, certs, pack="starter", timings=TIMINGS) as deployment:
            fleet = await deployment.start_fleet(devices)
            addresses = ",".join(f"{host}:{port}" for host, port in emqx.mqtt)
            # Each of its connections publishes for many devices, which no device may.
            for number in range(CONNECTIONS):
                await write_rules(deployment.broker.api, f"bench-load-{number}", LOAD_RULES)
            load = await ModuleProcess.start("load", "tests.bench.contain_worker", [addresses], folder)
            deployment.stack.push_async_callback(load.stop)
            await load.answer(WAIT_SECONDS)
            bench = Bench(deployment, fleet, random.Random(1))
            idle = tell("idle", await bench.in_turn(samples))
            if rate is None:
                await _ask(load, do="max", seconds=MEASURE_SECONDS / 4)  # the devices get known
                most = (await _ask(load, do="max", seconds=MEASURE_SECONDS))["receipted"]
                print(f"measured: {most:.0f} reports a second, each judged, kept and receipted", flush=True)
                rate = most / 2
            await _ask(load, do="rate", rate=rate)
            loaded = tell(f"at {rate:.0f} reports a second", await bench.in_turn(samples))
            flow = await _ask(load, do="stop")
            print(f"meanwhile {flow['sent']:.0f} reports a second were sent, {flow['receipted']:.0f} receipted")
            crowded = tell("all at once", await bench.at_once())
    return (
        f"contain_idle_p50_ms={idle[0]:.1f} contain_idle_p99_ms={idle[1]:.1f} contain_loaded_p50_ms={loaded[0]:.1f} "
        f"contain_loaded_p99_ms={loaded[1]:.1f} load_per_s={flow['sent']:.0f} "
        f"contain_at_once_p50_ms={crowded[0]:.1f} contain_at_once_p99_ms={crowded[1]:.1f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100, help="of each kind")
    parser.add_argument("--load", type=float, default=None, help="reports a second (default: half of what is measured)")
    parser.add_argument(
        "--many", type=int, default=1000, help="devices at once against the bare calls; 0: leave it out"
    )
    parser.add_argument("--bans", type=int, default=10_000, help="rows that are compared")
    parser.add_argument("--rounds", type=int, default=3, help="of many devices at once")
    parser.add_argument("--store-in", type=Path, default=Path("/var/tmp"), help="folder of the store: a real disk")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.store_in) as folder:
        line = uvloop.run(measure(Path(folder), chosen.devices, chosen.samples, chosen.load))
        if chosen.many:
            (Path(folder) / "many").mkdir()
            many = contain_many.measure(Path(folder) / "many", chosen.many, chosen.bans, chosen.rounds)
            line += f" {uvloop.run(many)}"
        print(line)


if __name__ == "__main__":
    main()
