"""Request bodies that cost the event loop, and so every containment, more than their sender may."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.api.middleware import MAX_BODY, MAX_KEYS, MAX_PUBLIC_BODY, MAX_PUBLIC_KEYS
from controller.domain.accounts.secret_text import digest_of
from controller.domain.scopes import Scope
from controller.ports.store import ApiToken
from tests.support.api import Api
from tests.support.api import api as open_api

PREVIEW, ENROL, CONTAIN = "/api/v1/policies/preview", "/api/v1/enrolment/enrol", "/api/v1/quarantine"
LARGE = json.dumps({"a": [{}] * 100_000}).encode()  # much work for its size
READER = "cordon_reader"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Api]:
    """An API with a token of the scope `read` besides that of the tests."""
    reader = ApiToken("reader", digest_of(READER), 0.0, (Scope.READ,))
    async with open_api(tmp_path / "c.db", tokens=(reader,)) as made:
        yield made


async def _send(api: Api, path: str, body: bytes, token: str | None = None, method: str = "POST") -> tuple[int, str]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}" if token else ""}
    response = await api.client.request(method, path, content=body, headers=headers)
    return response.status_code, response.json()["error"]["message"]


@pytest.mark.parametrize("path", [PREVIEW, ENROL, CONTAIN, "/api/v1/knowledge", "/api/v1/access/plan"])
@pytest.mark.parametrize("token", [None, "cordon_wrong", "x" * 300, READER])
async def test_nobody_without_a_valid_token_makes_anybody_read_a_large_body(
    fleet: Api, monkeypatch: pytest.MonkeyPatch, path: str, token: str | None
) -> None:
    monkeypatch.setattr("controller.api.middleware._check_json", _not_to_be_called)
    size = MAX_BODY + 1 if token == READER else MAX_PUBLIC_BODY + 1
    if token == READER and path == "/api/v1/access/plan":
        return  # the scope `read` is what it needs
    status, text = await _send(fleet, path, b"x" * size, token)
    assert status == 413
    assert "without a valid token" in text or "without the scope" in text or f"at most {MAX_BODY} bytes" in text


def _not_to_be_called(*_args: object, **_options: object) -> object:
    raise AssertionError("the body was parsed")


async def test_in_pieces_it_is_no_larger(fleet: Api) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"[" + b"0," * 511 + b"0]"

    response = await fleet.client.post(ENROL, content=pieces(), headers={"Authorization": ""})
    assert response.status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        {str(number): 0 for number in range(MAX_PUBLIC_KEYS)},
        {"a": [{}] * MAX_PUBLIC_KEYS},
        {"a": [{"b": {}}] * (MAX_PUBLIC_KEYS // 2)},
    ],
)
async def test_many_keys_or_objects_end_the_reading(fleet: Api, body: object) -> None:
    status, text = await _send(fleet, ENROL, json.dumps(body).encode())
    assert (status, "keys and objects" in text) == (413, True)


async def test_a_token_may_send_more_and_not_without_end(fleet: Api) -> None:
    own = fleet.client.headers["Authorization"].removeprefix("Bearer ")
    devices = json.dumps({"devices": ["edge-1"] * 2_000, "level": "moon", "reason": "x"}).encode()
    assert (await _send(fleet, CONTAIN, devices, own, "PUT"))[0] == 422
    many = json.dumps({str(number): 0 for number in range(MAX_KEYS)}).encode()
    assert (await _send(fleet, CONTAIN, many, own, "PUT"))[0] == 413
    assert (await _send(fleet, PREVIEW, LARGE, own))[0] == 413
    assert len(LARGE) > MAX_BODY
    assert (await _send(fleet, PREVIEW, json.dumps({"files": {"a.yaml": "x" * MAX_BODY}}).encode(), own))[0] == 422
