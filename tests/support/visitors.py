"""People in front of a browser without its scripts: pages, forms and cookies over the API in process."""

import html
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pyotp

from controller.api.session_cookie import COOKIE, CSRF_HEADER
from controller.domain.accounts.caller import SignedIn
from controller.domain.accounts.secret_text import csrf_of, digest_of
from controller.domain.accounts.session import Session
from controller.ports.store import StoreWrites
from tests.support.api import Api
from tests.support.authenticator import SoftAuthenticator
from tests.support.persons import account_of

ORIGIN: Final = "https://localhost"
_OPTIONS: Final = re.compile(r'data-options="([^"]*)"')
_KEY: Final = re.compile(r'<code id="key">([A-Z2-7]+)</code>')
_CODES: Final = re.compile(r"<li><code>([A-Z2-7-]+)</code></li>")


@dataclass(slots=True)
class Visitor:
    """One browser; forms get the token of its session."""

    api: Api
    client: httpx.AsyncClient

    @property
    def secret(self) -> str:
        """Of its session; empty without one."""
        return self.client.cookies.get(COOKIE) or ""

    async def get(self, path: str, status: int = 200) -> httpx.Response:
        response = await self.client.get(path)
        assert response.status_code == status, response.text
        return response

    async def post(self, path: str, status: int = 303, **fields: str) -> httpx.Response:
        """Sends a form as a page of the controller does."""
        csrf = {"csrf": csrf_of(self.secret)} if self.secret else {}
        response = await self.client.post(path, data={**csrf, **fields}, headers={"Sec-Fetch-Site": "same-origin"})
        assert response.status_code == status, response.text
        return response

    async def call(self, method: str, path: str, status: int, body: Any = None) -> Any:
        """Calls the API as a script of a page does; the JSON of the response."""
        headers = {"Sec-Fetch-Site": "same-origin", CSRF_HEADER: csrf_of(self.secret)}
        response = await self.client.request(method, f"/api/v1{path}", json=body, headers=headers)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def who(self) -> SignedIn | None:
        return await self.api.services.authentication.signed_in(self.secret)

    async def register_app(self) -> "App":
        """Registers an authenticator app."""
        found = _KEY.search((await self.post("/me/totp", 200)).text)
        assert found is not None
        app = App(self.api, found[1])
        response = await self.post("/me/totp/confirm", 200 if not await self._has_factor() else 303, code=app.code())
        app.recovery = _CODES.findall(response.text)
        return app

    async def _has_factor(self) -> bool:
        who = await self.who()
        assert who is not None
        return (await self.api.services.accounts.second_factors.factors_of(who.account.account_id)).exist

    async def options(self, path: str) -> dict[str, Any]:
        """What a page asks of a passkey."""
        found = _OPTIONS.search((await self.get(path)).text)
        assert found is not None
        options: dict[str, Any] = json.loads(html.unescape(found[1]))
        return options

    async def register_passkey(self, device: SoftAuthenticator) -> httpx.Response:
        """Registers a passkey as the first factor."""
        answer = device.register(await self.options("/me/passkeys/new"))
        return await self.post("/me/passkeys/new", 200, name="a key", answer=json.dumps(answer))


@dataclass(slots=True)
class App:
    """An authenticator app, with the recovery codes that its registration showed."""

    api: Api
    key: str
    recovery: list[str] | None = None

    def code(self, steps: int = 0) -> str:
        """What it shows now, or some steps of 30 seconds away."""
        return pyotp.TOTP(self.key).at(int(self.api.harness.clock.now()) + 30 * steps)


@asynccontextmanager
async def visitor(api: Api, origin: str = ORIGIN) -> AsyncIterator[Visitor]:
    """A browser without a session."""
    transport = httpx.ASGITransport(api.app, raise_app_exceptions=False, client=("192.0.2.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url=origin) as client:
        yield Visitor(api, client)


async def begin_session(api: Api, name: str = "anna", role: str = "admin") -> str:
    """Begins a session of an account, which is created if it is absent, as after the password; returns its secret."""
    accounts, now = api.services.accounts.store, api.harness.clock.now()
    account = await accounts.account_named(name)
    if account is None:
        account = account_of(name, role)
        await accounts.add_account(account, StoreWrites())
    secret = f"secret-{name}-{len(await accounts.sessions(account.account_id))}"
    session = Session(digest_of(secret), account.account_id, now, now, peer="192.0.2.9", agent="a browser")
    assert await accounts.add_session(session, StoreWrites())
    return secret


@asynccontextmanager
async def signed_in(api: Api, name: str = "anna", role: str = "admin", origin: str = ORIGIN) -> AsyncIterator[Visitor]:
    """A browser in a session of `begin_session`."""
    secret = await begin_session(api, name, role)
    async with visitor(api, origin) as browser:
        browser.client.cookies.set(COOKIE, secret, domain="localhost.local")
        yield browser
