"""A controller with single sign-on, and a browser that signs in through a provider of `tests/support/oidc.py`."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from controller.domain.accounts.account import Account
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.oidc import CLIENT, SECRET, ScriptedProvider, serving
from tests.support.visitors import ORIGIN, Visitor, visitor


def sso_table(issuer: str, folder: Path, url: str = ORIGIN, **more: Any) -> dict[str, Any]:
    """The table `[accounts]`: `ops` are operators, `admins` administrators, the acr `mfa` is a second factor."""
    secret = folder / "sso.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    groups = [{"group": "admins", "role": "admin"}, {"group": "ops", "role": "operator"}]
    sso = {"issuer": issuer, "client_id": CLIENT, "client_secret": str(secret), "groups": groups, "acr_values": ["mfa"]}
    return {"url": url, "sso": {**sso, **more}}


@dataclass
class Journey:
    """A browser that signs in through a scripted provider."""

    api: Api
    served: ScriptedProvider
    browser: Visitor

    async def begin(self, path: str = "/login/sso?return_to=/me") -> str:
        """Follows the link to the provider; returns the `state`, whose nonce the next ID token has."""
        answer = await self.browser.get(path, 303)
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        self.served.nonce = query["nonce"][0]
        return query["state"][0]

    async def come_back(self, status: int = 303, **answer: str) -> httpx.Response:
        """Gets the callback, as the provider sends the browser there."""
        return await self.browser.get(f"/login/sso/callback?{urlencode(answer)}", status)

    async def sign_in(self, status: int = 303, path: str = "/login/sso?return_to=/me", **claims: Any) -> httpx.Response:
        """The whole way, with these claims in the ID token."""
        self.served.claims = claims
        return await self.come_back(status, code="c", state=await self.begin(path))

    async def account(self) -> Account | None:
        """Of whom the browser is now."""
        who = await self.browser.who()
        return None if who is None else who.account


@contextlib.asynccontextmanager
async def journey(folder: Path, **more: Any) -> AsyncIterator[Journey]:
    """A controller with a scripted provider, and a browser; `more` is of `[accounts.sso]`."""
    async with (
        serving() as served,
        open_api(folder / "cordon.db", accounts=sso_table(served.issuer, folder, **more)) as one,
        visitor(one) as browser,
    ):
        served.clock = one.harness.clock
        yield Journey(one, served, browser)
