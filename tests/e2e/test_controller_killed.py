"""A controller that dies in the middle of a containment finishes it when it is back."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from controller.demo.observations import ObservationLog
from controller.ports.broker import restriction
from tests.e2e.closing_proxy import Gate
from tests.support.certs import Certs
from tests.support.deployment import House, open_house, seen
from tests.support.standin import StandInProcess

WAIT = 25.0  # seconds
VICTIM = "dev-002"


async def _proven(house: House, level: str) -> None:
    row: dict[str, Any] = {}
    async with asyncio.timeout(WAIT):
        while not (row.get("level") == level and row["case"]["proven"]):
            await asyncio.sleep(0.1)
            row = (await house.operator.devices(VICTIM)).get(VICTIM, {})


@pytest.mark.parametrize(
    ("last", "is_cut"),
    [(b"POST /api/v5/banned", True), (b"GET /api/v5/clients/dev-002", False)],
    ids=["ban", "nothing"],
)
async def test_isolation_is_completed_after_kill_9(
    tmp_path: Path, emqx: StandInProcess, certs: Certs, last: bytes, is_cut: bool
) -> None:
    """Killed right after the ban went out, or before anything did: in the end the device is isolated, proven so."""
    chronicle = ObservationLog()
    async with contextlib.AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(Gate(url)) for url in emqx.api_urls]
        house = await stack.enter_async_context(
            open_house(tmp_path, emqx=emqx, certs=certs, api=[gate.url for gate in gates])
        )
        fleet = await house.start_fleet(3, chronicle)
        begun = time.monotonic()
        for gate in gates:
            gate.shut_after(last)
        await fleet.change(VICTIM, {"open_port": 2375})
        await seen(chronicle, VICTIM, "receipt", since=begun, verdict="accepted")
        async with asyncio.timeout(WAIT):
            while not any(gate.is_shut for gate in gates):
                await asyncio.sleep(0.01)
        if is_cut:
            await seen(chronicle, VICTIM, "disconnected", since=begun, code=152)
        await house.kill_controller()

        assert await house.broker.api.rules(VICTIM) == ()
        for gate in gates:
            gate.open()
        await house.start_controller()
        await _proven(house, "isolated")

        assert await house.broker.api.rules(VICTIM) == restriction(VICTIM)
        ban = await house.broker.api.ban_of(VICTIM)
        assert ban is not None
        assert ban.is_ours
        await seen(chronicle, VICTIM, "refused", since=begun, code=138)
        others = {device: row["level"] for device, row in (await house.operator.devices("dev-")).items()}
        assert others == {"dev-001": "none", VICTIM: "isolated", "dev-003": "none"}


async def test_restriction_is_completed_after_kill_9(tmp_path: Path, emqx: StandInProcess, certs: Certs) -> None:
    """Killed between the rules and the clearing of the cache that would let the device go on."""
    chronicle = ObservationLog()
    async with contextlib.AsyncExitStack() as stack:
        gates = [await stack.enter_async_context(Gate(url)) for url in emqx.api_urls]
        house = await stack.enter_async_context(
            open_house(tmp_path, emqx=emqx, certs=certs, api=[gate.url for gate in gates])
        )
        fleet = await house.start_fleet(3, chronicle)
        for gate in gates:
            gate.shut_after(b"PUT /api/v5/authorization/sources/built_in_database/rules/clients/dev-002")
        # No command repairs a rule that this pack does not know, so the restriction stays for us to look at.
        await fleet.change(VICTIM, {"open_port": 23, "process": "not-telnetd"})
        async with asyncio.timeout(WAIT):
            while await house.broker.api.rules(VICTIM) != restriction(VICTIM):
                await asyncio.sleep(0.01)
        await house.kill_controller()
        for gate in gates:
            gate.open()
        await house.start_controller()
        await _proven(house, "restricted")
        timeline = (await house.operator.device(VICTIM))["timeline"]
        assert [line["kind"] for line in timeline].count("contained") == 1
