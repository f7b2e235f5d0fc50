"""Rules and bans that are deleted at the broker come back; rows of other programs are never touched."""

import time
from pathlib import Path

from controller.domain.audit_kinds import AuditKind
from controller.ports.broker_tables import restriction
from tests.support.certs import Certs
from tests.support.deployment import WAIT_SECONDS, open_deployment
from tests.support.emqx_calls import add_ban, ban_of, delete_rules, lift_ban, rules_of
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

CONTAINED = "dev-001"
FREE = "dev-002"


async def test_deleted_rules_and_bans_come_back_and_foreign_bans_stay(
    tmp_path: Path, emqx: StandInProcess, certs: Certs
) -> None:
    async with open_deployment(tmp_path, emqx, certs) as deployment:
        api, operator = deployment.broker.api, deployment.operator
        until = time.time() + 3600
        fleet = await deployment.start_fleet(3)
        names = ("far", FREE)  # one that Cordon does not know, one that it does
        foreign = [await add_ban(api, who, "someone", until) for who in names]
        begun = time.monotonic()
        await fleet.change(CONTAINED, {"open_port": 2375})
        await fleet.observations.wait_for(CONTAINED, "disconnected", seconds=WAIT_SECONDS, since=begun, code=152)

        async def is_proven() -> bool:
            row = (await operator.devices(CONTAINED))[CONTAINED]
            return bool(row["case"] and row["case"]["proven"])

        await eventually(is_proven, "the isolation is proven")
        assert await delete_rules(api, CONTAINED)
        assert await lift_ban(api, CONTAINED)

        async def is_back() -> bool:
            ban = await ban_of(api, CONTAINED)
            return ban is not None and ban.is_ours and await rules_of(api, CONTAINED) == restriction(CONTAINED)

        await eventually(is_back, "rules and ban are back")

        async def is_recorded() -> bool:
            lines = (await operator.device(CONTAINED))["timeline"]
            return any(line["kind"] == AuditKind.BROKER_DRIFT_FOUND and line["alert"] for line in lines)

        await eventually(is_recorded, "the drift is in the audit log")
        assert [await ban_of(api, who) for who in names] == foreign
