"""An agent that signs its reports and renews its certificate: whoever follows the registry believes it all along."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from device_agent.host.certificate import read_file
from device_agent.identity.keypair import load_leaf_certificate
from tests.support.agent_process import AgentProcess
from tests.support.mtls_deployment import Estate, wait_for

NAME = "signer"
PASSPHRASE = "opened by the connection and by the signature"


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    with Estate(tmp_path_factory.mktemp("estate"), device_lifetime="12s") as made:
        yield made


def serial(path: Path) -> str:
    return load_leaf_certificate(read_file(path)).serial if path.exists() else ""


def kinds(estate: Estate) -> list[str]:
    return [str(line["kind"]) for line in estate.client.get(f"/audit?device_id={NAME}&limit=200")["items"]]


@pytest.mark.slow
def test_signed_reports_follow_every_renewal(estate: Estate) -> None:
    device = estate.device(NAME, estate.token(), passphrase=PASSPHRASE)
    config = device.folder / "agent.toml"
    report = '[report]\nsign_reports = true\nscan_every = "1h"\nheartbeat_every = "300ms"\nreceipt_timeout = "1s"\n'
    config.write_text(config.read_text() + report)
    with AgentProcess(config) as agent:
        wait_for(lambda: estate.client.get("/devices")["items"], "its first signed report was taken")
        wait_for(lambda: serial(device.current), "its first renewal")
        first = serial(device.current)
        # The second pair lies where the first one did, so nothing else makes the agent look at it.
        wait_for(lambda: serial(device.current) != first, "its second renewal")
        began = estate.client.get(f"/devices/{NAME}")["last_seen"]
        wait_for(
            lambda: estate.client.get(f"/devices/{NAME}")["last_seen"] > began, "reports after it are taken as well"
        )
        assert "former key" not in agent.log
    seen = kinds(estate)
    assert AuditKind.REPORT_SIGNING_STARTED in seen, json.dumps(seen)
    assert AuditKind.REPORT_REJECTED not in seen
