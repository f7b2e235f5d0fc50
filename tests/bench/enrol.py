"""Concurrent enrolment and renewal of many devices: `python -m tests.bench.enrol --devices 200`.

Real parts: a controller process with its store on disk, the stand-in's TLS listener with client certificates, the
agent's enrolment, connection and renewal (a thread and a connection for each device, all in this process, which is part
of what is measured). Exit status 1: a device did not renew, or did not reconnect.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from device_agent.host.certificate import read_file
from device_agent.identity.keypair import load_leaf_certificate
from tests.support.mtls_deployment import EnrolledDevice, MutualTlsDeployment, wait_for_devices
from tests.support.waiting import wait_for

LIFETIME: Final = 90  # seconds
MAX_CONCURRENT: Final = 200  # requests


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _summary(what: str, values: Sequence[float]) -> str:
    middle, high, worst = (_percentile(values, share) for share in (0.5, 0.95, 1.0))
    return f"{what}: p50 {middle:.2f} s, p95 {high:.2f} s, worst {worst:.2f} s"


def _enrol(deployment: MutualTlsDeployment, count: int) -> tuple[list[EnrolledDevice], list[float], float]:
    """Enrols concurrently; returns the devices, the seconds of each, and the seconds of all."""
    token = deployment.token(uses=count)
    gate = threading.Barrier(min(count, MAX_CONCURRENT))

    def one(number: int) -> tuple[EnrolledDevice, float]:
        gate.wait()
        began = time.monotonic()
        device = deployment.device(f"bench-{number:04d}", token)
        return device, time.monotonic() - began

    began = time.monotonic()
    with ThreadPoolExecutor(gate.parties) as pool:
        done = list(pool.map(one, range(count)))
    return [device for device, _ in done], [seconds for _, seconds in done], time.monotonic() - began


def _renew(devices: list[EnrolledDevice], seconds: float) -> tuple[list[float], list[float]]:
    """Waits until all have renewed; returns seconds from the first renewal to each, and of each without connection."""
    wait_for_devices(
        devices, lambda: all(one.current.exists() and one.is_up for one in devices), "all have renewed", seconds
    )
    moments = [one.events[-1][0] for one in devices]
    gaps = [one.events[-1][0] - one.events[-2][0] for one in devices]
    return [moment - min(moments) for moment in moments], gaps


def run(count: int, lifetime: int, folder: Path) -> bool:
    """One run; returns whether every device renewed with one reconnect and no other."""
    say = sys.stdout.write
    with MutualTlsDeployment(folder, device_lifetime=f"{lifetime}s") as deployment:
        devices, waits, took = _enrol(deployment, count)
        say(f"{count} devices enrolled at once in {took:.2f} s ({count / took:.0f} a second)\n")
        say(_summary("  each", waits) + "\n")
        for device in devices:
            device.start()
        try:
            wait_for(lambda: all(one.is_up for one in devices), "all are connected", 120.0)
            moments, gaps = _renew(devices, lifetime * 1.5)
            say(f"all {count} renewed within {max(moments):.2f} s of the first\n")
            say(_summary("  without a connection", gaps) + "\n")
            odd = [one.name for one in devices if [what for _, what in one.events] != ["up", "down", "up"]]
            serials = {load_leaf_certificate(read_file(one.current)).serial for one in devices}
            say(f"unexpected reconnects: {len(odd)}; new certificates: {len(serials)}\n")
            return not odd and len(serials) == count
        finally:
            for device in devices:
                device.stop()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.enrol", description=__doc__)
    parser.add_argument("--devices", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--lifetime", type=int, default=LIFETIME, help="of certificates, seconds; default: %(default)s")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="cordon-enrol-") as folder:
        return 0 if run(arguments.devices, arguments.lifetime, Path(folder)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
