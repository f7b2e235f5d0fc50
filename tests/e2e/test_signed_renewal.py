"""An agent that signs its reports and renews its certificate: every report is accepted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from device_agent.host.certificate import read_file
from device_agent.identity.keypair import load_leaf_certificate
from tests.support.agent_process import AgentProcess
from tests.support.mtls_deployment import MutualTlsDeployment
from tests.support.waiting import wait_for

NAME = "signer"
PASSPHRASE = "used by the connection and by the signature"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MutualTlsDeployment]:
    with MutualTlsDeployment(tmp_path_factory.mktemp("deployment"), device_lifetime="16s") as made:
        yield made


def serial(path: Path) -> str:
    return load_leaf_certificate(read_file(path)).serial if path.exists() else ""


def kinds(deployment: MutualTlsDeployment) -> list[str]:
    return [str(line["kind"]) for line in deployment.client.get(f"/audit?device_id={NAME}&limit=200")["items"]]


@pytest.mark.slow
def test_signed_reports_follow_every_renewal(deployment: MutualTlsDeployment) -> None:
    device = deployment.device(NAME, deployment.token(), passphrase=PASSPHRASE)
    config = device.folder / "agent.toml"
    report = '[report]\nsign_reports = true\nscan_every = "1h"\nheartbeat_every = "300ms"\nreceipt_timeout = "1s"\n'
    config.write_text(config.read_text() + report)
    with AgentProcess(config) as agent:
        wait_for(lambda: deployment.client.get("/devices")["items"], "its first signed report")
        wait_for(lambda: serial(device.current), "its first renewal")
        first = serial(device.current)
        # The second pair replaces the first one in the same file.
        wait_for(lambda: serial(device.current) != first, "its second renewal")
        began = deployment.client.get(f"/devices/{NAME}")["last_seen"]
        wait_for(
            lambda: deployment.client.get(f"/devices/{NAME}")["last_seen"] > began, "reports after it are taken as well"
        )
        assert "former key" not in agent.log
    seen = kinds(deployment)
    assert AuditKind.REPORT_SIGNING_STARTED in seen, json.dumps(seen)
    assert AuditKind.REPORT_REJECTED not in seen
