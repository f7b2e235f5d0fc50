"""A real agent: its report of this machine is accepted and judged by the starter pack."""

import json
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.policies.loader import load_policies
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.facts import TYPES
from controller.packs import pack_path
from schemas.posture import ReportSections
from tests.support.certs import Certs
from tests.support.deployment import Deployment, open_deployment
from tests.support.processes import ModuleProcess
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

DEVICE = "this-machine"
SCAN_SECONDS = 90.0  # for the packages of a real machine


def _agent_toml(deployment: Deployment) -> Path:
    certificate, key = deployment.certs.client(DEVICE)
    config = deployment.folder / "agent.toml"
    servers = [f"mqtts://{host}:{port}" for host, port in deployment.emqx.tls]
    config.write_text(
        f"""device_id = "{DEVICE}"
[mqtt]
servers = {json.dumps(servers)}
ca = "{deployment.certs.ca}"
certificate = "{certificate}"
key = "{key}"
[report]
heartbeat_every = "1s"
[commands]
controller_keys = ["{deployment.public_key}"]
allow = ["rescan"]
[agent]
state_dir = "{deployment.folder / "agent-state"}"
"""
    )
    return config


async def test_own_report_is_accepted_and_judged(tmp_path: Path, emqx: StandInProcess, certs: Certs) -> None:
    """`cordon-agent run` reports this machine, and every rule of the starter pack has a result."""
    async with open_deployment(tmp_path, emqx, certs, pack="starter") as deployment:
        operator = deployment.operator

        async def judged() -> dict[str, Any]:
            row = (await operator.devices(DEVICE)).get(DEVICE, {})
            return row if row.get("satisfied") else {}

        async def is_offline() -> bool:
            return (await operator.devices(DEVICE))[DEVICE]["online"] is False

        agent = await ModuleProcess.start(
            "agent", "device_agent.main", ["run", "--config", str(_agent_toml(deployment))], tmp_path
        )
        try:
            row = await eventually(judged, "the device has been judged", SCAN_SECONDS)
            assert row["online"] is True
            detail = await operator.device(DEVICE)
        finally:
            await agent.stop()
        assert agent.exit_code == 0, agent.log_tail()
        policies = load_policies((pack_path("starter"),), CelEnvironment(TYPES))
        assert row["satisfied"] + sum(row["not_satisfied"].values()) == sum(
            rule.event is None for rule in policies.rules.values()
        )
        assert detail["report"]["judged_by"].partition("+")[0] == policies.version  # and the knowledge in force
        assert {finding["rule"] for finding in detail["findings"]} <= set(policies.rules)
        assert all(finding["detail"] for finding in detail["findings"] if finding["result"] == "unknown")
        sections = ReportSections.model_validate(await operator.call("GET", f"/devices/{DEVICE}/report"))
        assert sections.openssl is not None
        assert sections.openssl.state == "ok"
        await eventually(is_offline, "the device is offline")
