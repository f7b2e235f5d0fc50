"""Accounts, sessions and what people change of themselves, through the API."""

from pathlib import Path

import pytest

from controller.api.session_cookie import COOKIE
from controller.domain.accounts.caller import STEP_UP
from controller.domain.accounts.session import ABSOLUTE, IDLE
from controller.domain.audit_kinds import AuditKind
from controller.service.approvals.book import end_requests_of
from controller.service.containment.operator_actions import OperatorLimits
from controller.service.unit_of_work import UnitOfWork
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.browser import PASSWORD, Browser, put_account, signed_in
from tests.support.visitors import signed_in as a_visitor

NEW = "another horse battery"


async def test_an_account_from_its_making_to_its_end(api: Api) -> None:
    await put_account(api, "root")
    root = await signed_in(api, "root")
    made = await root.json("POST", "/accounts", 201, {"name": "ada", "role": "operator"})
    ada = Browser(api, "192.0.2.10")
    weak = {"code": made["setup_code"], "password": "password1234"}
    assert (await ada.json("POST", "/sessions/setup", 422, weak))["error"]["code"] == "password_weak"
    good = {"code": made["setup_code"], "password": PASSWORD}
    started = await ada.json("POST", "/sessions/setup", 201, good)
    assert (started["account"], started["scopes"]) == ("ada", ["read", "contain", "command"])
    again = await Browser(api).json("POST", "/sessions/setup", 401, {**good, "password": NEW})
    assert again["error"]["code"] == "setup_code_invalid", "it is used up"
    assert (await ada.json("GET", "/me"))["account"] == "ada"
    await ada.json("GET", "/devices")
    assert (await ada.json("GET", "/accounts", 403))["error"]["code"] == "scope_missing"
    await root.json("PUT", "/accounts/ada/role", 200, {"role": "viewer"})
    assert (await ada.json("GET", "/me"))["scopes"] == ["read"], "a role counts at once"
    shown = await root.json("GET", "/accounts/ada")
    assert (shown["made_by"], shown["sessions"], shown["has_password"]) == ("root", 1, True)
    assert "setup" not in str(await root.json("GET", "/accounts/ada/sessions"))
    await root.json("POST", "/accounts/ada/disable")
    assert (await ada.json("GET", "/me", 401))["error"]["code"] == "session_over"
    assert (await ada.json("POST", "/sessions", 401, {"name": "ada", "password": PASSWORD}))["error"]
    await root.json("POST", "/accounts/ada/enable")
    await signed_in(api, "ADA")
    kinds = [one.entry.kind for one in await api.harness.store.audit(newest_first=False)]
    assert [kind for kind in kinds if kind.startswith("account.") and "sign_in" not in kind] == [
        AuditKind.ACCOUNT_CREATED, AuditKind.ACCOUNT_SETUP_CODE_CREATED, AuditKind.ACCOUNT_PASSWORD_CHANGED,
        AuditKind.ACCOUNT_ROLE_CHANGED, AuditKind.ACCOUNT_DISABLED, AuditKind.ACCOUNT_ENABLED,
    ]  # fmt: skip
    actors = {one.entry.actor for one in await api.harness.store.audit(kind=AuditKind.ACCOUNT_CREATED)}
    assert actors == {"person:root"}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "ROOT", "role": "viewer"}, 409, "account_name_used"),
        ({"name": "a b", "role": "viewer"}, 422, "account_name_invalid"),
        ({"name": "ada", "role": "king"}, 422, "role_unknown"),
        ({"name": "ada", "role": "viewer", "password": "x"}, 422, "invalid"),
    ],
)
async def test_what_is_no_account(api: Api, body: dict[str, str], status: int, code: str) -> None:
    await put_account(api, "root")
    root = await signed_in(api, "root")
    assert (await root.json("POST", "/accounts", status, body))["error"]["code"] == code


async def test_the_last_administrator_stays(api: Api) -> None:
    await api.harness.store.write(lambda connection: connection.execute("DELETE FROM accounts"))
    await put_account(api, "root")
    root = await signed_in(api, "root")
    for method, path, body in (("POST", "disable", None), ("PUT", "role", {"role": "viewer"})):
        answer = await root.json(method, f"/accounts/root/{path}", 409, body)
        assert answer["error"]["code"] == "account_last_admin"


async def test_sessions_are_listed_and_ended_one_by_one(api: Api) -> None:
    await put_account(api, "ada")
    first, second, third = [await signed_in(api, "ada") for _ in range(3)]
    listed = (await first.json("GET", "/sessions"))["items"]
    assert [one["current"] for one in listed].count(True) == 1
    ids = {name: (await browser.json("GET", "/me"))["session"]["session_id"]
           for name, browser in (("second", second), ("third", third))}  # fmt: skip
    await first.json("DELETE", f"/sessions/{ids['second']}", 204)
    await first.json("DELETE", f"/sessions/{ids['second']}", 404)
    await second.json("GET", "/me", 401)
    await first.json("DELETE", "/sessions", 204)
    await third.json("GET", "/me", 401)
    out = await first.send("DELETE", "/sessions/current")
    assert out.status_code == 204
    assert f'{COOKIE}=""' in out.headers["set-cookie"]
    await put_account(api, "root")
    root, again = await signed_in(api, "root"), await signed_in(api, "ada")
    await root.json("DELETE", "/accounts/ada/sessions", 204)
    await again.json("GET", "/me", 401)


async def test_a_session_ends_by_itself(api: Api) -> None:
    await put_account(api, "ada")
    idle, used = await signed_in(api, "ada"), await signed_in(api, "ada")
    began = api.harness.clock.at
    while api.harness.clock.at < began + ABSOLUTE - IDLE / 2:
        await used.json("GET", "/me")
        api.harness.clock.at += IDLE / 2
    await idle.json("GET", "/me", 401)
    await used.json("GET", "/me")
    api.harness.clock.at = began + ABSOLUTE
    await used.json("GET", "/me", 401)


async def test_a_new_password_ends_every_session_and_gives_another(api: Api) -> None:
    await put_account(api, "ada")
    thief, ada = await signed_in(api, "ada"), await signed_in(api, "ada")
    body = {"current": "wrong horse battery", "password": NEW}
    assert (await thief.json("PUT", "/me/password", 401, body))["error"]["code"] == "sign_in_refused"
    before = ada.secret
    await ada.json("PUT", "/me/password", 200, {"current": PASSWORD, "password": NEW})
    assert ada.secret != before
    await ada.json("GET", "/me")
    await thief.json("GET", "/me", 401)
    await signed_in(api, "ada", NEW)


async def test_a_new_password_needs_a_fresh_factor_where_there_is_one(api: Api) -> None:
    async with a_visitor(api) as person:
        await person.register_app()
        api.harness.clock.at += STEP_UP
        refused = await person.call("PUT", "/me/password", 403, {"current": PASSWORD, "password": NEW})
        assert refused["error"]["code"] == "step_up_needed"


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("PUT", "/accounts/olga/role", 200, {"role": "viewer"}),
        ("POST", "/accounts/olga/disable", 200, None),
        ("DELETE", "/accounts/olga/factors", 200, None),
        ("DELETE", "/accounts/olga/sessions", 204, None),
        ("", "", 0, None),
    ],
)
async def test_what_an_account_asked_for_and_lent_ends_with_its_rights(
    tmp_path: Path, method: str, path: str, status: int, body: dict[str, str] | None
) -> None:
    async with open_api(tmp_path / "c.db", by_hand=OperatorLimits(most=1)) as api:
        account = await put_account(api, "olga", "operator")
        await put_account(api, "boss")
        await put_account(api, "vic", "viewer")
        olga, boss, vic = [await signed_in(api, name) for name in ("olga", "boss", "vic")]
        for device in ("e-1", "e-2"):
            await api.report(device)
        many = {"devices": ["e-1", "e-2"], "level": "isolated", "reason": "x"}
        asked = (await olga.json("PUT", "/quarantine", 202, many))["request"]["request_id"]
        lent = await vic.json("POST", "/approvals", 201, {"scopes": ["contain"], "for": "2h", "reason": "x"})
        await olga.json("POST", f"/approvals/{lent['request_id']}/approve", 200)
        assert "contain" in (await vic.json("GET", "/me"))["scopes"]
        if method:
            await boss.json(method, path, status, body)
        else:  # as `cordon account` does beside the controller
            found = [await api.harness.store.approval(key) for key in (asked, lent["request_id"])]
            batch = UnitOfWork()
            there = [one for one in found if one is not None]
            end_requests_of(there, account.key, "the account was disabled", api.harness.clock.now(), batch)
            await api.harness.store.commit(batch.to_writes())
        await boss.json("POST", f"/approvals/{asked}/approve", 409)
        await api.services.approvals.book.expire()
        assert "contain" not in (await vic.json("GET", "/me"))["scopes"]
        lines = [line.entry for line in await api.harness.store.audit() if line.entry.kind.startswith("account.")]
        assert all(line.alert for line in lines)


async def test_nobody_takes_over_an_account_with_scopes_that_they_lack(tmp_path: Path) -> None:
    async with open_api(
        tmp_path / "c.db", accounts={"roles": {"helpdesk": ["read", "admin"], "guard": ["read", "contain"]}}
    ) as api:
        for name, role in (("hal", "helpdesk"), ("boss", "admin"), ("vic", "viewer"), ("gone", "operator")):
            await put_account(api, name, role, enabled=name != "gone")
        hal, boss, vic = [await signed_in(api, name) for name in ("hal", "boss", "vic")]
        for name in ("boss", "gone"):
            for method, what in (("POST", "setup-code"), ("DELETE", "factors")):
                refused = await hal.json(method, f"/accounts/{name}/{what}", 403)
                assert refused["error"]["code"] == "scope_missing"
        for person in (vic, hal):
            lent = await person.json("POST", "/approvals", 201, {"scopes": ["contain"], "for": "2h", "reason": "x"})
            await boss.json("POST", f"/approvals/{lent['request_id']}/approve", 200)
        assert "contain" in (await hal.json("GET", "/me"))["scopes"]
        await hal.json("POST", "/accounts/vic/setup-code", 403)
        await hal.json("PUT", "/accounts/hal/role", 403, {"role": "guard"})
        await hal.json("POST", "/accounts", 403, {"name": "new", "role": "guard"})
        asked = {"name": "later", "scopes": ["read", "contain"]}
        assert "for a while" in (await vic.json("POST", "/me/tokens", 403, asked))["error"]["message"]


async def test_everybody_makes_tokens_of_their_own(api: Api) -> None:
    await put_account(api, "ada", "operator")
    ada = await signed_in(api, "ada")
    refused = await ada.json("POST", "/me/tokens", 403, {"name": "bot", "scopes": ["read", "policy"]})
    assert refused["error"]["code"] == "scope_missing"
    made = await ada.json("POST", "/me/tokens", 201, {"name": "bot", "scopes": ["contain"], "for": "30d"})
    assert (made["owner"], made["made_by"], made["last_used_at"]) == ("ada", "ada", None)
    used = await api.client.get("/api/v1/devices/absent", headers={"Authorization": f"Bearer {made['token']}"})
    assert used.status_code == 403
    (listed,) = (await ada.json("GET", "/me/tokens"))["items"]
    assert (listed["name"], listed["last_peer"], listed["last_used_at"] is None) == ("bot", "192.0.2.7", False)
    assert (await ada.json("DELETE", "/me/tokens/tests", 404))["error"]["code"] == "token_unknown"
    await ada.json("DELETE", "/me/tokens/bot", 204)
    (line,) = await api.harness.store.audit(kind=AuditKind.TOKEN_CREATED)
    assert line.entry.actor == "person:ada"


async def test_the_cookie_is_for_this_host_tls_and_no_script(api: Api) -> None:
    await put_account(api, "ada")
    answer = await Browser(api).send("POST", "/sessions", {"name": "ada", "password": PASSWORD})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-cordon=")
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie
