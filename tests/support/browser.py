"""A browser of somebody who signs in: the cookie, and the headers that browsers add by themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import httpx
from argon2 import PasswordHasher

from controller.adapters.password_hashing import MEMORY, PASSES
from controller.adapters.sql.accounts import SqlAccounts
from controller.api.session_cookie import BROWSER_COOKIE, COOKIE, CSRF_HEADER
from controller.domain.accounts.account import Account
from controller.domain.accounts.secret_text import csrf_of, digest_of
from controller.ports.store import StoreWrites
from tests.support.api import Api
from tests.support.persons import account_of

PASSWORD = "correct horse battery"
HOST = "cordon"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{HOST}"}


@cache
def phc() -> str:
    """The hash of `PASSWORD`, with the parameters in use."""
    return PasswordHasher(PASSES, MEMORY, 1).hash(PASSWORD)


async def put_account(api: Api, name: str, role: str = "admin", **changes: Any) -> Account:
    """Stores an account with the password `PASSWORD` that nobody made."""
    account = replace(account_of(name, role), password=phc(), **changes)
    added = await SqlAccounts(api.harness.store).add_account(account, StoreWrites())
    assert isinstance(added, Account), added
    return account


@dataclass(slots=True)
class Browser:
    """Cookie and CSRF token of one session, empty before the sign-in; `mark` is kept for the next one."""

    api: Api
    address: str = "192.0.2.9"
    secret: str = ""
    csrf: str = ""
    mark: str = ""

    async def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Sends a request below `/api/v1` as a page of Cordon would; `headers` replace, and empty ones remove."""
        kept = {COOKIE: self.secret, BROWSER_COOKIE: self.mark}
        cookies = "; ".join(f"{name}={value}" for name, value in kept.items() if value)
        given = {**SAME_ORIGIN, CSRF_HEADER: self.csrf, "Cookie": cookies}
        wanted = {name: value for name, value in {**given, **(headers or {})}.items() if value}
        transport = httpx.ASGITransport(self.api.app, raise_app_exceptions=False, client=(self.address, 1))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            response = await client.request(method, f"/api/v1{path}", json=body, headers=wanted)
        self._take(response)
        return response

    async def json(self, method: str, path: str, status: int = 200, body: Any = None) -> Any:
        """The JSON of an answer that has to have this status."""
        response = await self.send(method, path, body)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def give_factor(self) -> None:
        """Has the session go on as after a second factor."""
        found = await self.api.services.accounts.store.session(digest_of(self.secret))
        assert found is not None
        secret, now = f"{self.secret}-next", self.api.harness.clock.now()
        after = replace(found[0], digest=digest_of(secret), factor="totp", factor_at=now)
        assert await self.api.services.accounts.store.add_session(after, StoreWrites(), replaces=found[0].digest)
        self.secret, self.csrf = secret, csrf_of(secret)

    def _take(self, response: httpx.Response) -> None:
        cookie = response.headers.get("set-cookie", "")
        self.mark = response.cookies.get(BROWSER_COOKIE) or self.mark
        if cookie.startswith(f"{COOKIE}="):
            self.secret = cookie.partition(";")[0].partition("=")[2].strip('"')
            self.csrf = response.json()["csrf_token"] if response.content else ""


async def signed_in(api: Api, name: str, password: str = PASSWORD, address: str = "192.0.2.9") -> Browser:
    """A browser whose person has signed in, with a second factor."""
    browser = Browser(api, address)
    await browser.json("POST", "/sessions", 201, {"name": name, "password": password})
    await browser.give_factor()
    return browser
