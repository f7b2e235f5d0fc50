"""What a comparison with the broker costs for each device, at several sizes: `python -m tests.bench.reconcile`.

Every device has a row of rules at the stand-in; one in ten (`--one-in`) is isolated, so has a ban as well; as many bans
are somebody else's. Then one row is deleted, and the seconds and requests until it is found and mended are told.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.containment.broker import open_emqx
from controller.adapters.emqx.tables import EmqxTables
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import Subject
from controller.domain.device import ContainmentCase, Device
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRule, AccessRules, restriction
from controller.service.containment import comparison
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.emqx_calls import lift_ban
from tests.support.fleet_devices import add_devices
from tests.support.standin import StandInProcess

_CHUNK = 1000
_OWN: AccessRules = (AccessRule("fleet/${clientid}/#", "allow", "publish"), AccessRule("#", "deny", "all"))


@dataclass(frozen=True)
class _Written:
    """Every device outside of containment has the rules of a template."""

    rules: Mapping[str, AccessRules]

    def managed(self) -> Mapping[str, AccessRules]:
        return self.rules


def _device(number: int, now: float, one_in: int) -> Device:
    name = f"edge-{number}"
    case = None
    if number % one_in == 0:
        case = ContainmentCase(
            f"case-{number}",
            ContainmentLevel.ISOLATED,
            (),
            "bench",
            "bench",
            now,
            now,
            proven_level=ContainmentLevel.ISOLATED,
        )
    return Device(name, first_seen=now, last_seen=now, case=case)


async def _fill(emqx: StandInProcess, broker: Any, devices: list[Device]) -> None:
    api = broker.api
    for first in range(0, len(devices), _CHUNK):
        rows = []
        for one in devices[first : first + _CHUNK]:
            rules = _OWN if one.case is None else restriction(one.device_id)
            plain = [{"topic": r.topic, "permission": r.permission, "action": r.action} for r in rules]
            rows.append({"clientid": one.device_id, "rules": plain})
        path = "/authorization/sources/built_in_database/rules/clients"
        await api.send(requests.json_request("POST", path, "fill", body=rows))
    contained = [one.device_id for one in devices if one.case is not None]
    for first in range(0, len(contained), 64):
        some = contained[first : first + 64]
        bans = [api.add_ban(who, by=f"cordon/case-{who}", reason="bench", until=None) for who in some]
        await asyncio.gather(*bans, *(api.add_ban(f"x-{w}", by="somebody", reason="", until=None) for w in some))


async def _measure(size: int, one_in: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, StandInProcess(nodes=1) as emqx:
        async with (
            open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock()) as broker,
            open_harness(Path(folder) / "c.db") as harness,
        ):
            devices = [_device(number, harness.clock.at, one_in) for number in range(size)]
            await add_devices(harness.fleet, *devices)
            await _fill(emqx, broker, devices)
            tables = EmqxTables(broker.api, broker.cluster, broker.prefixes)
            managed = {one.device_id: _OWN for one in devices}
            return await _passes(harness, broker, tables, managed, size, one_in)


async def _passes(
    harness: ControllerHarness, broker: Any, tables: EmqxTables, managed: dict[str, AccessRules], size: int, one_in: int
) -> dict[str, Any]:
    node = tables.addresses[0]
    rounds = []
    for _ in range(3):
        tables.requests, cpu, wall = 0, time.process_time(), time.perf_counter()
        found = await comparison.compare(node, tables, harness.fleet, managed, lambda _one: False)
        assert found.suspects == (), found.suspects[:3]
        rounds.append((time.process_time() - cpu, time.perf_counter() - wall))
    requests = tables.requests
    cpu, wall = min(rounds)
    drifted = "edge-10"
    await lift_ban(broker.api, drifted)
    begun = time.perf_counter()
    (suspect,) = (await comparison.compare(node, tables, harness.fleet, managed, lambda _one: False)).suspects
    assert (suspect.device.device_id, suspect.what) == (drifted, "the ban is missing")
    seen = time.perf_counter() - begun
    proof = await broker.isolate(Subject.client(drifted), _nothing, case="case-10", reason="bench", until=None)
    assert proof.holds, proof.missing
    return {
        "devices": size,
        "bans": size // one_in * 2,
        "requests": requests,
        "cpu_us_per_device": round(cpu / size * 1e6, 2),
        "cpu_s": round(cpu, 4),
        "seconds": round(wall, 4),
        "one_row_found_s": round(seen, 4),
        "one_row_mended_s": round(time.perf_counter() - begun, 4),
        "requests_to_mend": len(proof.steps),
    }


async def _nothing(_rules: AccessRules) -> None:
    pass


def main() -> None:
    """Print one line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--one-in", type=int, default=10, help="of so many devices one is isolated (default 10)")
    args = parser.parse_args()
    for size in args.devices:
        print(json.dumps(asyncio.run(_measure(size, args.one_in))), flush=True)


if __name__ == "__main__":
    main()
