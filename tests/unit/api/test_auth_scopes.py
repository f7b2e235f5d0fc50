"""Every route says what it needs, and a token opens that and nothing else."""

from typing import Any, cast

import pytest

from controller.api.auth import PublicRoute, RequiresScope
from controller.api.refusal_audit import MAX_ROWS, WINDOW
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import ALL, Scope, ordered, scopes_exceeding
from controller.ports.store import ApiToken
from tests.support.api import Api
from tests.support.api_routes import checks, routes
from tests.support.browser import put_account
from tests.support.persons import put_holder

SECRETS = {one: f"cordon_only-{one.value}" for one in Scope}
FOR_SESSIONS = ("/api/v1/accounts", "/api/v1/sessions", "/api/v1/me")  # no token opens them
NOWHERE = {"device_id": "absent", "command_id": "absent", "name": "absent"}


def described(api: Api) -> list[tuple[str, str, list[str]]]:
    """Method, path and scopes of each operation of the description under /api/v1."""
    return [
        (method.upper(), path, [scope for one in operation.get("security", ()) for scope in one["HTTPBearer"]])
        for path, methods in api.app.openapi()["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/api/v1/")
    ]


async def holder(api: Api, scope: Scope, expires_at: float | None = None) -> dict[str, str]:
    """The header of a token with this scope alone."""
    token = ApiToken(f"only-{scope.value}", digest_of(SECRETS[scope]), 0.0, (scope,), expires_at)
    await put_holder(api.harness.store, token)
    return {"Authorization": f"Bearer {SECRETS[scope]}"}


async def test_each_route_needs_one_scope_or_says_why_it_is_public(api: Api) -> None:
    found = list(routes(api))
    assert len(found) > 15
    for path, methods, dependant in found:
        told = checks(dependant)
        where = f"{sorted(methods)} {path}"
        assert len(told) == 1, f"{where}: give it `dependencies=[scope(...)]` or `public(...)` (controller.api.auth)"
        if isinstance(told[0], PublicRoute):
            assert len(told[0].why) > 10, f"{where}: say why no token is asked for"


async def test_the_description_tells_the_scope(api: Api) -> None:
    told = {(method, path): scopes for method, path, scopes in described(api)}
    for path, methods, dependant in routes(api):
        wanted = [one.scope.value for one in checks(dependant) if isinstance(one, RequiresScope)]
        for method in methods:
            if wanted:
                assert told[method, path] == wanted


@pytest.mark.parametrize(
    "scope", [pytest.param(one, marks=() if one is Scope.READ else pytest.mark.slow) for one in Scope]
)
async def test_each_route_with_each_scope(api: Api, scope: Scope) -> None:
    headers = await holder(api, scope)
    for method, path, wanted in described(api):
        if not wanted or path.startswith(FOR_SESSIONS):
            continue
        response = await api.client.request(method, _filled(path), headers=headers, json={})
        if wanted == [scope.value]:
            assert response.status_code not in (401, 403), f"{method} {path}: {response.text}"
        else:
            assert response.status_code == 403, f"{method} {path}: {response.text}"
            error = response.json()["error"]
            assert error["code"] == "scope_missing"
            assert wanted[0] in error["message"]


def _filled(path: str) -> str:
    parts = path.split("/")
    return "/".join(NOWHERE.get(part[1:-1], "absent") if part.startswith("{") else part for part in parts)


async def test_a_refusal_for_want_of_a_scope_is_recorded_once(api: Api) -> None:
    headers = await holder(api, Scope.READ)
    for _ in range(3):
        assert (await api.client.get("/api/v1/tokens", headers=headers)).status_code == 403
    (line,) = await api.harness.store.audit(kind=AuditKind.API_ACCESS_REFUSED)
    assert line.entry.actor == "operator:only-read"
    assert line.entry.detail == {"peer": "192.0.2.7", "reason": "GET /tokens needs admin"}
    api.harness.clock.at += WINDOW
    assert (await api.client.get("/api/v1/tokens", headers=headers)).status_code == 403
    newest, _ = await api.harness.store.audit(kind=AuditKind.API_ACCESS_REFUSED)
    assert cast("dict[str, Any]", newest.entry.detail)["more_refused_since_the_last_row"] == 2


async def test_a_guesser_cannot_fill_the_record(api: Api) -> None:
    refusals = api.app.state.refusals
    for number in range(MAX_ROWS * 2):
        await refusals.record(AuditKind.API_ACCESS_REFUSED, f"192.0.2.{number}", "unknown token")
    assert len(await api.harness.store.audit(kind=AuditKind.API_ACCESS_REFUSED, limit=1000)) == MAX_ROWS


async def test_guessing_is_an_alert(api: Api) -> None:
    for _ in range(25):
        await api.client.get("/api/v1/devices", headers={"Authorization": "Bearer cordon_guess"})
    (line,) = await api.harness.store.audit(alerts_only=True)
    assert line.entry.kind == AuditKind.API_TOKEN_GUESSING_DETECTED


async def test_an_expired_token_says_so(api: Api) -> None:
    now = api.harness.clock.at
    headers = await holder(api, Scope.READ, expires_at=now + 10)
    assert (await api.client.get("/api/v1/devices", headers=headers)).status_code == 200
    api.harness.clock.at = now + 10
    response = await api.client.get("/api/v1/devices", headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "token_expired"
    (line,) = await api.harness.store.audit(kind=AuditKind.API_ACCESS_REFUSED)
    assert (line.entry.actor, cast("dict[str, Any]", line.entry.detail)["reason"]) == (
        "operator:only-read", "expired token")  # fmt: skip


async def test_nobody_gives_away_more_than_they_have(api: Api) -> None:
    headers = await holder(api, Scope.ADMIN)
    body = {"name": "bob", "scopes": ["read", "admin"]}
    response = await api.client.post("/api/v1/tokens", headers=headers, json=body)
    assert response.status_code == 403
    assert "read" in response.json()["error"]["message"]
    made = await api.json("POST", "/api/v1/tokens", 201, {**body, "for": "90d"})
    assert made["scopes"] == ["read", "admin"]
    assert made["expires_at"] is not None
    listed = (await api.json("GET", "/api/v1/tokens"))["items"]
    assert {one["name"]: one["scopes"] for one in listed}["bob"] == ["read", "admin"]


async def test_without_a_word_a_token_only_reads(api: Api) -> None:
    made = await api.json("POST", "/api/v1/tokens", 201, {"name": "eve"})
    assert made["scopes"] == ["read"]


async def test_the_last_way_in_stays(api: Api) -> None:
    await api.json("POST", "/api/v1/tokens", 201, {"name": "soon", "scopes": ["admin"], "for": "1h"})
    told = await api.json("DELETE", "/api/v1/tokens/tests", 409)  # one that will end is no way in for long
    assert told["error"]["code"] == "last_token"
    await api.json("POST", "/api/v1/tokens", 201, {"name": "stays", "scopes": ["admin"]})
    await api.json("DELETE", "/api/v1/tokens/tests", 204)


async def test_the_last_token_is_revoked_where_somebody_signs_in(api: Api) -> None:
    """It may be stolen."""
    await put_account(api, "idle", "admin", enabled=False)
    await put_account(api, "vic", "viewer")
    await api.json("DELETE", "/api/v1/tokens/tests", 409)
    await put_account(api, "ada", "admin")
    await api.json("DELETE", "/api/v1/tokens/tests", 204)


def test_scopes_as_values() -> None:
    assert ordered([Scope.ADMIN, Scope.READ, Scope.READ]) == (Scope.READ, Scope.ADMIN)
    assert scopes_exceeding([Scope.READ, Scope.POLICY], [Scope.READ]) == (Scope.POLICY,)
    assert scopes_exceeding(ALL, ALL) == ()
