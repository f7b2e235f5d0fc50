"""How fast the controller takes reports, as ratios to a bare client in the same run.

`make bench`, or `python -m tests.bench.ingest [--messages 30000] [--devices 10000] [--rounds 3]`.

A mosquitto without limits holds a backlog in the controller's session; each side drains it at QoS 1:

- bare: a paho-mqtt client on uvloop whose callback drops the (unchanged) reports, acknowledged by paho;
- unchanged, changed, heartbeat: the whole durable path: decode, judge by 20 rules, commit with FULL sync, PUBACK, and a
  receipt for each report that the broker has confirmed.

Growth is CPU per changed report through the same ingest and store, without a broker, with 1,000 and 100,000 devices.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from schemas.topics import ALL_UP, UpChannel, up
from tests.bench.fleet import Reports, device_id
from tests.bench.link_rate import UNLIMITED, kept_session, new_client
from tests.support.mosquitto import Mosquitto

CLIENT_ID: Final = "bench-controller"
START_TIMEOUT: Final = 120.0  # seconds
PHASES: Final = ("unchanged", "changed", "heartbeat")


@dataclass(frozen=True, slots=True)
class Load:
    """How much."""

    messages: int
    devices: int
    rounds: int


class Worker:
    """A child process that drains the backlog when told, so that its memory and CPU are its own."""

    def __init__(self, *argv: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.ingest_worker", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> list[str]:
        """One command, one line of answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if not answer:
            raise RuntimeError(f"the worker ended while doing {line!r}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()


def open_session(port: int) -> None:
    """Make the controller's session, so that the broker keeps messages for it."""
    subscriber = new_client(CLIENT_ID)
    subscriber.on_connect = lambda client, *_: client.subscribe(ALL_UP, 1)
    subscriber.on_subscribe = lambda client, *_: client.disconnect()
    subscriber.connect("127.0.0.1", port, clean_start=True, properties=kept_session())
    subscriber.loop_forever()


class Publisher:
    """Fills the backlog; sequence numbers go on from phase to phase, as a device's do."""

    def __init__(self, port: int, devices: int) -> None:
        self._devices = devices
        self._sequence = 0
        self._client = new_client("bench-publisher")
        self._client.max_inflight_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def fill(self, kind: str, reports: Reports, messages: int, kernels: tuple[Reports, Reports] | None = None) -> None:
        """Publish `messages`, round the fleet; `kernels` makes every device's report differ from its last."""
        infos = []
        for number in range(messages):
            turn, device = divmod(number, self._devices)
            if device == 0:
                self._sequence += 1
                if kernels is not None:
                    reports = kernels[turn % 2]
            make = reports.beat if kind == "heartbeat" else reports.full
            topic = up(device_id(device), UpChannel.POSTURE)
            infos.append(self._client.publish(topic, make(device, self._sequence), qos=1))
        for info in infos:
            info.wait_for_publish(START_TIMEOUT)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def measure_rates(load: Load, folder: Path) -> dict[str, float]:
    """Messages a second of each way, the best round counting; and the controller's peak memory in MB."""
    best = dict.fromkeys(("bare", *PHASES), 0.0)
    steady, other = Reports(41), Reports(42)
    with Mosquitto(extra_conf=UNLIMITED) as broker:
        port = broker.port
        open_session(port)
        publisher = Publisher(port, load.devices)
        with Worker("bare", str(port)) as bare, Worker("cordon", str(port), str(folder / "bench.db")) as cordon:
            publisher.fill("full", steady, load.devices)
            cordon.ask(f"drain {load.devices}")
            for number in range(load.rounds):
                publisher.fill("full", steady, load.messages)
                best["bare"] = max(best["bare"], float(bare.ask(f"drain {load.messages}")[0]))
                for phase in PHASES:
                    # The sequence goes on, so a report that the bare client dropped is only a gap.
                    kernels = (other, steady) if phase == "changed" else None
                    if phase != "changed":
                        publisher.fill("full", steady, load.devices)
                        cordon.ask(f"drain {load.devices}")
                    publisher.fill(phase, steady, load.messages, kernels)
                    rate = float(cordon.ask(f"drain {load.messages}")[0])
                    best[phase] = max(best[phase], rate)
                print(f"round {number + 1}: " + ", ".join(f"{name} {rate:,.0f}/s" for name, rate in best.items()))
            best["rss_mb"] = float(cordon.ask("rss")[0])
        publisher.close()
    return best


def measure_growth(folder: Path, rounds: int) -> float:
    """CPU of a changed report with 100,000 devices to that with 1,000."""
    cost: dict[int, float] = {}
    for devices in (1_000, 100_000):
        with Worker("growth", str(devices), str(folder / f"growth-{devices}.db")) as worker:
            cost[devices] = min(float(worker.ask("run")[0]) for _ in range(rounds))
        print(f"{devices:,} devices: {cost[devices]:.1f} us of CPU a changed report")
    return cost[100_000] / cost[1_000]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store-in", type=Path, default=None, help="folder of the store: a real disk, not a tmpfs")
    chosen = parser.parse_args()
    load = Load(chosen.messages, chosen.devices, chosen.rounds)
    with tempfile.TemporaryDirectory(dir=chosen.store_in) as folder:
        rates = measure_rates(load, Path(folder))
        growth = measure_growth(Path(folder), chosen.rounds)
    bare = rates["bare"]
    print(
        f"ingest_ratio={rates['unchanged'] / bare:.2f} changed_ratio={rates['changed'] / bare:.2f} "
        f"heartbeat_ratio={rates['heartbeat'] / bare:.2f} rss_mb={rates['rss_mb']:.0f} growth={growth:.2f}"
    )


if __name__ == "__main__":
    main()
