"""Who gets in."""

import hashlib
import json

import pytest

from controller.api.auth import MAX_FAILURES, MAX_PEERS, WINDOW, FailedAttempts, match, new_token
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.ports.store import ApiToken
from tests.support.api import TOKEN, Api

PATHS = ["devices", "quarantine", "commands", "policies", "audit", "dead-letters", "broker", "tokens"]
# A device that enrols has no token of the API's.
TOKENLESS = {"/api/v1/sessions", "/api/v1/sessions/setup", "/api/v1/enrolment/root", "/api/v1/enrolment/enrol"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer " + "x" * 5000]
)
async def test_nobody_without_a_token(api: Api, path: str, header: str) -> None:
    response = await api.client.get(f"/api/v1/{path}", headers={"Authorization": header})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="cordon"'
    assert set(response.json()["error"]) == {"code", "message"}


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/docs", "/api/openapi.json"])
async def test_open_to_all(api: Api, path: str) -> None:
    response = await api.client.get(path, headers={"Authorization": ""})
    assert response.status_code == 200


async def test_every_other_route_asks_for_a_token(api: Api) -> None:
    openapi = api.app.openapi()
    for path, methods in openapi["paths"].items():
        for method in methods:
            if path.startswith("/api/") and path not in TOKENLESS:
                filled = path.replace("{device_id}", "d").replace("{command_id}", "c").replace("{name}", "n")
                response = await api.client.request(method, filled, headers={"Authorization": "Bearer no"}, json={})
                assert response.status_code in (401, 429), f"{method} {path}"


async def test_guessing_is_slowed_and_a_good_token_is_still_let_in(api: Api) -> None:
    bad = {"Authorization": "Bearer guess"}
    for _ in range(MAX_FAILURES):
        assert (await api.client.get("/api/v1/tokens", headers=bad)).status_code == 401
    refused = await api.client.get("/api/v1/tokens", headers=bad)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= WINDOW + 1
    assert (await api.client.get("/api/v1/tokens")).status_code == 200
    api.harness.clock.at += WINDOW
    assert (await api.client.get("/api/v1/tokens", headers=bad)).status_code == 401


def test_failures_are_counted_for_each_peer_and_bounded() -> None:
    failures = FailedAttempts(lambda: 0.0)
    for _ in range(MAX_FAILURES):
        assert failures.record("a") == 0.0
    assert failures.record("a") == WINDOW
    assert failures.record("b") == 0.0
    for number in range(MAX_PEERS):
        failures.record(f"peer-{number}")
    assert failures.record("a") == 0.0  # forgotten: memory is bounded, and guessing 256 bits stays hopeless


def test_tokens_are_long_random_and_kept_as_digests_only() -> None:
    one, other = new_token(), new_token()
    assert one != other
    assert one.startswith("cordon_")
    assert len(one) >= 50
    assert digest_of(one) == hashlib.sha256(one.encode()).hexdigest()
    tokens = [ApiToken("a", digest_of(one), 0.0), ApiToken("b", digest_of(other), 0.0)]
    assert match(one, tokens) == tokens[0]
    assert match(other, tokens) == tokens[1]
    assert match(one[:-1], tokens) is None
    assert match("\ud800", tokens) is None


async def test_a_token_made_opens_until_it_is_revoked(api: Api) -> None:
    made = await api.json("POST", "/api/v1/tokens", 201, {"name": "bob", "scopes": ["admin"]})
    as_bob = {"Authorization": f"Bearer {made['token']}"}
    assert (await api.client.get("/api/v1/tokens", headers=as_bob)).status_code == 200
    listed = await api.client.get("/api/v1/tokens")
    assert [one["name"] for one in listed.json()["items"]] == ["bob", "tests"]
    assert made["token"] not in listed.text
    assert digest_of(made["token"]) not in listed.text
    await api.json("POST", "/api/v1/tokens", 409, {"name": "bob"})
    await api.json("DELETE", "/api/v1/tokens/bob", 204)
    assert (await api.client.get("/api/v1/tokens", headers=as_bob)).status_code == 401
    await api.json("DELETE", "/api/v1/tokens/bob", 404)
    last = await api.json("DELETE", "/api/v1/tokens/tests", 409)
    assert last["error"]["code"] == "last_token"
    lines = await api.harness.store.audit(newest_first=False)
    told = [(line.entry.kind, line.entry.actor, line.entry.detail) for line in lines]
    bob = {"name": "bob", "scopes": ["admin"], "expires_at": None, "owner": "tests"}
    refused = {"peer": "192.0.2.7", "reason": "unknown token"}
    assert told == [
        (AuditKind.TOKEN_CREATED, "operator:tests", bob),
        (AuditKind.TOKEN_REVOKED, "operator:tests", bob),
        (AuditKind.API_ACCESS_REFUSED, "unknown", refused),
    ]


async def test_the_public_descriptions_are_encoded_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding: each request for one took the event loop tens of milliseconds, from anybody."""
    paths = ("/api/docs", "/api/openapi.json")
    first = [(await api.client.get(path)).content for path in paths]
    assert json.loads(first[1]) == api.app.openapi()
    monkeypatch.setattr(api.app, "openapi", lambda: pytest.fail("made again"))
    monkeypatch.setattr("controller.api.docs.page", lambda _openapi: pytest.fail("made again"))
    assert [(await api.client.get(path)).content for path in paths] == first
