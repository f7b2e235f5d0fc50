"""Attacks on accounts: planted and ridden sessions, guesses, floods, tokens that outgrow or outlive their owner."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.password_hashing import MAX_WAITING, Argon2Hasher
from controller.api.session_cookie import COOKIE, CSRF_HEADER
from controller.api.tokens import MAX_OF_OWNER
from controller.domain.accounts.login_delay import FREE_OF_ADDRESS, MAX_ADDRESS_DELAY
from controller.domain.accounts.secret_text import csrf_of, digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import ALL
from controller.ports.store import ApiToken
from controller.service.accounts.line_limit import MAX_LINES
from controller.service.accounts.operations import AccountError, Administrator
from controller.service.accounts.sign_in import MAX_OF_ADDRESS, PasswordRefusedError, SignIn
from tests.support.api import HEADERS, Api
from tests.support.api import api as open_api
from tests.support.browser import PASSWORD, Browser, put_account, signed_in
from tests.support.persons import put_holder

WRONG = {"name": "ada", "password": "wrong horse battery"}
RIGHT = {"name": "ada", "password": PASSWORD}


@pytest.fixture
async def api(tmp_path: Path) -> Any:
    async with open_api(tmp_path / "c.db") as made:
        await put_account(made, "ada")
        yield made


def _sign_in(api: Api) -> SignIn:
    return api.services.accounts.sign_in


def _hasher(api: Api) -> Argon2Hasher:
    hasher = _sign_in(api)._hasher
    assert isinstance(hasher, Argon2Hasher)
    return hasher


@pytest.fixture
def waits(api: Api, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays that sign-ins are given, without waiting for them."""
    told: list[float] = []

    async def sleep(seconds: float) -> None:
        told.append(seconds)

    monkeypatch.setattr(_sign_in(api), "_sleep", sleep)
    return told


async def test_a_planted_session_is_not_the_one_that_signs_in(api: Api) -> None:
    planted = "planted-by-somebody-else"
    victim = Browser(api, secret=planted, csrf=csrf_of(planted))
    await victim.json("POST", "/sessions", 201, RIGHT)
    assert victim.secret != planted
    await Browser(api, secret=planted).json("GET", "/me", 401)
    mallory = await signed_in(api, "ada")
    before = mallory.secret
    await mallory.json("POST", "/sessions", 201, RIGHT)
    assert mallory.secret != before, "a sign-in over a session gives another secret too"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://cordon"},
        {"Sec-Fetch-Site": "", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "", "Origin": "https://cordon"},
        {"Sec-Fetch-Site": "", "Origin": "http://cordon:81"},
        {"Sec-Fetch-Site": "", "Origin": "null"},
        {"Sec-Fetch-Site": "", "Origin": ""},
        {CSRF_HEADER: ""},
        {CSRF_HEADER: "0" * 64},
    ],
)
async def test_a_page_of_others_changes_nothing(api: Api, headers: dict[str, str]) -> None:
    ada = await signed_in(api, "ada")
    body = {"devices": ["edge-1"], "level": "isolated", "reason": "x"}
    for method, path, content in (
        ("PUT", "/quarantine", body),
        ("POST", "/me/tokens", {"name": "bot"}),
        ("POST", "/accounts", {"name": "eve", "role": "admin"}),
        ("DELETE", "/sessions", None),
    ):
        answer = await ada.send(method, path, content, headers)
        assert answer.status_code == 403, (path, answer.text)
        assert answer.json()["error"]["code"] in ("cross_site_request", "csrf_token_wrong")
    assert len(await api.services.accounts.store.accounts()) == 2
    await ada.json("GET", "/me")


async def test_the_token_of_another_session_is_none(api: Api) -> None:
    ada, other = await signed_in(api, "ada"), await signed_in(api, "ada")
    assert (await ada.send("DELETE", "/sessions", headers={CSRF_HEADER: other.csrf})).status_code == 403


@pytest.mark.parametrize("secret", ["", "nobody"])
async def test_token_and_cookie_never_mix(api: Api, secret: str) -> None:
    ada = await signed_in(api, "ada")
    both = {**HEADERS, "Cookie": f"{COOKIE}={secret or ada.secret}"}
    for method, path in (("GET", "/devices"), ("PUT", "/quarantine"), ("GET", "/accounts")):
        answer = await ada.send(method, path, {} if method == "PUT" else None, both)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "two_credentials")
    answer = await Browser(api).send("POST", "/sessions", RIGHT, HEADERS)
    assert (answer.status_code, "set-cookie" in answer.headers) == (400, False)


async def test_no_token_touches_accounts(api: Api) -> None:
    for method, path in (
        ("GET", "/accounts"), ("POST", "/accounts"), ("POST", "/accounts/ada/disable"), ("GET", "/sessions"),
        ("PUT", "/accounts/ada/role"), ("POST", "/accounts/ada/setup-code"), ("DELETE", "/accounts/ada/factors"),
        ("GET", "/me"), ("PUT", "/me/password"), ("POST", "/me/tokens"), ("DELETE", "/sessions"),
    ):  # fmt: skip
        body = {"name": "x", "role": "admin", "current": "x", "password": "x"}
        answer = await api.client.request(method, f"/api/v1{path}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "session_only"), path


async def test_unknown_wrong_and_disabled_cost_the_same_and_say_the_same(api: Api, waits: list[float]) -> None:
    await put_account(api, "off", enabled=False)
    answers, costs = [], []
    for name in ("nobody", "ada", "off"):
        before = _hasher(api).made
        answer = await Browser(api).json("POST", "/sessions", 401, {**WRONG, "name": name})
        answers.append(answer)
        costs.append(_hasher(api).made - before)
    assert costs == [1, 1, 1]
    assert answers[0] == answers[1] == answers[2]
    assert waits == []
    assert (await Browser(api).json("POST", "/sessions", 401, {**RIGHT, "name": "off"})) == answers[0]


async def test_guesses_are_slowed_and_told_but_the_owner_gets_in(api: Api, waits: list[float]) -> None:
    await signed_in(api, "ada", address="198.51.100.1")
    for number in range(12):
        await Browser(api, f"203.0.113.{number}").json("POST", "/sessions", 401, WRONG)
    assert 0.0 < max(waits) <= MAX_ADDRESS_DELAY
    waits.clear()
    await signed_in(api, "ada", address="198.51.100.1")
    assert waits == [], "an address that is known is not slowed for what others do"
    for _ in range(FREE_OF_ADDRESS + 2):
        await Browser(api, "203.0.113.200").json("POST", "/sessions", 401, {**WRONG, "name": "nobody"})
    assert len(waits) == 2
    await signed_in(api, "ada", address="203.0.113.200")
    (line,) = await api.harness.store.audit(kind=AuditKind.ACCOUNT_GUESSING_DETECTED)
    assert line.entry.alert
    told = str([one.entry.detail for one in await api.harness.store.audit()])
    assert "nobody" not in told, "what a stranger writes is no part of the record"
    assert "horse" not in told


async def test_a_flood_of_sign_ins_is_refused_before_any_hash(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    hasher, held = _hasher(api), []
    submit = hasher._thread.submit

    def slow(work: Any, *rest: Any) -> Any:
        held.append(work)
        return submit(lambda: False)

    monkeypatch.setattr(hasher, "_leave", lambda: None)  # whoever took a place keeps it
    monkeypatch.setattr(hasher._thread, "submit", slow)
    answers = await asyncio.gather(
        *(Browser(api, f"203.0.113.{number}").send("POST", "/sessions", WRONG) for number in range(MAX_WAITING + 10))
    )
    codes = [answer.status_code for answer in answers]
    assert (codes.count(401), codes.count(429)) == (MAX_WAITING, 10)
    assert len(held) == MAX_WAITING, "nothing of what was refused reached the thread"
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
    assert (await api.client.get("/api/v1/devices")).status_code == 200, "tokens and sessions go on"


async def test_one_address_does_not_take_all_places(api: Api) -> None:
    answers = await asyncio.gather(*(Browser(api).send("POST", "/sessions", WRONG) for _ in range(MAX_OF_ADDRESS + 4)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(429) == 4
    assert _hasher(api).made == MAX_OF_ADDRESS


async def test_who_shares_an_address_with_a_guesser_gets_in(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await signed_in(api, "ada")
    goes_on, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def sleep(_seconds: float) -> None:
        waiting.release()
        await goes_on.wait()

    for _ in range(FREE_OF_ADDRESS):
        await Browser(api).json("POST", "/sessions", 401, {**WRONG, "name": "nobody"})
    monkeypatch.setattr(_sign_in(api), "_sleep", sleep)
    junk = {**WRONG, "name": "nobody"}
    async with asyncio.TaskGroup() as group:
        for _ in range(MAX_OF_ADDRESS):
            group.create_task(Browser(api).json("POST", "/sessions", 401, junk))
            await waiting.acquire()
        await Browser(api).json("POST", "/sessions", 429, {**WRONG, "name": "bob"})
        own = group.create_task(signed_in(api, "ada"))
        await waiting.acquire()  # it waits as long as its address has to, and is not refused
        goes_on.set()
    assert own.result().secret


async def test_who_signed_in_with_a_browser_waits_for_no_junk_under_their_name(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await signed_in(api, "ada")
    goes_on, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def sleep(_seconds: float) -> None:
        waiting.release()
        await goes_on.wait()

    for _ in range(FREE_OF_ADDRESS):
        await Browser(api).json("POST", "/sessions", 401, WRONG)
    monkeypatch.setattr(_sign_in(api), "_sleep", sleep)
    async with asyncio.TaskGroup() as group:
        for _ in range(MAX_OF_ADDRESS):
            group.create_task(Browser(api).json("POST", "/sessions", 401, WRONG))
            await waiting.acquire()
        await Browser(api).json("POST", "/sessions", 429, RIGHT)
        assert await Browser(api, mark=ada.mark).json("POST", "/sessions", 201, RIGHT), "at once"
        goes_on.set()


@pytest.mark.parametrize("failures", [1, 15])
async def test_unknown_and_known_names_write_as_many_lines(api: Api, waits: list[float], failures: int) -> None:
    lines = []
    for name in ("nobody", "ada"):
        before = len(await api.harness.store.audit(limit=500))
        for number in range(failures):
            await Browser(api, f"203.0.113.{number}").json("POST", "/sessions", 401, {**WRONG, "name": name})
        lines.append(len(await api.harness.store.audit(limit=500)) - before)
    assert lines[0] == lines[1] > 0
    assert bool(waits) is (failures > 10)


async def test_a_person_who_signs_in_again_and_again_fills_no_record(api: Api) -> None:
    account = await api.services.accounts.store.account_named("ada")
    assert account is not None
    started = [await _sign_in(api).start(account, "192.0.2.9", "x") for _ in range(3 * MAX_LINES)]
    api.harness.clock.at += 60
    await _sign_in(api).start(account, "192.0.2.9", "x")
    lines = [one.entry.detail or {} for one in await api.harness.store.audit(kind=AuditKind.SESSION_STARTED)]
    assert len(lines) == MAX_LINES + 1
    assert lines[0]["more_since_the_last_line"] == len(started) - MAX_LINES
    assert lines[1]["further_ones_are_counted"] is True, "the record says that it is not complete"


async def test_a_token_never_outgrows_its_owner(api: Api) -> None:
    ada = await signed_in(api, "ada")
    token = (await ada.json("POST", "/me/tokens", 201, {"name": "bot", "scopes": ["read", "contain", "admin"]}))[
        "token"
    ]
    as_bot = {"Authorization": f"Bearer {token}"}
    assert (await api.client.get("/api/v1/tokens", headers=as_bot)).status_code == 200
    await put_account(api, "root")
    root = await signed_in(api, "root")
    await root.json("PUT", "/accounts/ada/role", 200, {"role": "viewer"})
    assert (await api.client.get("/api/v1/devices", headers=as_bot)).status_code == 200
    for method, path, body in (
        ("GET", "/tokens", None),
        ("POST", "/tokens", {"name": "heir", "scopes": ["read"]}),
        ("PUT", "/quarantine", {"devices": ["edge-1"], "level": "isolated", "reason": "x"}),
    ):
        answer = await api.client.request(method, f"/api/v1{path}", json=body, headers=as_bot)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_missing")


async def test_who_is_disabled_is_refused_at_once_and_asks_for_nothing_any_more(api: Api) -> None:
    await put_holder(api.harness.store, ApiToken("old", digest_of("cordon_old"), 0.0, ALL))
    ada = await signed_in(api, "ada")
    made = await ada.json("POST", "/me/tokens", 201, {"name": "bot", "scopes": ["read", "contain"]})
    as_bot = {"Authorization": f"Bearer {made['token']}"}
    operators = api.services.containment.operators
    operators.limits = type(operators.limits)(1, 3600.0, 7200.0)
    for device in ("edge-1", "edge-2"):
        await api.report(device)
    body = {"devices": ["edge-1", "edge-2"], "level": "isolated", "reason": "x"}
    asked = await ada.json("PUT", "/quarantine", 202, body)
    by_token = await api.client.put("/api/v1/quarantine", json={**body, "level": "restricted"}, headers=as_bot)
    assert by_token.status_code == 202
    await put_account(api, "root")
    root = await signed_in(api, "root")
    await root.json("POST", "/accounts/ada/disable")
    await ada.json("GET", "/me", 401)
    assert (await api.client.get("/api/v1/devices", headers=as_bot)).json()["error"]["code"] == "token_expired"
    assert api.services.approvals.book.open == ()
    lines = await api.harness.store.audit(kind=AuditKind.APPROVAL_EXPIRED)
    assert len(lines) == 2
    ended = await api.services.approvals.book.find(asked["request"]["request_id"])
    assert ended is not None
    assert ended.state.value == "expired"


async def test_the_maker_of_an_account_is_no_second_person(api: Api) -> None:
    ada = await signed_in(api, "ada")
    operators = api.services.containment.operators
    operators.limits = type(operators.limits)(1, 3600.0, 7200.0)
    for device in ("edge-1", "edge-2"):
        await api.report(device)
    body = {"devices": ["edge-1", "edge-2"], "level": "isolated", "reason": "x"}
    request = (await ada.json("PUT", "/quarantine", 202, body))["request"]["request_id"]
    made = await ada.json("POST", "/accounts", 201, {"name": "eve", "role": "admin"})
    eve = Browser(api, "192.0.2.10")
    await eve.json("POST", "/sessions/setup", 201, {"code": made["setup_code"], "password": PASSWORD})
    await eve.give_factor()
    assert (await eve.json("POST", f"/approvals/{request}/approve", 409))["error"]
    await put_account(api, "bob")
    taken = await ada.json("POST", "/accounts/bob/setup-code", 201)
    bob = Browser(api, "192.0.2.11")
    await bob.json("POST", "/sessions/setup", 201, {"code": taken["setup_code"], "password": PASSWORD})
    await bob.give_factor()
    assert (await bob.json("POST", f"/approvals/{request}/approve", 409))["error"], "nor one that was taken over"
    await put_account(api, "carl")
    reset = await ada.json("DELETE", "/accounts/carl/factors", 200)
    carl = Browser(api, "192.0.2.12")
    await carl.json("POST", "/sessions/setup", 201, {"code": reset["setup_code"], "password": PASSWORD})
    await carl.give_factor()
    assert (await carl.json("POST", f"/approvals/{request}/approve", 409))["error"], "nor one whose factors are new"


@pytest.mark.parametrize(("method", "what"), [("POST", "setup-code"), ("DELETE", "factors")])
async def test_nobody_takes_over_an_account_that_may_do_more(tmp_path: Path, method: str, what: str) -> None:
    async with open_api(tmp_path / "cordon.db", accounts={"roles": {"helpdesk": ["read", "admin"]}}) as api:
        await put_account(api, "helper", "helpdesk")
        helper = await signed_in(api, "helper")
        await put_account(api, "boss", "admin")
        await put_account(api, "vera", "viewer")
        refused = await helper.json(method, f"/accounts/boss/{what}", 403)
        assert refused["error"]["code"] == "scope_missing"
        answer = await helper.send(method, f"/accounts/vera/{what}")
        assert answer.status_code in (200, 201), answer.text


async def test_nobody_takes_all_places_for_tokens(api: Api) -> None:
    ada = await signed_in(api, "ada")
    for number in range(MAX_OF_OWNER):
        await ada.json("POST", "/me/tokens", 201, {"name": f"bot-{number}"})
    refused = await ada.json("POST", "/me/tokens", 409, {"name": "one-more"})
    assert refused["error"]["code"] == "too_many_tokens"
    await put_account(api, "bob")
    bob = await signed_in(api, "bob")
    await bob.json("POST", "/me/tokens", 201, {"name": "one-more"})


async def test_no_token_is_called_like_a_colleague(api: Api) -> None:
    await put_account(api, "bill")
    ada = await signed_in(api, "ada")
    for name, status in (("bill", 409), ("Bi11", 409), ("ada", 201)):
        await ada.json("POST", "/me/tokens", status, {"name": name})


async def test_a_reset_leaves_nothing_to_who_has_the_password(api: Api) -> None:
    thief = await signed_in(api, "ada")
    await put_account(api, "root")
    root = await signed_in(api, "root")
    old = (await root.json("POST", "/accounts/ada/setup-code", 201))["setup_code"]
    reset = await root.json("DELETE", "/accounts/ada/factors", 200)
    await thief.json("GET", "/me", 401)
    await Browser(api).json("POST", "/sessions", 401, RIGHT)
    await Browser(api).json("POST", "/sessions/setup", 401, {"code": old, "password": PASSWORD})
    await Browser(api).json("POST", "/sessions/setup", 201, {"code": reset["setup_code"], "password": PASSWORD})
    await root.json("POST", "/accounts/ada/disable")
    assert (await root.json("POST", "/accounts/ada/setup-code", 409))["error"]["code"] == "account_disabled"
    assert (await root.json("DELETE", "/accounts/ada/factors", 200))["setup_code"] is None, "it could not be used"


async def test_what_was_begun_with_the_old_password_ends_with_it(api: Api) -> None:
    accounts, clock = api.services.accounts, api.harness.clock
    thief, second = [await accounts.sign_in.check("ada", PASSWORD, f"192.0.2.{n}") for n in (1, 2)]
    phc = await accounts.sign_in.new_hash("another long password", "ada")
    clock.at += 1
    owner = Administrator(thief.in_session)
    await accounts.operations.set_password(thief, phc, owner, clock.now(), after=thief.password_at)
    with pytest.raises(PasswordRefusedError):
        await accounts.sign_in.start(thief, "192.0.2.1", "x")
    with pytest.raises(AccountError, match="meanwhile"):
        await accounts.operations.set_password(second, phc, owner, clock.now(), after=second.password_at)
    assert await accounts.store.sessions(thief.account_id) == []
