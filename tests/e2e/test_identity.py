"""Enrolment, renewal and revocation with a real controller and broker, and the agent's parts."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from device_agent.host.certificate import read_file
from device_agent.identity.enrol import EnrolmentError
from device_agent.identity.keypair import certificate_info, load_leaf_certificate
from tests.support.mtls_deployment import EnrolledDevice, MutualTlsDeployment, wait_for_devices
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

DEVICES = 12


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MutualTlsDeployment]:
    with MutualTlsDeployment(tmp_path_factory.mktemp("deployment"), device_lifetime="24s") as made:
        yield made


def fleet(deployment: MutualTlsDeployment, prefix: str, count: int) -> list[EnrolledDevice]:
    token = deployment.token(uses=count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: deployment.device(f"{prefix}-{number}", token), range(count)))


def test_concurrent_enrolments_and_renewals(deployment: MutualTlsDeployment) -> None:
    devices = fleet(deployment, "many", DEVICES)
    assert len({one.answer.leaf.serial_number for one in devices}) == DEVICES
    for device in devices:
        device.start()
    try:
        wait_for_devices(devices, lambda: all(one.is_up for one in devices), "all are connected")
        wait_for_devices(
            devices, lambda: all(one.current.exists() and one.is_up for one in devices), "all have renewed", 60
        )
        for device in devices:
            old, new = (
                certificate_info(device.answer.leaf),
                load_leaf_certificate(read_file(device.current)),
            )
            assert (new.name, new.serial != old.serial, new.public_key_der != old.public_key_der) == (
                device.name,
                True,
                True,
            )
            # One reconnect for the new key pair, and no other.
            assert [what for _, what in device.events] == ["up", "down", "up"]
    finally:
        for device in devices:
            device.stop()


def test_a_revoked_device_is_disconnected_and_refused(deployment: MutualTlsDeployment) -> None:
    device = deployment.device("thief", deployment.token())
    device.start()
    try:
        wait_for_devices([device], lambda: device.is_up, "connected")
        device.report()
        argv = [sys.executable, "-m", "controller.main", "revoke", device.name, "--reason", "stolen"]
        argv += ["--url", deployment.url, "--ca", str(deployment.files.ca)]
        argv += ["--token-file", str(deployment.config.parent / "operator.token")]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "its session is gone" in done.stdout
        wait_for(lambda: not device.is_up, "its session has ended")
        wait_for(lambda: device.refusals >= 2, "its reconnects are refused")
        assert not device.is_up
        with pytest.raises(EnrolmentError, match="belongs to a device already"):
            deployment.device("thief", deployment.token(), folder="thief-2")
        device.stop()
        again = deployment.device("thief", deployment.token(device_id="thief", replace=True), folder="thief-3")
        wait_for(lambda: _level(deployment, "thief") == "restricted", "it may report")
        again.start()
        wait_for(lambda: again.is_up, "it is connected with its new certificate")
        again.report()
        wait_for(lambda: _level(deployment, "thief") == "none", "it is free")
        again.stop()
    finally:
        device.stop()


def _level(deployment: MutualTlsDeployment, name: str) -> str:
    return str(deployment.client.get(f"/devices/{name}")["level"])


def test_the_enrol_command_pins_the_authority(deployment: MutualTlsDeployment, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(deployment.token())
    argv = [
        sys.executable,
        "-m",
        "device_agent.main",
        "enrol",
        "--url",
        deployment.url,
        "--token-file",
        str(token_file),
    ]
    argv += ["--device-id", "by-hand", "--dir", str(tmp_path / "etc")]
    wrong = subprocess.run([*argv, "--ca-fingerprint", "0" * 64], check=False, capture_output=True, text=True)
    assert (wrong.returncode, "another fingerprint" in wrong.stderr) == (1, True)
    assert not (tmp_path / "etc" / "device.key").exists()
    fingerprint = deployment.files.authority.info.fingerprint
    done = subprocess.run([*argv, "--ca-fingerprint", fingerprint], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "etc").iterdir()}
    assert modes == {
        "device.key": 0o600,
        "device.pem": 0o644,
        "ca.pem": 0o644,
        "agent.toml": 0o600,
        "device.token.sha256": 0o600,
    }
    etc = tmp_path / "etc"
    before = {path.name: path.read_bytes() for path in etc.iterdir()}
    again = subprocess.run([*argv, "--ca-fingerprint", fingerprint], check=False, capture_output=True, text=True)
    assert again.returncode == 0
    assert "was not changed" in again.stdout
    assert {path.name: path.read_bytes() for path in etc.iterdir()} == before, "the same token gives the same pair"
    # In place with an operator's approval: a new key, because the old one may have been copied.
    token_file.write_text("cordon-enrol-" + "x" * 40)
    refused = subprocess.run([*argv, "--ca-fingerprint", fingerprint], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert {name: (etc / name).read_bytes() for name in before} == before, (
        "the pair in use stays until the answer is here"
    )
    token_file.write_text(deployment.token(device_id="by-hand", replace=True))
    replaced = subprocess.run([*argv, "--ca-fingerprint", fingerprint], check=False, capture_output=True, text=True)
    assert replaced.returncode == 0, replaced.stderr
    assert (etc / "device.key").read_bytes() != before["device.key"]
    assert (etc / "agent.toml").read_bytes() == before["agent.toml"]
    assert not (etc / "device.key.new").exists()
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(etc / "device.pem", etc / "device.key")


def test_only_revocation_lists_are_served_over_plain_http(deployment: MutualTlsDeployment) -> None:
    base = f"http://127.0.0.1:{deployment.list_port}"
    authority = deployment.files.authority
    found = x509.load_pem_x509_crl(httpx.get(f"{base}/crl/{authority.issuer}.pem", trust_env=False).content)
    issuing = x509.load_pem_x509_certificate(authority.chain.encode())
    assert found.is_signature_valid(issuing.public_key())  # type: ignore[arg-type]  # an EC key
    root = authority.root_revocations()
    assert root is not None
    assert httpx.get(f"{base}/crl/{root.name}.crl", trust_env=False).content == root.der
    for path in ("/api/v1/devices", "/api/openapi.json", "/healthz", "/api/v1/enrolment/root"):
        assert httpx.get(base + path, trust_env=False).status_code == 404
