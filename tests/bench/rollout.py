"""What a rollout costs the controller, and how fast it is.

`make bench-rollout`, or `python -m tests.bench.rollout [--machine 1000,10000] [--rounds 3] [--mqtt 1000]
[--store-in FOLDER]`.

First without a network: state, outbox, ingest and rollouts of a controller in this process, on a store with FULL sync,
and devices that answer every order at once with a result and a report. Processor time is what the process used, less
what making the answers took; each size is played in rounds that alternate, and the best of each counts. Then with real
processes: stand-in, controller and simulated devices over TLS, until the last ring is through.

The last line is JSON. Exit status 1 when a device costs more than 1.2 times as much in the largest fleet as in the
smallest.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from controller.app.persons import add_person
from controller.domain.rollout.model import RolloutState, RolloutTerms
from controller.domain.rollout.rings import parse_ring
from controller.domain.scopes import Scope
from controller.ports.messages import IncomingMessage
from controller.service.rollout.operations import RolloutRequest
from schemas.topics import UpChannel, up
from tests.bench.agent import cpu_seconds, memory_mb
from tests.bench.fleet import sections
from tests.support.certs import Certs
from tests.support.deployment import Timings, open_deployment
from tests.support.mosquitto import free_port
from tests.support.operator import OperatorClient
from tests.support.reports import full
from tests.support.rollouts import RolloutHarness, open_rollouts, software
from tests.support.standin import StandInProcess
from tests.support.updates import archive, repository

MOST_RATIO: Final = 1.2
BATCH: Final = 500  # messages given to ingest at once, as the link does
NAME: Final = "edge-app"
VERSION: Final = "1.4.0"
TIMINGS: Final = Timings(heartbeat_every="30s", reconnect_max="15s", stale_after="300s", reconcile_every="30s")
_NODES: Final = 3
_RINGS: Final = {"ring:test": range(3), "ring:canary": range(3, 5)}
_MOST_PASSES: Final = 100_000
_POLL_SECONDS: Final = 0.2
_WAIT_SECONDS: Final = 900.0


class Devices:
    """Devices that do at once what they are ordered; `seconds` is the processor time that their answers took."""

    def __init__(self, made: RolloutHarness) -> None:
        self.made = made
        self.seconds = 0.0
        self._sent = 0

    def answers(self) -> list[IncomingMessage]:
        """Results and reports for the orders that came since the last call."""
        begun = time.process_time()
        sent, found = self.made.harness.link.sent, []
        for _, payload in sent[self._sent :]:
            if not payload.startswith(b"signed:"):
                continue
            command = json.loads(payload[len(b"signed:") :])
            device_id, command_id = command["device_id"], command["command_id"]
            result = {
                "v": 1, "command_id": command_id, "state": "succeeded", "reason": "", "at": "2026-11-23T10:00:00Z",
                "detail": {"phase": "confirmed", "name": "app", "version": "2.0", "before": "1.0"},
            }  # fmt: skip
            found.append(incoming(device_id, json.dumps(result).encode(), UpChannel.RESULT))
            found.append(incoming(device_id, report(device_id, 2, "2.0", command_id)))
        self._sent = len(sent)
        self.seconds += time.process_time() - begun
        return found


def report(device_id: str, seq: int, version: str, command_id: str = "") -> bytes:
    """A report of a device with the app at this version."""
    body = sections() | {"software": software(version, command_id=command_id, attempted=version)}
    return full(device_id, seq, **body)


def incoming(device_id: str, payload: bytes, channel: UpChannel = UpChannel.POSTURE) -> IncomingMessage:
    """A message as the link hands it over."""
    return IncomingMessage(up(device_id, channel), payload, 1, False, False, 1, 0.0)


async def machine(count: int, folder: Path) -> dict[str, Any]:
    """One rollout to `count` devices without a network."""
    async with open_rollouts(folder / f"{count}-{time.monotonic_ns()}.db") as made:
        ids = [f"dev-{number:05d}" for number in range(count)]
        for at in range(0, count, BATCH):
            await made.harness.ingest.process_batch(
                [incoming(one, report(one, 1, "1.0")) for one in ids[at : at + BATCH]]
            )
        made.harness.link.sent.clear()
        devices = Devices(made)
        before = _rss_mb()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(made.harness.outbox.run(), name="outbox")
            wall, used = time.monotonic(), time.process_time()
            rings = tuple(parse_ring(*one) for one in (("test", "id:dev-0000?"), ("canary", "10%"), ("fleet", "rest")))
            terms = RolloutTerms(soak=1.0, min_sample=10, timeout=600.0, approval=False)
            await made.desk.start(RolloutRequest("app/2.0", rings, terms, "operator:bench"))
            last_ring = await _through(made, devices)
            seconds, used = time.monotonic() - wall, time.process_time() - used - devices.seconds
            sending.cancel()
    return {
        "devices": count,
        "cpu_us_per_device": round(used / count * 1e6, 1),
        "orders_per_second": round(count / seconds, 1),
        "seconds": round(seconds, 2),
        "seconds_until_last_ring": round(last_ring - wall, 2),
        "rss_growth_mb": round(_rss_mb() - before, 1),
    }


async def _through(made: RolloutHarness, devices: Devices) -> float:
    """Play until it has completed; when the last ring opened (monotonic seconds)."""
    last_ring = 0.0
    for _ in range(_MOST_PASSES):
        await made.rollouts.once()
        rollout = next((run.rollout for run in made.rollouts.runs.values()), None)
        if rollout is None:
            break
        if rollout.is_last_ring and not last_ring:
            last_ring = time.monotonic()
        if rollout.state is RolloutState.SOAKING:
            made.harness.clock.at += 2.0
        while made.harness.outbox.queue.pending:
            await asyncio.sleep(0.001)
        answers = devices.answers()
        for at in range(0, len(answers), BATCH):
            await made.harness.ingest.process_batch(answers[at : at + BATCH])
    ended = await made.now()
    if ended.state is not RolloutState.COMPLETED:
        raise RuntimeError(f"it did not complete: {ended}")
    return last_ring


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def over_mqtt(count: int, folder: Path) -> dict[str, Any]:
    """One rollout to `count` simulated devices, with real processes over TLS."""
    certs, updates = Certs(folder / "certs"), repository(folder)
    content = archive({"VERSION": VERSION})
    await asyncio.to_thread(updates.publish, NAME, VERSION, content)
    more = (
        f'\n[updates]\nfolder = "{updates.folder.base}"\nlisten = "127.0.0.1:{free_port()}"\n'
        f'certificate = "{certs.server_cert}"\nkey = "{certs.server_key}"\n'
    )
    with StandInProcess(nodes=_NODES, certs=certs) as emqx:
        async with open_deployment(folder, emqx, certs, timings=TIMINGS, more=more) as deployment:
            fleet = await deployment.start_fleet(count, ["--software", f"{NAME}=1.3.0", "--action-time", "50ms"])
            operator = deployment.operator
            store = deployment.config.parent / "cordon.db"
            second = await add_person(store, "second-operator", (Scope.READ, Scope.ROLLOUT))
            approver = OperatorClient(operator.url, second)
            for tag, numbers in _RINGS.items():
                for number in numbers:
                    await operator.call("PUT", f"/devices/{fleet.device_ids[number]}/labels", {"tags": [tag]})
            pid = deployment.controller.pid
            before, used = memory_mb(pid, "VmRSS"), cpu_seconds(pid)
            begun = time.monotonic()
            terms = {"target": f"{NAME}/{VERSION}", "soak": "1s", "timeout": "300s", "min_sample": 10}
            path = f"/rollouts/{(await operator.call('POST', '/rollouts', terms))['rollout_id']}"
            await _until(operator, path, "awaiting_approval")
            await approver.call("POST", f"{path}/approve", {})
            last_ring = time.monotonic()
            found = await _until(operator, path, "completed")
            ended, used = time.monotonic(), cpu_seconds(pid) - used
            after = memory_mb(pid, "VmRSS")
    first = max(max(numbers) for numbers in _RINGS.values()) + 1
    moments = sorted(
        one.moment
        for device in fleet.device_ids[first:]
        for one in fleet.observations.of(device, "command_taken", action="update.install")
    )
    return {
        "devices": count,
        "confirmed": sum(ring["confirmed"] for ring in found["rings"]),
        "commands_per_second": round(len(moments) / (moments[-1] - moments[0]), 1),
        "seconds": round(ended - begun, 2),
        "seconds_until_last_ring": round(last_ring - begun, 2),
        "seconds_of_last_ring": round(ended - last_ring, 2),
        "controller_cpu_seconds": round(used, 2),
        "controller_cpu_ms_per_device": round(used / count * 1000, 3),
        "controller_rss_mb": after,
        "controller_rss_growth_mb": round(after - before, 1),
    }


async def _until(operator: OperatorClient, path: str, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        found: dict[str, Any] = await operator.call("GET", path)
        if found["state"] == state:
            return found
        if found["ended_at"] is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{path} is {found['state']} ({found['why']}), not {state}")
        await asyncio.sleep(_POLL_SECONDS)


def measure(sizes: list[int], rounds: int, folder: Path) -> dict[int, dict[str, Any]]:
    """The best round of each size."""
    best: dict[int, dict[str, Any]] = {}
    for number in range(rounds):
        for size in sizes:
            found = asyncio.run(machine(size, folder))
            sys.stdout.write(f"round {number + 1}: {json.dumps(found)}\n")
            sys.stdout.flush()
            if size not in best or found["cpu_us_per_device"] < best[size]["cpu_us_per_device"]:
                best[size] = found
    return best


def main() -> int:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", default="1000,10000", metavar="N,N", help="sizes without a network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mqtt", type=int, default=1000, metavar="N", help="devices over MQTT; 0: none")
    parser.add_argument("--store-in", type=Path, default=None, help="folder on a real disk")
    given = parser.parse_args()
    sizes = [int(one) for one in given.machine.split(",")]
    with tempfile.TemporaryDirectory(prefix="cordon-bench-", dir=given.store_in) as name:
        best = measure(sizes, given.rounds, Path(name))
        ratio = best[sizes[-1]]["cpu_us_per_device"] / best[sizes[0]]["cpu_us_per_device"]
        sys.stdout.write(f"a device among {sizes[-1]} costs {ratio:.2f} times one among {sizes[0]}\n")
        mqtt = asyncio.run(over_mqtt(given.mqtt, Path(name))) if given.mqtt else None
    answer = {
        "ok": ratio <= MOST_RATIO,
        "ratio": round(ratio, 3),
        "machine": [best[size] for size in sizes],
        "mqtt": mqtt,
        "processors": os.cpu_count(),
    }
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
