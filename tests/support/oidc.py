"""OpenID providers for tests: one whose every answer a test decides, and a real one (oidc-provider-mock)."""

import contextlib
import ssl
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controller.adapters.http_server.admission import ConnectionLimits
from controller.adapters.oidc.metadata import WELL_KNOWN
from controller.adapters.oidc.provider import OidcOptions, OidcProvider
from controller.domain.accounts.sso import SignInAttempt, new_attempt
from tests.support.clocks import START, ManualClock
from tests.support.http_listener import running_listener

CLIENT: Final = "cordon"
SECRET: Final = "s3cret of/the:client"  # with what Basic authentication has to encode
CALLBACK: Final = "https://cordon.example.com/login/sso/callback"
KEY: Final = b"k" * 32  # the controller's, for attempts
NEW_KEY: Final = ECKey.generate_key("P-256", {"kid": "2027"})
SIGNING_KEY: Final = ECKey.generate_key("P-256", {"kid": "2026"})


def attempt(session: str = "", now: float = START) -> SignInAttempt:
    """A sign-in that begins at `now`, or a step-up of a session."""
    return new_attempt(KEY, "random", now, "/", session)


def signed(claims: dict[str, Any], key: Key = SIGNING_KEY, **header: Any) -> str:
    """An ID token."""
    made = {"alg": "ES256", "kid": key.kid, **header}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # of the name EdDSA, and of what attacks use
        left = {name: value for name, value in made.items() if value is not None}
        return jwt.encode(left, claims, key, [made["alg"]])


@dataclass
class ScriptedProvider:
    """Answers as its fields say; `requests`: the paths that were asked for, `forms`: what came to the token endpoint.

    `claims` and `header` change the next ID tokens (None leaves a claim out); `answers` replace whole answers by path.
    """

    issuer: str
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    key: Key = field(default_factory=lambda: SIGNING_KEY)
    published: list[Key] = field(default_factory=lambda: [SIGNING_KEY])
    answers: dict[str, Callable[[], Response]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    nonce: str = ""
    clock: ManualClock = field(default_factory=ManualClock)

    def document(self) -> dict[str, Any]:
        """Its metadata."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            **self.metadata,
        }

    def id_claims(self) -> dict[str, Any]:
        """What the next ID token holds."""
        now = int(self.clock.now())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "sub": "u-1", "iat": now, "exp": now + 300, "nonce": self.nonce,
            "preferred_username": "anna", "groups": ["staff", "ops"], **self.claims,
        }  # fmt: skip
        return {name: value for name, value in claims.items() if value is not None}

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.requests.append(path)
        if path in self.answers:
            return self.answers[path]()
        if path == WELL_KNOWN:
            return JSONResponse(self.document())
        if path == "/jwks":
            return JSONResponse({"keys": [key.as_dict(private=False) for key in self.published]})
        self.forms.append(dict(parse_qsl((await request.body()).decode())))
        return JSONResponse({"access_token": "at", "id_token": signed(self.id_claims(), self.key, **self.header)})


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[ScriptedProvider]:
    """A provider that a test decides about."""
    served = ScriptedProvider("")
    app = Starlette(routes=[Route("/{path:path}", served.answer, methods=["GET", "POST"])])
    async with running_listener(ConnectionLimits(64, 64), app) as listener:
        served.issuer = f"http://127.0.0.1:{listener.port}"
        yield served


@contextlib.asynccontextmanager
async def scripted_provider(**options: Any) -> AsyncIterator[tuple[ScriptedProvider, OidcProvider]]:
    """As `serving`, and the port to it; `options` are those of `OidcOptions`."""
    async with serving() as served:
        made = OidcOptions(served.issuer, CLIENT, SECRET, CALLBACK, **options)
        yield served, OidcProvider(made, ssl.create_default_context(), served.clock)


@contextlib.contextmanager
def real_provider(people: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Runs oidc-provider-mock; `people`: claims by subject. Yields its issuer."""
    with warnings.catch_warnings(record=True):  # of what its libraries will drop some day
        warnings.simplefilter("ignore")
        from oidc_provider_mock import User, run_server_in_thread

        users = [User(sub=subject, claims=claims) for subject, claims in people.items()]
        with run_server_in_thread(user_claims=users) as server:
            yield f"http://localhost:{server.server_port}"


async def authorize(url: str, subject: str) -> dict[str, str]:
    """Signs in at oidc-provider-mock as a browser does; returns what it sends back in the query of the callback."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.post(url, data={"sub": subject})
    assert answer.status_code in {302, 303}, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
