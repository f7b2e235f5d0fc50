"""Second factors by the API, and which routes need a fresh one."""

import json
from typing import Any, Final

import pyotp
import pytest

from controller.api.auth import RequiresScope
from controller.domain.accounts.caller import STEP_UP
from controller.domain.audit_kinds import AuditKind
from tests.support.api import Api
from tests.support.api_routes import checks, routes
from tests.support.authenticator import SoftAuthenticator
from tests.support.visitors import ORIGIN, Visitor, signed_in

FACTORS: Final = "/factors"
FRESH: Final = {
    ("PUT", "/api/v1/quarantine"),
    ("POST", "/api/v1/guard/approve"),
    ("POST", "/api/v1/approvals/{request_id}/approve"),
    ("POST", "/api/v1/rollouts/{rollout_id}/approve"),
    ("POST", "/api/v1/commands/{command_id}/signatures"),
    ("POST", "/api/v1/tokens"),
    ("DELETE", "/api/v1/tokens/{name}"),
    ("POST", "/api/v1/broker/setup/apply"),
    ("POST", "/api/v1/broker/setup/undo"),
}


async def registered(person: Visitor) -> pyotp.TOTP:
    begun = await person.call("POST", f"{FACTORS}/totp", 201)
    app = pyotp.TOTP(begun["secret"])
    assert pyotp.parse_uri(begun["uri"]).secret == begun["secret"]
    now = int(person.api.harness.clock.now())
    await person.call("POST", f"{FACTORS}/totp/confirm", 403, {"code": "000000"})
    await person.call("POST", f"{FACTORS}/totp/confirm", 200, {"code": app.at(now)})
    return app


async def test_factors_are_registered_listed_given_and_removed(api: Api) -> None:
    device = SoftAuthenticator(ORIGIN)
    async with signed_in(api) as person:
        app = await registered(person)
        options = (await person.call("POST", f"{FACTORS}/passkeys/options", 200))["options"]
        body = {"name": "a key", "passkey": device.register(options)}
        await person.call("POST", f"{FACTORS}/passkeys", 201, body)
        codes = (await person.call("POST", f"{FACTORS}/recovery-codes", 201))["codes"]
        listed = await person.call("GET", FACTORS, 200)
        assert [(one["kind"], one["name"]) for one in listed["items"]] == [
            ("passkey", "a key"),
            ("totp", "authenticator app"),
        ]
        assert listed["recovery_codes"] == len(codes) == 10
    async with signed_in(api) as person:
        await person.call("GET", FACTORS, 403)
        answer = device.use((await person.call("POST", f"{FACTORS}/give/options", 200))["options"])
        await person.call("POST", f"{FACTORS}/give", 200, {"passkey": answer})
        await person.call("DELETE", f"{FACTORS}/{device.credential_id.hex()}", 204)
        await person.call("DELETE", f"{FACTORS}/{device.credential_id.hex()}", 404)
        await person.call("DELETE", f"{FACTORS}/totp", 409)
        api.harness.clock.at += STEP_UP
        await person.call("POST", f"{FACTORS}/give", 403, {"code": "000000"})
        given = await person.call("POST", f"{FACTORS}/give", 200, {"code": app.at(int(api.harness.clock.now()))})
        assert given["csrf"]
    kinds = {line.entry.kind for line in await api.services.store.audit(limit=1000)}
    assert {kind for kind in AuditKind if kind.startswith("factor.")} - kinds == {AuditKind.FACTOR_CODE_USED}


async def test_no_token_touches_factors(api: Api) -> None:
    for method, path in (("GET", FACTORS), ("POST", f"{FACTORS}/totp"), ("POST", f"{FACTORS}/give")):
        error = (await api.json(method, f"/api/v1{path}", 403, {} if method == "POST" else None))["error"]
        assert error["code"] == "session_only"


async def test_which_routes_need_a_fresh_factor(api: Api) -> None:
    found = {
        (method, path)
        for path, methods, dependant in routes(api)
        for method in methods
        for check in checks(dependant)
        if isinstance(check, RequiresScope) and check.step_up
    }
    assert found >= FRESH


async def test_a_fresh_factor_opens_them_for_five_minutes_and_tokens_act_by_their_scopes(api: Api) -> None:
    body: dict[str, Any] = {"devices": ["edge-1"], "level": "restricted", "reason": "test"}
    await api.report("edge-1")
    async with signed_in(api) as person:
        await person.call("PUT", "/quarantine/edge-1", 200, {"level": "restricted", "reason": "test"})
        assert (await person.call("PUT", "/quarantine", 403, body))["error"]["code"] == "step_up_needed"
        app = await registered(person)
        await person.call("PUT", "/quarantine", 200, body)
        api.harness.clock.at += STEP_UP
        assert (await person.call("PUT", "/quarantine", 403, body))["error"]["code"] == "step_up_needed"
        await person.call("POST", f"{FACTORS}/give", 200, {"code": app.at(int(api.harness.clock.now()))})
        await person.call("PUT", "/quarantine", 200, body)
    await api.json("PUT", "/api/v1/quarantine", 200, body)


@pytest.mark.parametrize("answer", [{}, {"id": 1}, {"id": "AAAA", "response": []}, {"response": {"a": [[]] * 9}}])
async def test_hostile_answers_of_passkeys(api: Api, answer: dict[str, Any]) -> None:
    async with signed_in(api) as person:
        await person.register_app()
        await person.call("POST", f"{FACTORS}/passkeys/options", 200)
        await person.call("POST", f"{FACTORS}/passkeys", 403, {"name": "x", "passkey": answer})
        await person.call("POST", f"{FACTORS}/give", 403, {"passkey": answer})
        await person.post("/me/passkeys/new", 409, answer=json.dumps(answer))
