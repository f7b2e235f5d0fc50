"""The pages without a browser: headers, forms, where they lead, and what hostile texts become."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from controller.api.session_cookie import COOKIE
from controller.console.rendering import shown, static_file
from controller.console.routing import HOME, local_path
from controller.domain.accounts.caller import STEP_UP
from controller.domain.accounts.secret_text import csrf_of
from controller.ports.store import StoreHealth
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.authenticator import SoftAuthenticator
from tests.support.browser import PASSWORD, put_account
from tests.support.visitors import ORIGIN, signed_in, visitor

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe\x07\"'"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "cordon.db") as made:
        yield made


class Parts(HTMLParser):
    """Elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.found if name == tag)


def check_page(response: httpx.Response) -> None:
    """What holds for every page."""
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self'" in response.headers["content-security-policy"]
    assert response.headers.get_list("content-security-policy") == [response.headers["content-security-policy"]]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "same-origin"
    parts = Parts(response.text)
    assert len(list(parts.of("h1"))) == 1
    for tag, attributes in parts.found:
        assert tag not in {"style", "img", "iframe", "object", "base"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        addresses = [attributes[name] or "" for name in ("src", "href", "action") if name in attributes]
        assert all(address.startswith("/") and not address.startswith("//") for address in addresses)
        if tag == "script":
            assert attributes.get("src")
    labels = {attributes["for"] for attributes in parts.of("label")}
    inputs = [one for one in parts.of("input") if one.get("type") != "hidden"]
    assert {one["id"] for one in inputs} == labels
    names = [attributes["id"] for _, attributes in parts.found if "id" in attributes]
    assert len(names) == len(set(names))


async def test_every_page(api: Api) -> None:
    device = SoftAuthenticator(ORIGIN)
    async with visitor(api) as nobody:
        for path in ("/login", "/login?return_to=/me", "/setup", "/setup?code=a-code", "/static/none.css"):
            check_page(await nobody.get(path, 404 if path.startswith("/static") else 200))
        for path in (HOME, "/me/passkeys/new", "/login/factor"):
            assert (await nobody.get(path, 303)).headers["location"].startswith("/login?return_to=")
    async with signed_in(api) as person:
        check_page(await person.get("/me"))
        assert (await person.get("/login/factor", 303)).headers["location"] == HOME
        check_page(await person.get("/me/passkeys/new"))
        check_page(await person.post("/me/totp", 200))
        check_page(await person.post("/me/totp/confirm", 422, code="1"))
        check_page(await person.register_passkey(device))
        check_page(await person.get("/me"))
        check_page(await person.get("/login/factor"))
        check_page(await person.post("/login/factor", 401, code="1"))
        check_page(await person.post("/me/factors/unknown/remove", 409))
        check_page(await person.post("/me/factors/-/remove", 404))


async def test_a_person_logs_in_goes_on_and_out(api: Api) -> None:
    await put_account(api, "anna")
    async with visitor(api) as person:
        wrong = await person.post("/login", 401, name="anna", password="no", return_to="/me")
        unknown = await person.post("/login", 401, name="bob", password="no", return_to="/me")
        assert wrong.text.replace("anna", "") == unknown.text.replace("bob", "")
        assert not person.secret
        response = await person.post("/login", 303, name="anna", password=PASSWORD, return_to="/me/passkeys/new")
        assert response.headers["location"] == "/me/passkeys/new"
        cookie = response.headers["set-cookie"].lower()
        assert all(part in cookie for part in ("__host-cordon=", "httponly", "secure", "samesite=lax", "path=/"))
        assert (await person.get("/login", 303)).headers["location"] == HOME
        await person.register_app()
        await person.post("/logout")
        assert (await person.get("/me", 303)).headers["location"].startswith("/login")
        await person.post("/login", 303, name="anna", password=PASSWORD)
        assert (await person.get("/me", 303)).headers["location"] == "/login/factor?return_to=/me"
        assert (await person.get("/login", 303)).headers["location"] == "/login/factor?return_to=/me"


async def test_tokens_are_revoked_and_other_sessions_ended_without_scripts(api: Api) -> None:
    async with signed_in(api) as person, signed_in(api) as other, signed_in(api, "eve") as eve:
        await person.register_app()
        made = await person.call("POST", "/me/tokens", 201, {"name": "bot"})
        check_page(await person.get("/me"))
        await eve.register_app()
        await eve.post("/me/tokens/bot/revoke", 404)
        await person.post("/me/tokens/bot/revoke")
        answer = await api.client.get("/api/v1/devices", headers={"Authorization": f"Bearer {made['token']}"})
        assert answer.status_code == 401
        assert "bot" not in (await person.get("/me")).text
        await person.post("/me/sessions/end-others")
        assert (await other.get("/me", 303)).headers["location"].startswith("/login")
        check_page(await person.get("/me"))


async def test_the_password_is_changed_without_scripts(api: Api) -> None:
    await put_account(api, "anna")
    new, path = "another horse battery", "/me/password"
    async with signed_in(api) as person, signed_in(api) as other:
        check_page(await person.get("/me"))
        for status, current, given, again in (
            (422, PASSWORD, new, new + "x"), (422, "", new, new), (401, "wrong", new, new), (422, PASSWORD, "a", "a"),
        ):  # fmt: skip
            check_page(await person.post(path, status, current=current, password=given, again=again))
        app = await person.register_app()
        api.harness.clock.at += STEP_UP
        stale = await person.post(path, 303, current=PASSWORD, password=new, again=new)
        assert stale.headers["location"].startswith("/login/factor")
        assert f'action="{path}"' not in (await person.get("/me")).text
        await person.post("/login/factor", 303, code=app.code())
        before = person.secret
        await person.post(path, 303, current=PASSWORD, password=new, again=new)
        assert person.secret != before
        await person.get("/me")
        await other.get("/me", 303)
        await other.post("/login", 303, name="anna", password=new)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/me?a=b#c", "/me?a=b#c"),
        ("https://evil.example/", HOME),
        ("//evil.example/", HOME),
        ("/\\evil.example", HOME),
        ("\\\\evil.example", HOME),
        ("javascript:alert(1)", HOME),
        ("me", HOME),
        ("", HOME),
        ("/me\r\nSet-Cookie: a=b", HOME),
        ("/" + "a" * 600, HOME),
        ("/\u2025", HOME),
        ("//[", HOME),
    ],
)
def test_pages_lead_to_paths_of_this_host_only(text: str, path: str) -> None:
    assert local_path(text) == path


@pytest.mark.parametrize(("name", "value"), [("Origin", "http://["), ("Host", "["), ("Host", "a]b:x")])
async def test_addresses_that_are_none_are_another_origin(api: Api, name: str, value: str) -> None:
    async with visitor(api) as stranger:
        headers = {"Origin": "https://localhost", name: value}
        answer = await stranger.client.post("/api/v1/sessions", json={"name": "a", "password": "b"}, headers=headers)
        assert answer.status_code == 403
        for path in ("/login", "/me", "/login/sso", "/absent"):
            assert (await stranger.client.get(path, headers=headers)).status_code < 500


async def test_forms_of_other_pages_change_nothing(api: Api) -> None:
    async with signed_in(api) as person:
        fields = {"csrf": csrf_of(person.secret)}
        same = {"Sec-Fetch-Site": "same-origin"}
        for headers, data in (
            ({"Sec-Fetch-Site": "cross-site"}, fields),
            ({"Sec-Fetch-Site": "same-site"}, fields),
            ({"Origin": "https://evil.example"}, fields),
            ({"Origin": "null"}, fields),
            ({}, fields),
            (same, {"code": "1"}),
            (same, {"csrf": csrf_of("another session")}),
        ):
            response = await person.client.post("/me/totp", data=data, headers=headers)
            assert response.status_code == 403, (headers, data)
            check_page(response)
        assert (await person.client.post("/me/totp", data=fields, headers={"Origin": ORIGIN})).status_code == 200
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {}):
            response = await person.client.post("/login", data={"name": "a", "password": "b"}, headers=headers)
            assert response.status_code == 403


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"a=1&a=2", "application/x-www-form-urlencoded"),
        (b"%ff=%ff", "application/x-www-form-urlencoded"),
        (b"name=a%00b", "application/x-www-form-urlencoded"),
        ("\xe4=\xe4".encode(), "application/x-www-form-urlencoded"),
        (b"&".join(b"%d=1" % n for n in range(40)), "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"", "multipart/form-data; boundary=x"),
    ],
)
async def test_what_is_no_form(api: Api, body: bytes, kind: str) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": kind}
    async with visitor(api) as nobody:
        response = await nobody.client.post("/login", content=body, headers=headers)
        assert response.status_code == 400
        check_page(response)


async def test_hostile_texts_are_shown_as_texts(api: Api) -> None:
    async with visitor(api) as nobody:
        for path in ("/login", "/setup"):
            fields = {"name": HOSTILE, "code": HOSTILE, "password": "a", "again": "a", "return_to": HOSTILE}
            response = await nobody.client.post(path, data=fields, headers={"Sec-Fetch-Site": "same-origin"})
            check_page(response)
            assert "\u202e" not in response.text
    device = SoftAuthenticator(ORIGIN)
    async with signed_in(api) as person:
        options = await person.options("/me/passkeys/new")
        await person.post("/me/passkeys/new", 200, name=HOSTILE, answer=json.dumps(device.register(options)))
        response = await person.get("/me")
        check_page(response)
        assert "&lt;img src=x onerror=alert(1)&gt;\\u202egnp.exe\\u0007" in response.text


async def test_a_token_is_no_session_of_a_page(api: Api) -> None:
    response = await api.client.get("/me")
    assert (response.status_code, response.headers["location"]) == (303, "/login?return_to=/me")


async def test_an_ended_session_loses_its_cookie(api: Api) -> None:
    async with visitor(api) as person:
        person.client.cookies.set(COOKIE, "of a session that is over", domain="localhost.local")
        response = await person.get("/me", 303)
        assert re.search(r'__Host-cordon="?"?; .*Max-Age=0', response.headers["set-cookie"])


async def test_nothing_is_changed_while_the_store_cannot_write(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async with signed_in(api) as person:
        monkeypatch.setattr(type(api.harness.store), "health", property(lambda _self: StoreHealth("disk full", 1.0)))
        response = await person.post("/me/totp", 503)
        check_page(response)


async def test_at_an_address_passkeys_are_not_offered_and_the_page_says_why(api: Api) -> None:
    async with signed_in(api) as person:
        headers = {"Host": "192.0.2.1", "Cookie": f"{COOKIE}={person.secret}"}
        response = await person.client.get("https://192.0.2.1/me", headers=headers)
        assert "opened at the address 192.0.2.1" in response.text
        assert "/me/passkeys/new" not in response.text
        check_page(response)


def test_static_files_are_kept_for_ever_under_names_that_change() -> None:
    assert static_file("pages.css") is None
    assert static_file("../templates/me.html") is None


def test_what_is_shown() -> None:
    assert shown("a\u2028b\u200fc") == "a\\u2028b\\u200fc"
    assert shown("Anna \u00c4\u5b57") == "Anna \u00c4\u5b57"
    assert len(str(shown("x" * 100_000))) < 21_000
    assert shown(7) == 7
