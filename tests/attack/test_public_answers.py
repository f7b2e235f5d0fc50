"""What a caller without a token learns when things go wrong: that they do, and no address, path or reason."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.api.auth import PublicRoute
from controller.domain.audit_kinds import AuditKind
from controller.ports.certificates import AuthorityError
from controller.ports.errors import StoreError
from controller.ports.messages import ConnectionState
from controller.ports.store import StoreHealth
from tests.support.api import TOKEN, Api, api
from tests.support.api_routes import checks, routes
from tests.support.identity import request_for

SECRET = "emqx-1.internal:18083 /var/lib/cordon"
NOBODY = {"Authorization": ""}


@pytest.fixture
async def troubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """An API whose parts all fail, with texts that say more than a stranger should know."""
    async with api(tmp_path / "cordon.db", authority=tmp_path) as made:
        harness = made.harness
        down = ConnectionState(False, SECRET, "", 0.0, SECRET)
        monkeypatch.setattr(type(harness.link), "state", property(lambda _self: down))
        monkeypatch.setattr(type(harness.store), "health", property(lambda _self: StoreHealth(SECRET, 1.0)))
        harness.reconciler.trouble = SECRET
        yield made


def _public(api: Api) -> set[tuple[str, str]]:
    """Method and path of each route that needs no token."""
    return {
        (method, path)
        for path, methods, dependant in routes(api)
        if any(isinstance(check, PublicRoute) for check in checks(dependant))
        for method in methods
    }


async def test_no_public_route_tells_addresses_or_reasons(troubled: Api) -> None:
    routes = _public(troubled)
    assert {("GET", "/readyz"), ("GET", "/metrics"), ("POST", "/api/v1/enrolment/enrol")} <= routes
    body = {"token": "cordon-enrol_" + "x" * 43, "device_id": "edge-1", "csr": request_for("edge-1")}
    for method, path in sorted(routes):
        address = "https://cordon" + path.replace("{issuer}", "0" * 40)
        answer = await troubled.client.request(method, address, headers=NOBODY, json=body if method == "POST" else None)
        told = answer.text + str(answer.headers)
        assert not [part for part in SECRET.split() if part in told], f"{method} {path}"


async def test_ready_says_the_state_to_all_and_the_reasons_to_tokens_that_may_read(troubled: Api) -> None:
    anybody = await troubled.client.get("/readyz", headers=NOBODY)
    assert (anybody.status_code, anybody.json()) == (503, {"ready": False, "reasons": [], "warnings": []})
    reader = await troubled.client.get("/readyz")
    assert [SECRET in reason for reason in reader.json()["reasons"][:3]] == [True, True, True]


async def test_ready_is_no_way_to_try_tokens(tmp_path: Path) -> None:
    async with api(tmp_path / "cordon.db") as made:
        guess = {"Authorization": f"Bearer {TOKEN}x"}
        statuses = [(await made.client.get("/readyz", headers=guess)).status_code for _ in range(30)]
        assert (statuses[0], statuses[-1]) == (401, 429)
        assert await made.harness.store.audit(kind=AuditKind.API_TOKEN_GUESSING_DETECTED)


async def test_errors_of_the_store_and_the_authority_are_told_to_operators_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(tmp_path / "cordon.db", authority=tmp_path) as made:
        assert made.services.identity is not None

        async def fail(*_arguments: object, **_named: object) -> None:
            raise AuthorityError(SECRET)

        monkeypatch.setattr(made.services.identity.enrolment, "enrol", fail)
        body = {"token": "cordon-enrol_" + "x" * 43, "device_id": "edge-1", "csr": request_for("edge-1")}
        path = "https://cordon/api/v1/enrolment/enrol"
        stranger = await made.client.post(path, json=body, headers=NOBODY)
        assert (stranger.status_code, SECRET in stranger.text) == (500, False)

        async def broken() -> None:
            raise StoreError(SECRET)

        monkeypatch.setattr(made.harness.reconciler, "reconcile", lambda everywhere: broken())
        operator = await made.client.post("/api/v1/broker/reconcile")
        assert (operator.status_code, SECRET in operator.text) == (503, True)
        monkeypatch.setattr(made.harness.store, "tokens", broken)
        guesser = await made.client.get("/api/v1/devices")
        assert (guesser.status_code, SECRET in guesser.text) == (503, False)
