"""What somebody deletes at the broker by hand comes back; what is not Cordon's is never touched."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.demo.observations import ObservationLog
from controller.ports.broker import restriction
from tests.support.certs import Certs
from tests.support.deployment import open_house, seen
from tests.support.standin import StandInProcess

WITHIN = 15.0  # seconds; the reconciler compares every second here
CONTAINED = "dev-001"
BYSTANDING = "dev-002"


async def _until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN):
        while not await look():
            await asyncio.sleep(0.1)


async def test_rules_and_ban_come_back_and_foreign_rows_stay(
    tmp_path: Path, emqx: StandInProcess, certs: Certs
) -> None:
    """Rules and ban of a contained device deleted by hand are there again within seconds."""
    chronicle = ObservationLog()
    async with open_house(tmp_path, emqx=emqx, certs=certs) as house:
        api = house.broker.api
        until = time.time() + 3600
        fleet = await house.start_fleet(3, chronicle)
        names = ("far", BYSTANDING)  # one that Cordon does not know, one that it does
        foreign = [(await api.add_ban(who, by="someone", reason="theirs", until=until))[0] for who in names]
        begun = time.monotonic()
        await fleet.change(CONTAINED, {"open_port": 2375})
        await seen(chronicle, CONTAINED, "disconnected", since=begun, code=152)

        async def is_proven() -> bool:
            row = (await house.operator.devices(CONTAINED))[CONTAINED]
            return bool(row["case"] and row["case"]["proven"])

        await _until(is_proven)
        assert await api.delete_rules(CONTAINED)
        assert await api.lift_ban(CONTAINED)

        async def is_back() -> bool:
            ban = await api.ban_of(CONTAINED)
            return ban is not None and ban.is_ours and await api.rules(CONTAINED) == restriction(CONTAINED)

        await _until(is_back)

        async def is_recorded() -> bool:
            lines = (await house.operator.device(CONTAINED))["timeline"]
            return any(line["kind"] == "drift found" and line["alert"] for line in lines)

        await _until(is_recorded)
        assert [await api.ban_of(who) for who in names] == foreign
