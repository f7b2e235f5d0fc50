"""What a controller writes about itself, at its most talkative, holds none of the secrets that went through it."""

import base64
import secrets
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from device_agent.identity.enrol import EnrolmentError
from tests.support.mtls_deployment import Estate, wait_for


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    with Estate(tmp_path, more='[log]\nlevel = "debug"\nformat = "json"\n') as made:
        yield made


def ask(estate: Estate, token: str, path: str = "/api/v1/devices") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(
        verify=ssl.create_default_context(cafile=str(estate.files.ca)), trust_env=False, timeout=30
    ) as client:
        return client.get(estate.url + path, headers=headers).status_code


def test_no_secret_is_in_the_controllers_log(estate: Estate) -> None:
    home = estate.config.parent
    operator = (home / "operator.token").read_text().strip()
    guessed = f"cordon_{secrets.token_urlsafe(32)}"
    enrolment = estate.token()
    device = estate.device("canary", enrolment)
    device.start()
    try:
        wait_for(lambda: device.is_up, "connected", devices=[device])
        device.report()
        wait_for(lambda: estate.client.get("/devices")["items"], "its report was taken", devices=[device])
        assert ask(estate, guessed) == 401
        assert ask(estate, operator, f"/api/v1/devices?tag={guessed}") in (200, 422)
        with pytest.raises(EnrolmentError):  # used up: refused, and told of
            estate.device("canary-2", enrolment)
        created = str(estate.client.call("POST", "/tokens", {"name": "ada", "scopes": ["read"]})["token"])
        assert ask(estate, created) == 200
        estate.client.call("PUT", "/quarantine/canary", {"level": "isolated", "reason": "to have the broker called"})
        wait_for(lambda: not device.is_up, "the broker was told with its key")
        # And once more where every call fails: what is told about trouble holds no credentials either.
        estate.emqx.__exit__(None, None, None)
        wait_for(lambda: "failed" in estate.log or "cannot" in estate.log, "trouble was told")
    finally:
        device.stop()
    log = estate.log
    assert log.count("\n") > 10
    keys = {
        "EMQX's API secret": estate.emqx.secret,
        "EMQX's credentials as HTTP has them": base64.b64encode(
            f"{estate.emqx.key}:{estate.emqx.secret}".encode()
        ).decode(),
        "the operator's token": operator,
        "a guessed token": guessed,
        "an enrolment token": enrolment,
        "a new token": created,
        "the command key": "".join((home / "command-signing.key").read_text().split("-----")[2].split()),
    }
    assert [name for name, secret in keys.items() if secret in log] == []
    assert "PRIVATE KEY" not in log
