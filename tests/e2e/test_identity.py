"""Enrolment, renewal and revocation between real processes: controller, broker, and the agent's own parts."""

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
from device_agent.identity.keypair import load_leaf_certificate
from tests.support.mtls_deployment import Estate, EstateDevice, wait_for

DEVICES = 12


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    with Estate(tmp_path_factory.mktemp("estate"), device_lifetime="24s") as made:
        yield made


def fleet(estate: Estate, prefix: str, count: int) -> list[EstateDevice]:
    token = estate.token(uses=count)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: estate.device(f"{prefix}-{number}", token), range(count)))


@pytest.mark.slow
def test_many_enrol_at_once_renew_by_themselves_and_stay(estate: Estate) -> None:
    devices = fleet(estate, "many", DEVICES)
    assert len({load_leaf_certificate(one.answer.certificate.encode()).serial for one in devices}) == DEVICES
    for device in devices:
        device.start()
    try:
        wait_for(lambda: all(one.is_up for one in devices), "all are connected", devices=devices)
        wait_for(lambda: all(one.current.exists() and one.is_up for one in devices), "all have renewed", 60, devices)
        for device in devices:
            old, new = (
                load_leaf_certificate(device.answer.certificate.encode()),
                load_leaf_certificate(read_file(device.current)),
            )
            assert (new.name, new.serial != old.serial, new.public_key_der != old.public_key_der) == (
                device.name,
                True,
                True,
            )
            # One connection was given up for the new pair, and none was lost.
            assert [what for _, what in device.events] == ["up", "down", "up"]
    finally:
        for device in devices:
            device.stop()


def test_a_revoked_device_is_out_with_its_live_session_and_at_its_reconnect(estate: Estate) -> None:
    device = estate.device("thief", estate.token())
    device.start()
    try:
        wait_for(lambda: device.is_up, "connected", devices=[device])
        device.report()
        argv = [
            sys.executable,
            "-m",
            "controller.main",
            "revoke",
            device.name,
            "--reason",
            "stolen",
            "--url",
            estate.url,
        ]
        argv += ["--token-file", str(estate.config.parent / "operator.token"), "--ca", str(estate.files.ca)]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "its session is gone" in done.stdout
        wait_for(lambda: not device.is_up, "its live session was ended")
        wait_for(lambda: device.refusals >= 2, "its reconnects are refused")
        assert not device.is_up
        with pytest.raises(EnrolmentError, match="belongs to a device already"):
            estate.device("thief", estate.token(), folder="thief-2")
        device.stop()
        again = estate.device("thief", estate.token(device_id="thief", replace=True), folder="thief-3")
        wait_for(lambda: _level(estate, "thief") == "restricted", "it may prove itself")
        again.start()
        wait_for(lambda: again.is_up, "it is in with its new certificate")
        again.report()
        wait_for(lambda: _level(estate, "thief") == "none", "it is free")
        again.stop()
    finally:
        device.stop()


def _level(estate: Estate, name: str) -> str:
    return str(estate.client.get(f"/devices/{name}")["level"])


def test_the_command_enrols_and_pins_the_authority(estate: Estate, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(estate.token())
    argv = [sys.executable, "-m", "device_agent.main", "enrol", "--url", estate.url, "--token-file", str(token_file)]
    argv += ["--device-id", "by-hand", "--dir", str(tmp_path / "etc")]
    wrong = subprocess.run([*argv, "--ca-fingerprint", "0" * 64], check=False, capture_output=True, text=True)
    assert (wrong.returncode, "another fingerprint" in wrong.stderr) == (1, True)
    assert not (tmp_path / "etc" / "device.key").exists()
    fingerprint = estate.files.authority.info.fingerprint
    done = subprocess.run([*argv, "--ca-fingerprint", fingerprint], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "etc").iterdir()}
    assert modes == {"device.key": 0o600, "device.pem": 0o644, "ca.pem": 0o644, "agent.toml": 0o600}
    again = subprocess.run([*argv, "--ca-fingerprint", fingerprint], check=False, capture_output=True, text=True)
    assert again.returncode == 0
    assert "was not changed" in again.stdout


def test_lists_are_handed_out_over_plain_http_and_nothing_else_is(estate: Estate) -> None:
    base = f"http://127.0.0.1:{estate.list_port}"
    authority = estate.files.authority
    found = x509.load_pem_x509_crl(httpx.get(f"{base}/crl/{authority.issuer}.pem", trust_env=False).content)
    issuing = x509.load_pem_x509_certificate(authority.chain.encode())
    assert found.is_signature_valid(issuing.public_key())  # type: ignore[arg-type]  # an EC key
    root = authority.root_revocations()
    assert root is not None
    assert httpx.get(f"{base}/crl/{root.name}.crl", trust_env=False).content == root.der
    for path in ("/api/v1/devices", "/api/openapi.json", "/healthz", "/api/v1/enrolment/root"):
        assert httpx.get(base + path, trust_env=False).status_code == 404
