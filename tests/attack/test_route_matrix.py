"""Every route with every kind of caller: what it answers follows from what it declares, and from nothing else.

The answers are derived from the checks of each route, so that a new route is in the matrix from its first day, and a
new kind of check fails here until it is said what it means.
"""

import dataclasses
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from fastapi.dependencies.models import Dependant

from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.factors import SqlFactors
from controller.api import auth
from controller.api.auth import FailedAttempts, PublicRoute, RequiresScope, presented_caller
from controller.api.session_cookie import COOKIE, CSRF_HEADER, SAFE_METHODS
from controller.console.routing import HOME, RequiresPerson
from controller.domain.accounts.account import Account
from controller.domain.accounts.caller import STEP_UP
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.roles import BUILT_IN, Roles
from controller.domain.accounts.secret_text import csrf_of, digest_of
from controller.domain.accounts.session import IDLE, Session
from controller.domain.scopes import ALL, Scope
from controller.ports.store import ApiToken, StoreWrites
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.api_routes import routes
from tests.support.persons import account_of

# What a route says that turns a caller away, before it looks at what is asked of it.
REFUSALS: Final = {
    "token_missing": 401, "token_invalid": 401, "token_expired": 401, "account_disabled": 401, "session_over": 401,
    "two_credentials": 400, "scope_missing": 403, "session_only": 403, "step_up_needed": 403,
    "csrf_token_wrong": 403, "cross_site_request": 403,
}  # fmt: skip
PASSED: Final = ""  # the route itself answers
# What routes answer themselves although it looks like a refusal.
OWN_ANSWERS: Final = {
    ("POST", "/api/v1/factors/give", 403): "no second factor was given in the body",
    ("POST", "/login/factor", 401): "none was given in the form",
}
# Routes that ask for a fresh factor by themselves, because every session may call them.
ALSO_STEP_UP: Final = frozenset({("POST", "/api/v1/me/tokens")})
HERE: Final = {"Sec-Fetch-Site": "same-origin"}
FILLED: Final = {"device_id": "absent", "command_id": "absent", "name": "absent", "issuer": "0" * 40}


@dataclass(frozen=True, slots=True)
class Declared:
    """What a route says of who may call it."""

    scope: Scope | None = None
    session_only: bool = False
    step_up: bool = False
    is_public: bool = False
    sees_caller: bool = True  # a public route that ignores credentials does not refuse wrong ones


@dataclass(frozen=True, slots=True)
class Caller:
    """A kind of caller: `wrong` refuses it at every route, `unsafe` where something is changed."""

    name: str
    scopes: frozenset[Scope] = frozenset()
    is_session: bool = False
    is_fresh: bool = False
    wrong: str = ""
    unsafe: str = ""

    def expected(self, declared: Declared, method: str) -> str:
        """The code of the refusal, or `PASSED`."""
        if declared.is_public and not declared.sees_caller:
            return PASSED
        if self.wrong and not (declared.is_public and self.wrong == "token_missing"):
            return self.wrong
        if self.unsafe and method not in SAFE_METHODS:
            return self.unsafe
        if declared.is_public:
            return PASSED
        if declared.session_only and not self.is_session:
            return "session_only"
        if declared.scope is not None and declared.scope not in self.scopes:
            return "scope_missing"
        if declared.step_up and self.is_session and not self.is_fresh:
            return "step_up_needed"
        return PASSED


EVERYTHING: Final = frozenset(ALL)
CALLERS: Final = (
    Caller("no one", wrong="token_missing"),
    *(Caller(role, frozenset(scopes), is_session=True, is_fresh=True) for role, scopes in BUILT_IN.items()),
    Caller("custom role", frozenset({Scope.READ, Scope.ROLLOUT}), is_session=True, is_fresh=True),
    Caller("removed role", is_session=True, is_fresh=True),
    Caller("unknown session", wrong="session_over"),
    Caller("idle session", wrong="session_over"),
    Caller("session of a disabled account", wrong="session_over"),
    Caller("expired step-up", EVERYTHING, is_session=True),
    Caller("no factor", EVERYTHING, is_session=True),
    Caller("another session's token", EVERYTHING, is_session=True, is_fresh=True, unsafe="csrf_token_wrong"),
    Caller("another site", EVERYTHING, is_session=True, is_fresh=True, unsafe="cross_site_request"),
    Caller("no word of the browser", EVERYTHING, is_session=True, is_fresh=True, unsafe="cross_site_request"),
    Caller("own token", EVERYTHING),
    Caller("token without owner", EVERYTHING),
    Caller("token of a viewer", frozenset({Scope.READ})),
    Caller("token that lacks the owner's scopes", frozenset({Scope.AUDIT})),
    Caller("token of a disabled account", wrong="account_disabled"),
    Caller("expired token", wrong="token_expired"),
    Caller("unknown token", wrong="token_invalid"),
    Caller("token and cookie", wrong="two_credentials"),
)

NOT_FROM_A_PAGE: Final = frozenset(
    {
        "no one", "own token", "token without owner", "token of a viewer", "token that lacks the owner's scopes",
        "token of a disabled account", "expired token", "unknown token",
    }
)  # fmt: skip
QUICK: Final = frozenset({"no one", "expired step-up", "another session's token"})


def _declared(dependant: Dependant) -> Declared:
    """Reads the checks of a route; one that this does not know is an error."""
    found = [one for one in _calls(dependant) if type(one).__module__ == auth.__name__]
    sees_caller = any(one is presented_caller for one in _calls(dependant))
    declared = Declared(sees_caller=sees_caller)
    for check in found:
        if isinstance(check, PublicRoute):
            declared = replace(declared, is_public=True)
        elif isinstance(check, RequiresScope):
            step_up = bool(getattr(check, "step_up", False))
            session_only = declared.session_only or check.session_only
            declared = replace(declared, scope=check.scope, session_only=session_only, step_up=step_up)
        else:
            assert type(check).__name__ in {"RequiresSession", "RequiresLogin"}, f"say what {check!r} means"
            declared = replace(declared, session_only=True, step_up=bool(getattr(check, "step_up", False)))
    assert found, "declares nothing"
    return declared


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for one in dependant.dependencies:
        yield from _calls(one)


@dataclass(slots=True)
class Cast:
    """All callers over one API, with a session that is there again for each request."""

    api: Api
    tokens: dict[str, str] = dataclasses.field(default_factory=dict)
    made: int = 0

    async def prepare(self) -> None:
        """Adds the accounts, and the tokens that they hold."""
        for role in (*BUILT_IN, "custom", "removed"):
            await self._add(account_of(f"a-{role}", role))
        await self._add(replace(account_of("a-disabled"), enabled=False))
        now = self.api.harness.clock.at
        for name, owner, scopes, expires_at in (
            ("own token", "a-admin", ALL, None),
            ("token without owner", "", ALL, None),
            ("token of a viewer", "a-viewer", ALL, None),
            ("token that lacks the owner's scopes", "a-admin", (Scope.AUDIT,), None),
            ("token of a disabled account", "a-disabled", ALL, None),
            ("expired token", "a-admin", ALL, now - 1),
            ("token and cookie", "a-admin", ALL, None),
        ):
            secret = f"cordon_{name.replace(' ', '-')}"
            self.tokens[name] = secret
            account = account_of(owner).account_id if owner else ""
            token = ApiToken(name.replace(" ", "-"), digest_of(secret), 0.0, scopes, expires_at, owner=account)
            await self.api.harness.store.put_token(token)

    async def _add(self, account: Account) -> None:
        await SqlAccounts(self.api.harness.store).add_account(account, StoreWrites())

    async def headers(self, caller: Caller) -> dict[str, str]:
        """What a caller sends; a session is made anew, because the request before may have ended it."""
        name = caller.name
        if name == "no one":
            return {"Authorization": ""}
        if name in self.tokens and name != "token and cookie":
            return {"Authorization": f"Bearer {self.tokens[name]}"}
        if name == "unknown token":
            return {"Authorization": "Bearer cordon_guessed"}
        secret = await self._session(name)
        sent = {"Cookie": f"{COOKIE}={secret}", CSRF_HEADER: csrf_of(secret), **HERE, "Authorization": ""}
        match name:
            case "token and cookie":
                sent["Authorization"] = f"Bearer {self.tokens[name]}"
            case "unknown session":
                sent["Cookie"] = f"{COOKIE}=guessed"
            case "another session's token":
                sent[CSRF_HEADER] = csrf_of(await self._session("viewer"))
            case "another site":
                sent["Sec-Fetch-Site"] = "same-site"
            case "no word of the browser":
                del sent["Sec-Fetch-Site"]
        return sent

    async def _session(self, name: str) -> str:
        self.made += 1
        now, secret = self.api.harness.clock.at, f"secret-{self.made}"
        role = name if name in BUILT_IN else {"custom role": "custom", "removed role": "removed"}.get(name, "admin")
        account = "a-disabled" if name == "session of a disabled account" else f"a-{role}"
        used = now - IDLE if name == "idle session" else now
        factor_at = {"expired step-up": now - STEP_UP, "no factor": 0.0}.get(name, now - 1)
        account_id = account_of(account).account_id
        session = Session(digest_of(secret), account_id, used, used, factor_at, "totp")
        sessions = SqlAccounts(self.api.harness.store)
        await sessions.end_sessions(account_id, StoreWrites())
        await sessions.add_session(session, StoreWrites())
        return secret

    async def answer(self, caller: Caller, method: str, path: str) -> httpx.Response:
        """What the caller is told; nobody runs out of attempts."""
        self.api.app.state.failures = FailedAttempts(self.api.harness.clock.monotonic)
        headers = {name: value for name, value in (await self.headers(caller)).items() if value}
        request = self.api.client.build_request(method, path, headers=headers, json={})
        if "Authorization" not in headers:
            del request.headers["Authorization"]
        return await self.api.client.send(request)

    async def page(self, caller: Caller, method: str, path: str) -> httpx.Response:
        """What the caller is shown; a form has the token that the header has elsewhere."""
        headers = {name: value for name, value in (await self.headers(caller)).items() if value}
        form = {"csrf": headers.pop(CSRF_HEADER, "")} if method not in SAFE_METHODS else None
        request = self.api.client.build_request(method, path, headers=headers, data=form)
        if "Authorization" not in headers:
            del request.headers["Authorization"]
        return await self.api.client.send(request)


@pytest.fixture
async def cast(tmp_path: Path) -> AsyncIterator[Cast]:
    async with open_api(tmp_path / "cordon.db") as api:
        api.services.authentication.roles = Roles({"custom": (Scope.READ, Scope.ROLLOUT)})
        cast = Cast(api)
        await cast.prepare()
        yield cast


def _is_page(path: str) -> bool:
    """Pages answer with redirects to the login: they have a matrix of their own."""
    return path.split("/")[1] in {"login", "logout", "setup", "me", "static", "sso"}


def _filled(path: str) -> str:
    parts = path.split("/")
    return "/".join(FILLED.get(part[1:-1], "absent") if part.startswith("{") else part for part in parts)


def _code(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return PASSED
    code = str(body.get("error", {}).get("code", "")) if isinstance(body, dict) else ""
    return code if code in REFUSALS else PASSED


every_caller = pytest.mark.parametrize(
    "caller",
    [
        pytest.param(caller, id=caller.name, marks=() if caller.name in QUICK else pytest.mark.slow)
        for caller in CALLERS
    ],
)


@every_caller
async def test_every_route_with_every_kind_of_caller(cast: Cast, caller: Caller) -> None:
    wrong: list[str] = []
    tried = 0
    for path, methods, dependant in routes(cast.api):
        if _is_page(path):
            continue
        declared = _declared(dependant)
        for method in sorted(methods):
            asks = declared.step_up or (method, path) in ALSO_STEP_UP
            expected = caller.expected(replace(declared, step_up=asks), method)
            response = await cast.answer(caller, method, _filled(path))
            code, status = _code(response), response.status_code
            tried += 1
            is_right = code == expected and (not code or status == REFUSALS[code])
            is_unclear = not code and status in (401, 403) and (method, path, status) not in OWN_ANSWERS
            if not is_right or is_unclear:
                wrong.append(f"{method} {path}: {status} {code or 'passed'}, expected {expected or 'passed'}")
    assert tried > 90
    assert wrong == []


def _gates(dependant: Dependant) -> frozenset[FactorGate] | None:
    """With which gates a session sees a page; None if nobody needs one."""
    found = [one for one in _calls(dependant) if isinstance(one, RequiresPerson)]
    return frozenset(found[0]._gates) if found else None


def _expected_page(caller: Caller, gates: frozenset[FactorGate] | None, method: str) -> str:
    """Where a page sends a caller, `refused`, or `PASSED`."""
    if gates is None:
        is_here = caller.name not in NOT_FROM_A_PAGE and caller.unsafe != "cross_site_request"
        return PASSED if is_here or method in SAFE_METHODS else "refused"
    if not caller.is_session:
        return "/login?return_to="
    if (FactorGate.REGISTER if caller.name == "no factor" else FactorGate.OPEN) not in gates:
        return HOME
    return "refused" if caller.unsafe and method not in SAFE_METHODS else PASSED


def _sent_to(response: httpx.Response) -> str:
    place = response.headers.get("location", "")
    if response.status_code in (401, 403):
        return "refused"
    return "/login?return_to=" if place.startswith("/login?return_to=") else PASSED


@every_caller
async def test_every_page_with_every_kind_of_caller(cast: Cast, caller: Caller) -> None:
    await SqlFactors(cast.api.harness.store).require()
    wrong: list[str] = []
    tried = 0
    for path, methods, dependant in routes(cast.api):
        if not _is_page(path):
            continue
        for method in sorted(methods):
            expected = _expected_page(caller, _gates(dependant), method)
            response = await cast.page(caller, method, _filled(path))
            tried += 1
            is_own = expected == PASSED and (method, path, response.status_code) in OWN_ANSWERS
            sent = PASSED if is_own else _sent_to(response)
            if expected == HOME:  # a session that has to register a factor first
                sent = response.headers.get("location", "")
            if sent != expected or response.status_code >= 500:
                wrong.append(f"{method} {path}: {response.status_code} {sent or 'passed'}, not {expected or 'passed'}")
    assert tried > 20
    assert wrong == []
