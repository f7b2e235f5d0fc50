"""Signing in through a provider: accounts, roles, second factors, and from when on it is enforced."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from controller.domain.accounts.account import Account, with_enabled
from controller.domain.accounts.caller import Caller, Credential
from controller.domain.accounts.roles import Roles
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import Scope
from controller.ports.store import StoreWrites
from controller.service.accounts.sign_in import PasswordRefusedError
from tests.support.api import Api
from tests.support.browser import PASSWORD
from tests.support.persons import account_of
from tests.support.sso import Journey, journey, sso_table
from tests.support.visitors import visitor


async def _kinds(api: Api) -> list[str]:
    entries = await api.services.store.audit(limit=50)
    return [one.entry.kind for one in entries]


async def _add(api: Api, account: Account) -> None:
    assert isinstance(await api.services.accounts.store.add_account(account, StoreWrites()), Account)


async def test_the_first_sign_in_makes_an_account_and_the_next_ones_find_it(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        response = await way.sign_in(groups=["staff", "ops"])
        assert response.headers["location"] == "/me"
        first = await way.account()
        assert first is not None
        assert (first.name, first.role, first.issuer, first.subject) == ("anna", "operator", way.served.issuer, "u-1")
        await way.sign_in(groups=["ops"], preferred_username="another", email="x@example.com")
        again = await way.account()
        assert again is not None
        assert again.account_id == first.account_id, "issuer and subject decide, no name"


async def test_a_name_or_address_of_somebody_else_opens_no_account(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        await _add(way.api, account_of("anna", "admin"))
        await way.sign_in(groups=["ops"], preferred_username="anna", email="anna@example.com", email_verified=True)
        found = await way.account()
        assert found is not None
        assert found.name.startswith("anna-")
        assert found.role == "operator"
        (line,) = await way.api.harness.store.audit(kind=AuditKind.ACCOUNT_CREATED)
        assert line.entry.alert, "perhaps one human with two accounts"


@pytest.mark.parametrize(
    "name", ["ANNA", "anna ", "\uff41nna", "bil1", "B111", "rnargo", "Safe.1", "safe_1", "Machine", "a\x00nna\u202e"]
)
async def test_no_name_of_the_provider_imitates_one_that_is_here(tmp_path: Path, name: str) -> None:
    async with journey(tmp_path, break_glass=["safe-1"]) as way:
        for there in ("anna", "bill", "margo", "a-nna"):
            await _add(way.api, account_of(there, "admin"))
        await way.sign_in(groups=["ops"], preferred_username=name)
        found = await way.account()
        assert found is not None
        assert re.fullmatch(r"[A-Za-z0-9._-]+-[0-9a-f]{12}", found.name)
        (line,) = await way.api.harness.store.audit(kind=AuditKind.ACCOUNT_CREATED)
        assert line.entry.alert


@pytest.mark.parametrize("groups", [[], None, ["staff"], ["OPS"], [" ops"], "staff", {"ops": 1}])
async def test_without_a_group_that_has_a_role_there_is_no_account(tmp_path: Path, groups: object) -> None:
    async with journey(tmp_path) as way:
        response = await way.sign_in(403, groups=groups)
        assert "No group" in response.text
        assert await way.api.services.accounts.store.account_of_subject(way.served.issuer, "u-1") is None


async def test_the_role_follows_the_groups_and_ends_with_them(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        await _add(way.api, account_of("root", "admin"))
        roles = []
        for groups in (["ops"], ["ops", "admins"], ["ops"]):
            await way.sign_in(groups=groups)
            account = await way.account()
            assert account is not None
            roles.append(account.role)
        assert roles == ["operator", "admin", "operator"]
        assert account is not None
        who = Caller(account.in_session, frozenset(), Credential.SESSION, account.account_id)
        asked = await way.api.services.approvals.ask_for_scopes(who, [Scope.POLICY], 3600.0, "on call")
        await way.sign_in(403, groups=[])
        assert await way.account() is None, "the session before has ended"
        ended = await way.api.services.approvals.book.find(asked.request_id)
        assert ended is not None
        assert "lost scopes" in ended.outcome
        left = await way.api.services.accounts.store.account_of_subject(way.served.issuer, "u-1")
        assert left is not None
        assert await way.api.services.authentication.scopes_of(left) == frozenset()
        await way.sign_in(groups=["ops"])
        assert await way.account() is not None


async def test_a_provider_that_forgets_the_groups_takes_no_role_away(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        await way.sign_in(groups=["ops"])
        await way.sign_in(403, groups=None)
        account = await way.account()
        assert account is not None
        assert account.role == "operator"


async def _disable(api: Api, account: Account) -> None:
    decide = with_enabled(Roles(), enabled=False)
    found = await api.services.accounts.store.change_account(
        account.account_id, decide, api.harness.clock.now(), StoreWrites()
    )
    assert isinstance(found, Account)


async def test_the_last_administrator_does_not_lose_the_role_by_a_group(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        await way.sign_in(groups=["admins"])
        for one in await way.api.services.accounts.store.accounts():
            if not one.subject:
                await _disable(way.api, one)
        assert "last account that administers" in (await way.sign_in(403, groups=["ops"])).text


async def test_a_disabled_account_stays_outside(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        await way.sign_in(groups=["ops"])
        account = await way.account()
        assert account is not None
        await _disable(way.api, account)
        assert "disabled" in (await way.sign_in(403, groups=["ops"])).text
        assert await way.account() is None


@pytest.mark.parametrize(
    ("claims", "counts"),
    [
        ({"acr": "mfa"}, True), ({"acr": "pwd"}, False), ({"acr": "MFA"}, False), ({}, False), ({"acr": ""}, False),
        ({"amr": ["pwd", "otp"]}, True), ({"amr": ["pwd"]}, False), ({"acr": ["mfa"]}, False),
        ({"acr": "mfa", "auth_time": None}, False),
    ],
    ids=str,
)  # fmt: skip
async def test_a_second_factor_counts_when_a_configured_value_says_so(
    tmp_path: Path, claims: dict[str, Any], counts: bool
) -> None:
    async with journey(tmp_path, amr_values=["otp", "hwk"]) as way:
        at = way.api.harness.clock.now() - 1000
        await way.sign_in(**{"groups": ["ops"], "auth_time": at, **claims})
        who = await way.browser.who()
        assert who is not None
        assert (who.session.factor_at, who.session.factor) == ((at, "sso") if counts else (0.0, ""))


async def test_stepping_up_through_the_provider(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        now = way.api.harness.clock.now()
        await way.sign_in(groups=["ops"], acr="mfa", auth_time=now - 3000)
        before = way.browser.secret
        assert 'step_up=1">Confirm with' in (await way.browser.get("/login/factor")).text
        for claims in ({"acr": "pwd", "auth_time": now}, {"acr": "mfa"}, {"acr": "mfa", "auth_time": now - 400}):
            await way.sign_in(403, "/login/sso?return_to=/me&step_up=1", groups=["ops"], **claims)
            assert way.browser.secret == before
        await way.sign_in(303, "/login/sso?return_to=/me&step_up=1", groups=["ops"], acr="mfa", auth_time=now)
        who = await way.browser.who()
        assert who is not None
        assert who.session.factor_at == now
        assert way.browser.secret != before, "the session goes on under another secret"
        assert await way.api.services.authentication.signed_in(before) is None
        await way.sign_in(403, "/login/sso?step_up=1", groups=["ops"], acr="mfa", auth_time=now, sub="u-2")


async def test_stepping_up_needs_a_session(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        assert (await way.browser.get("/login/sso?step_up=1", 303)).headers["location"].startswith("/login")


async def _with_password(way: Journey, name: str) -> None:
    password = await way.api.services.accounts.sign_in.new_hash(PASSWORD, name)
    await _add(way.api, replace(account_of(name, "admin"), password=password, password_at=1.0))


async def _logs_in(way: Journey, name: str, password: str = PASSWORD) -> bool:
    """Whether a password is taken; what is refused is refused in the same words as a wrong one."""
    try:
        await way.api.services.accounts.sign_in.check(name, password, "192.0.2.1")
    except PasswordRefusedError:
        return False
    return True


async def test_enforcing_waits_for_a_sign_in_and_an_account_for_emergencies(tmp_path: Path) -> None:
    async with journey(tmp_path, enforced=True, break_glass=["Glass"]) as way:
        sso = way.api.services.accounts.sso
        assert sso is not None
        await _with_password(way, "bert")
        assert "nobody has signed in" in await sso.why_not_enforced()
        assert await _logs_in(way, "bert")
        await way.sign_in(groups=["ops"])
        assert "break_glass" in await sso.why_not_enforced()
        assert any("not enforced" in one for one in await way.api.services.accounts.warnings())
        assert await _logs_in(way, "bert")
        await _with_password(way, "glass")
        assert await sso.why_not_enforced() == ""
        assert await _logs_in(way, "glass")
        assert not await _logs_in(way, "glass", "x" * 20)
        assert not await _logs_in(way, "bert")
        late = replace(account_of("late", "admin"), setup_digest=digest_of("code"), setup_until=4e9)
        await _add(way.api, late)
        body = {"code": "code", "password": PASSWORD}
        async with visitor(way.api) as browser:
            headers = {"Sec-Fetch-Site": "same-origin"}
            answer = await browser.client.post("/api/v1/sessions/setup", json=body, headers=headers)
            page = (await browser.get("/login?return_to=/me")).text
        assert 'href="/login/sso?return_to=%2Fme"' in page
        assert "emergency accounts only" in page
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "sso_enforced")
        kinds = await _kinds(way.api)
        assert kinds.count(AuditKind.SSO_TRIED) == 1
        assert AuditKind.SSO_SIGNED_IN in kinds
        await way.sign_in(groups=["ops"])
        assert (await _kinds(way.api)).count(AuditKind.SSO_TRIED) == 1
        sso.rules = replace(sso.rules, configuration="changed")
        assert "nobody has signed in" in await sso.why_not_enforced()
        assert await _logs_in(way, "bert")


async def test_while_the_provider_is_away_the_account_for_emergencies_logs_in(tmp_path: Path) -> None:
    async with journey(tmp_path, enforced=True, break_glass=["glass"]) as way:
        await _with_password(way, "glass")
        await way.sign_in(groups=["ops"])
        way.served.answers["/token"] = lambda: Response("", 503)
        await way.sign_in(503, groups=["ops"])
        assert await _logs_in(way, "glass")


async def test_a_provider_that_is_away_has_a_page_and_passwords_stay(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        way.served.metadata["issuer"] = "https://other.example.com"
        page = await way.browser.get("/login/sso", 503)
        assert "Accounts for emergencies log in by password" in page.text
        sso = way.api.services.accounts.sso
        assert sso is not None
        assert "another issuer" in sso.last_problem
        way.served.metadata.clear()
        way.api.harness.clock.at += 5
        await way.sign_in(groups=["ops"])
        assert sso.last_problem == ""


async def test_giving_up_at_the_provider_is_told_and_not_recorded(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        state = await way.begin()
        page = await way.come_back(403, error="access_denied", error_description="<b>no</b>", state=state)
        assert "<b>no" not in page.text
        assert AuditKind.SSO_REFUSED not in await _kinds(way.api)


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://id.example.com"}, {"scopes": ["profile"]}, {"enforced": True}, {"groups": []},
        {"groups": [{"group": "g", "role": "king"}]}, {"client_id": "a\nb"},
    ],
    ids=str,
)  # fmt: skip
async def test_settings_that_lock_out_or_leak_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    from controller.service.settings.accounts import AccountSettings

    table = sso_table("https://id.example.com", tmp_path)
    assert AccountSettings.model_validate(table).sso is not None
    with pytest.raises(ValueError, match="sso"):
        AccountSettings.model_validate({**table, "sso": {**table["sso"], **wrong}})
