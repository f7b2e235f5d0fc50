"""The agent itself on this machine: its own report, judged by the starter pack."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from controller.adapters.policies.loader import load_policies
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.facts import TYPES
from controller.packs import pack_path
from schemas.posture import ReportSections
from tests.support.certs import Certs
from tests.support.deployment import House, open_house
from tests.support.standin import StandInProcess

DEVICE = "this-machine"
WAIT = 60.0  # seconds; looking at the packages of a real machine takes a while


def _agent_toml(folder: Path, house: House, certs: Certs) -> Path:
    certificate, key = certs.client(DEVICE)
    config = folder / "agent.toml"
    config.write_text(
        f"""device_id = "{DEVICE}"
[mqtt]
servers = {json.dumps(house.access.servers)}
ca = "{certs.ca}"
certificate = "{certificate}"
key = "{key}"
[report]
heartbeat_every = "1s"
[commands]
controller_keys = ["{house.prepared.public_key}"]
allow = ["rescan"]
[agent]
state_dir = "{folder / "agent-state"}"
"""
    )
    return config


async def _row(house: House) -> dict[str, Any]:
    async with asyncio.timeout(WAIT):
        while True:
            row = (await house.operator.devices(DEVICE)).get(DEVICE)
            if row is not None and row["satisfied"]:
                return row
            await asyncio.sleep(0.2)


async def test_own_report_is_accepted_and_judged(tmp_path: Path, emqx: StandInProcess, certs: Certs) -> None:
    """`cordon-agent run` reports this machine; every rule of the starter pack has a result, and none is made up."""
    async with open_house(tmp_path, pack="starter", emqx=emqx, certs=certs) as house:
        config = _agent_toml(tmp_path, house, certs)
        with (tmp_path / "agent.log").open("wb") as log:
            agent = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "device_agent.main", "run", "--config", str(config), stdout=log, stderr=log
            )
        try:
            row = await _row(house)
            assert row["online"] is True
            detail = await house.operator.device(DEVICE)
        finally:
            agent.terminate()
            assert await agent.wait() == 0, (tmp_path / "agent.log").read_text()
        policies = load_policies((pack_path("starter"),), CelEnvironment(TYPES))
        assert row["satisfied"] + sum(row["not_satisfied"].values()) == sum(
            rule.event is None for rule in policies.rules.values()
        )
        assert detail["report"]["judged_by"] == policies.version
        assert {finding["rule"] for finding in detail["findings"]} <= set(policies.rules)
        assert all(finding["detail"] for finding in detail["findings"] if finding["result"] == "unknown")
        raw = await house.operator.report(DEVICE)
        sections = ReportSections.model_validate(raw)
        assert sections.openssl is not None
        assert sections.openssl.state == "ok"
        await _offline(house)


async def _offline(house: House) -> None:
    async with asyncio.timeout(WAIT):
        while (await house.operator.devices(DEVICE))[DEVICE]["online"] is not False:
            await asyncio.sleep(0.1)
