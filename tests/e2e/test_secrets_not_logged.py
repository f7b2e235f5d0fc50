"""A controller's log at its finest level, its record, and no command line have any of the secrets that it handled."""

import base64
import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from device_agent.identity.enrol import EnrolmentError
from tests.support.mtls_deployment import MutualTlsDeployment, wait_for_devices
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MutualTlsDeployment]:
    """EMQX's key comes from a program, which also notes all command lines; the command key from the environment."""
    home = tmp_path / "cordon"
    manager = tmp_path / "manager"
    manager.write_text(
        f"cat /proc/[0-9]*/cmdline > {tmp_path / 'command-lines'} 2>/dev/null\ncat {home / 'emqx.key'}\n"
    )

    def rewrite(text: str) -> str:
        monkeypatch.setenv("SIGNS_COMMANDS", (home / "command-signing.key").read_text())
        text = text.replace('"emqx.key"', f'"command:sh {manager}"')
        return text.replace('"command-signing.key"', '"env:SIGNS_COMMANDS"')

    more = '[log]\nlevel = "debug"\nformat = "json"\n'
    with MutualTlsDeployment(tmp_path, more=more, rewrite=rewrite) as made:
        yield made


def ask(deployment: MutualTlsDeployment, token: str, path: str = "/api/v1/devices") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(
        verify=ssl.create_default_context(cafile=str(deployment.files.ca)), trust_env=False, timeout=30
    ) as client:
        return client.get(deployment.url + path, headers=headers).status_code


def test_no_secret_is_in_the_log(deployment: MutualTlsDeployment) -> None:
    home = deployment.config.parent
    operator = (home / "operator.token").read_text().strip()
    guessed = f"cordon_{secrets.token_urlsafe(32)}"
    enrolment = deployment.token()
    device = deployment.device("canary", enrolment)
    device.start()
    try:
        wait_for_devices([device], lambda: device.is_up, "connected")
        device.report()
        wait_for_devices([device], lambda: deployment.client.get("/devices")["items"], "its report was accepted")
        assert ask(deployment, guessed) == 401
        assert ask(deployment, operator, f"/api/v1/devices?tag={guessed}") in (200, 422)
        with pytest.raises(EnrolmentError):  # used up
            deployment.device("canary-2", enrolment)
        created = str(deployment.client.call("POST", "/tokens", {"name": "ada", "scopes": ["read"]})["token"])
        assert ask(deployment, created) == 200
        deployment.client.call("PUT", "/quarantine/canary", {"level": "isolated", "reason": "calls the broker"})
        wait_for(lambda: not device.is_up, "the device was disconnected")
        # Once more where every call fails: messages about errors have no credentials either.
        deployment.emqx.__exit__(None, None, None)
        wait_for(lambda: "failed" in deployment.log or "cannot" in deployment.log, "the failure was logged")
    finally:
        device.stop()
    log = deployment.log
    assert log.count("\n") > 10
    keys = {
        "EMQX's API secret": deployment.emqx.secret,
        "EMQX's credentials as HTTP has them": base64.b64encode(
            f"{deployment.emqx.key}:{deployment.emqx.secret}".encode()
        ).decode(),
        "the operator's token": operator,
        "a guessed token": guessed,
        "an enrolment token": enrolment,
        "a new token": created,
        "the command key": "".join((home / "command-signing.key").read_text().split("-----")[2].split()),
    }
    command_lines = (deployment.folder / "command-lines").read_bytes().decode(errors="replace")
    assert "serve" in command_lines
    record = (home / "cordon.db").read_bytes() + (home / "cordon.db-wal").read_bytes()
    for place in (log, command_lines, record.decode(errors="replace")):
        assert [name for name, secret in keys.items() if secret in place] == []
        assert "PRIVATE KEY" not in place
