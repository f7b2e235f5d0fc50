"""The broker is away for long and comes back to a whole fleet: nobody stampedes, everybody is accepted in the end."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from controller.service.ingest.ingest import Ingest
from device_agent.simulator.device import DeviceBehaviour
from device_agent.simulator.fleet import FleetSettings, SimulatedFleet
from device_agent.simulator.observations import Observation, ObservationKind
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress
from tests.support.controller_harness import open_harness
from tests.support.fleet_devices import devices_of
from tests.support.memory import resident_bytes
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_harness import plain, running
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

DEVICES: Final = 250
WAIT_SECONDS: Final = 60.0
BACKOFF: Final = Backoff(first=0.2, cap=4.0)  # seconds; a real device waits up to a minute
AWAY_SECONDS: Final = 6.0
# Between the first tenth of the fleet to come back and the last tenth; without jitter it is a few hundredths. A busy
# machine connects late whose time has come, which narrows it.
MIN_SPREAD_SECONDS: Final = 0.4
MAX_GROWTH: Final = 30 * 1024 * 1024  # bytes, fleet and controller together
MIN_WAITS: Final = 3  # of the controller, while the broker is away


async def test_a_fleet_comes_back_to_a_broker_that_was_away(tmp_path: Path) -> None:
    seen: list[Observation] = []

    def of(kind: ObservationKind, since: float = 0.0) -> list[Observation]:
        return [one for one in list(seen) if one.kind is kind and one.monotonic >= since]

    def accepted(since: float = 0.0) -> int:
        return len({one.device_id for one in of(ObservationKind.RECEIPT, since) if one.data["verdict"] == "accepted"})

    behaviour = DeviceBehaviour(heartbeat_every=30.0, receipt_timeout=5.0)
    conf = "max_inflight_messages 0\nmax_queued_messages 0"
    with Mosquitto(extra_conf=conf) as broker:
        settings = FleetSettings(
            DEVICES, (BrokerAddress.parse(f"mqtt://127.0.0.1:{broker.port}"),), behaviour=behaviour, backoff=BACKOFF
        )
        options = plain(broker.port, protocol="5", backoff_floor_seconds=0.3, backoff_ceiling_seconds=3.0)
        async with open_harness(tmp_path / "c.db") as harness, running(options) as link, asyncio.TaskGroup() as group:
            await link.connected()
            ingest = Ingest(link.link, harness.fleet, lambda event, fields: None)
            reading = group.create_task(ingest.run())
            with SimulatedFleet(settings, seen.append) as fleet:
                await eventually(lambda: accepted() == DEVICES, "the whole fleet accepted", WAIT_SECONDS)
                before = resident_bytes()
                broker.stop(kill=True)
                await link.down()
                await asyncio.sleep(AWAY_SECONDS)
                back = fleet.clock.monotonic()
                await asyncio.to_thread(broker.start)
                await eventually(lambda: fleet.connected == DEVICES, "the whole fleet connected", WAIT_SECONDS)
                await link.connected()
                for name in fleet.device_ids:
                    fleet.rescan(name)
                await eventually(
                    lambda: accepted(back) == DEVICES, f"the whole fleet accepted again: {ingest.counts}", WAIT_SECONDS
                )
                growth = resident_bytes() - before
            reading.cancel()
    came = sorted({one.device_id: one.monotonic for one in reversed(of(ObservationKind.CONNECTED, back))}.values())
    assert len(came) == DEVICES
    assert came[DEVICES * 9 // 10] - came[DEVICES // 10] > MIN_SPREAD_SECONDS
    waits = [float(str(fields["seconds"])) for event, fields in link.events if event == "mqtt_waiting"]
    assert len(waits) >= MIN_WAITS
    assert max(waits) <= 3.0
    assert len(of(ObservationKind.UNREACHABLE)) < DEVICES * 40  # bounded attempts while it was away
    assert growth < MAX_GROWTH
    assert not any(device.stale for device in devices_of(harness.fleet).values())
