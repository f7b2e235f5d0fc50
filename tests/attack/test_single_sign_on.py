"""Sign-ins that somebody else began, saw, replays, or leads elsewhere."""

import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import pytest
from starlette.responses import JSONResponse

from controller.api.auth import MAX_FAILURES, WINDOW
from controller.api.session_cookie import COOKIE as SESSION_COOKIE
from controller.console.sso import COOKIE
from controller.domain.accounts.sso import ATTEMPT_SECONDS, attempt_of, new_attempt
from controller.domain.audit_kinds import AuditKind
from controller.service.accounts import sso as service
from tests.support.api import api
from tests.support.clocks import START
from tests.support.oidc import KEY, authorize, real_provider, signed
from tests.support.sso import Journey, journey, sso_table
from tests.support.visitors import visitor

GROUPS: Final[dict[str, Any]] = {"groups": ["ops"]}


async def _alerts(way: Journey) -> list[dict[str, Any]]:
    entries = await way.api.services.store.audit(limit=50)
    return [
        dict(one.entry.detail or {}) for one in entries if one.entry.kind is AuditKind.SSO_REFUSED and one.entry.alert
    ]


async def test_the_state_of_another_browser_signs_nobody_in(tmp_path: Path) -> None:
    """Login CSRF: an attacker's answer must not make a victim's browser the attacker's."""
    async with journey(tmp_path) as way, visitor(way.api) as victim:
        way.served.claims = GROUPS
        state = await way.begin()
        answer = await victim.get(f"/login/sso/callback?code=c&state={state}", 400)
        assert f"{SESSION_COOKIE}=" not in answer.headers.get("set-cookie", "")
        await victim.get("/login/sso", 303)
        await victim.get(f"/login/sso/callback?code=c&state={state}", 400)
        assert not way.served.forms, "no code was redeemed"


async def test_an_answer_counts_once(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        way.served.claims = GROUPS
        state = await way.begin()
        kept = way.browser.client.cookies.get(COOKIE)
        assert kept is not None
        await way.come_back(code="c", state=state)
        assert way.browser.client.cookies.get(COOKIE) is None
        await way.come_back(400, code="c", state=state)
        way.browser.client.cookies.set(COOKIE, kept, domain="localhost.local")  # whoever read the victim's disk
        page = await way.come_back(400, code="c2", state=state)
        assert "was finished" in page.text
        assert len(way.served.forms) == 1


async def test_a_code_that_was_redeemed_opens_nothing_again(tmp_path: Path) -> None:
    """The code of a victim, put into an attacker's own sign-in: PKCE and nonce are the attacker's."""
    person = {"groups": ["ops"], "preferred_username": "anna"}
    with real_provider({"u-1": person}) as issuer:
        async with api(tmp_path / "cordon.db", accounts=sso_table(issuer, tmp_path)) as one, visitor(one) as victim:
            one.harness.clock.at = time.time()
            seen = await authorize((await victim.get("/login/sso", 303)).headers["location"], "u-1")
            async with visitor(one) as attacker:
                own = await authorize((await attacker.get("/login/sso", 303)).headers["location"], "u-2")
                await attacker.get(f"/login/sso/callback?code={seen['code']}&state={own['state']}", 403)
                assert await attacker.who() is None
            await victim.get(f"/login/sso/callback?code={seen['code']}&state={seen['state']}", 403)


@pytest.mark.parametrize("nonce", [None, "", "another"])
async def test_a_token_of_another_sign_in_is_not_taken(tmp_path: Path, nonce: str | None) -> None:
    async with journey(tmp_path) as way:
        await way.sign_in(403, nonce=nonce, **GROUPS)
        assert await way.account() is None
        assert [one["reason"] for one in await _alerts(way)] == ["identity_not_proved"]


async def test_a_mixed_up_issuer_and_a_forged_token_are_alerts(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        state = await way.begin()
        await way.come_back(403, code="c", state=state, iss="https://evil.example.com")
        await way.sign_in(403, iss="https://evil.example.com", **GROUPS)
        way.served.answers["/token"] = lambda: JSONResponse(
            {"access_token": "at", "id_token": signed(way.served.id_claims()).rsplit(".", 1)[0] + "."}
        )
        await way.sign_in(403, **GROUPS)
        assert len(await _alerts(way)) == 1, "a flood of them is one line a minute"
        assert await way.account() is None


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.com", "//evil.example.com", "/\\evil.example.com", "\\\\evil.example.com", "/%09/evil",
        "javascript:alert(1)", "http:evil.example.com", "/\r\nSet-Cookie: a=b", " //evil.example.com", "@evil",
        "///evil", "/" + "x" * 3000,
    ],
)  # fmt: skip
async def test_no_link_leads_elsewhere_after_the_sign_in(tmp_path: Path, target: str) -> None:
    async with journey(tmp_path) as way:
        response = await way.sign_in(303, f"/login/sso?return_to={quote(target, safe='')}", **GROUPS)
        location = response.headers["location"]
        assert location == "/me" or (location.startswith("/%09/") and "//" not in location)
        assert httpx.URL("https://localhost/x").join(location).host == "localhost"


async def test_callbacks_that_are_none_are_refused_cheaply(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        state = await way.begin()
        for query in (
            "", f"state={state}", f"code=a&code=b&state={state}", f"code=c&state={state}&state=x", "code=c",
            "code=c&state=", f"code=c&state={state[:-1]}", f"code=c&state={state}%00", "code=c&state=%ff%fe",
            "&".join(f"a{n}=" for n in range(50)), f"code=c&state={state}&x=" + "y" * 9000,
        ):  # fmt: skip
            answer = await way.browser.client.get(f"/login/sso/callback?{query}")
            assert answer.status_code in {400, 403, 422}, query
        assert not way.served.forms


@pytest.mark.parametrize("cookie", ["x", "", "e30", "W10", "a" * 3000, "WzEsMiwzLDRd", "%00"])
async def test_a_cookie_that_was_not_given_out_is_no_attempt(tmp_path: Path, cookie: str) -> None:
    async with journey(tmp_path) as way:
        state = await way.begin()
        headers = {"cookie": f"{COOKIE}={cookie}"}
        way.browser.client.cookies.clear()
        answer = await way.browser.client.get(f"/login/sso/callback?code=c&state={state}", headers=headers)
        assert answer.status_code == 400


def test_attempts_cannot_be_made_or_changed_without_the_key() -> None:
    real = new_attempt(KEY, "token", START, "/me", "session")
    assert attempt_of(real.cookie, real.state, KEY) == real
    assert attempt_of(real.cookie, real.state, b"x" * 32) is None
    other = new_attempt(KEY, "token", START, "/admin", "session")
    assert attempt_of(other.cookie, real.state, KEY) is None
    assert len({real.state, real.nonce, real.verifier, other.state, other.nonce, other.verifier}) == 6
    assert attempt_of(real.cookie, "\ud800", KEY) is None


async def test_a_sign_in_has_minutes_and_not_hours(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        state = await way.begin()
        way.api.harness.clock.at += ATTEMPT_SECONDS
        await way.come_back(400, code="c", state=state)


async def test_the_cookie_is_for_this_host_and_no_script(tmp_path: Path) -> None:
    async with journey(tmp_path) as way:
        sent = (await way.browser.get("/login/sso", 303)).headers["set-cookie"].lower()
        assert sent.startswith("__host-cordon-sso=")
        for word in ("secure", "httponly", "samesite=lax", "path=/", "max-age=600"):
            assert word in sent
        assert "domain" not in sent


async def test_an_address_that_fails_again_and_again_waits(tmp_path: Path) -> None:
    """Each failure costs the provider a request; a flood must not keep others from it."""
    async with journey(tmp_path) as way:
        for _ in range(MAX_FAILURES + 1):
            await way.sign_in(403, nonce="x", **GROUPS)
        asked = len(way.served.forms)
        await way.sign_in(429, **GROUPS)
        assert len(way.served.forms) == asked
        way.api.harness.clock.at += WINDOW
        await way.sign_in(303, **GROUPS)


async def test_the_answers_that_were_taken_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_TAKEN", 2)
    async with journey(tmp_path) as way:
        for _ in range(2):
            await way.sign_in(**GROUPS)
        await way.sign_in(503, **GROUPS)
        way.api.harness.clock.at += ATTEMPT_SECONDS
        await way.sign_in(**GROUPS)


async def test_a_sign_in_gives_a_secret_that_nobody_knew_before(tmp_path: Path) -> None:
    """Session fixation."""
    async with journey(tmp_path) as way:
        await way.sign_in(**GROUPS)
        first = way.browser.secret
        await way.sign_in(**GROUPS)
        assert way.browser.secret not in {"", first}
