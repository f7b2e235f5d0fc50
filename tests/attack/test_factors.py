"""Attacks on second factors: replays, passkeys of others, wrong origins, sessions before their factor."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from controller.api.session_cookie import COOKIE, CSRF_HEADER
from controller.domain.accounts.caller import STEP_UP
from controller.domain.accounts.secret_text import csrf_of
from controller.domain.audit_kinds import AuditKind
from controller.ports.store import StoreWrites
from controller.service.accounts.factor_attempts import FREE_FAILURES, GUESSING, MAX_WAIT
from controller.service.accounts.line_limit import MAX_LINES
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.authenticator import SoftAuthenticator
from tests.support.visitors import ORIGIN, App, Visitor, begin_session, signed_in

FACTOR = "/login/factor"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "cordon.db") as made:
        yield made


async def refusals(api: Api) -> list[str]:
    lines = await api.services.store.audit(kind=AuditKind.FACTOR_REFUSED)
    return [str((line.entry.detail or {})["reason"]) for line in lines]


async def use(person: Visitor, device: SoftAuthenticator, status: int) -> None:
    answer = device.use(await person.options(FACTOR))
    await person.post(FACTOR, status, answer=json.dumps(answer))


async def test_a_code_is_taken_once_also_in_another_session(api: Api) -> None:
    async with signed_in(api) as first:
        app = await first.register_app()
    async with signed_in(api) as one, signed_in(api) as other:
        await one.post(FACTOR, 401, code=app.code())  # it was used to register the app
        await one.post(FACTOR, 303, code=app.code(1))
        await other.post(FACTOR, 401, code=app.code(1))
        await other.post(FACTOR, 401, code=app.code())
    assert await refusals(api) == ["wrong, or used before"] * 3


async def test_a_recovery_code_is_taken_once_and_old_ones_end_with_new_ones(api: Api) -> None:
    async with signed_in(api) as first:
        codes = (await first.register_app()).recovery or []
    assert len(set(codes)) == 10
    async with signed_in(api) as one, signed_in(api) as other:
        await one.post(FACTOR, 303, recovery=codes[0].lower().replace("-", " "))
        await other.post(FACTOR, 401, recovery=codes[0])
        await one.post("/me/recovery-codes", 200)
        await other.post(FACTOR, 401, recovery=codes[1])
    alerts = await api.services.store.audit(kind=AuditKind.FACTOR_CODE_USED)
    assert [line.entry.alert for line in alerts] == [True]


async def test_a_recovery_code_of_another_account(api: Api) -> None:
    async with signed_in(api, "anna") as anna, signed_in(api, "eve") as eve:
        codes = (await anna.register_app()).recovery or []
        await eve.register_app()
    async with signed_in(api, "eve") as eve:
        await eve.post(FACTOR, 401, recovery=codes[0])
        assert (await eve.get("/me", 303)).headers["location"].startswith(FACTOR)


@pytest.mark.parametrize("wrong", [{"origin": "https://evil.example"}, {"rp_id": "evil.example"}, {"verifies": False}])
async def test_passkeys_with_a_wrong_origin_party_or_user(api: Api, wrong: dict[str, object]) -> None:
    device = SoftAuthenticator(ORIGIN)
    liar = replace(device, **wrong)  # type: ignore[arg-type]  # the fields of the case
    async with signed_in(api) as person:
        options = await person.options("/me/passkeys/new")
        await person.post("/me/passkeys/new", 409, answer=json.dumps(liar.register(options)))
        await person.register_passkey(device)
    async with signed_in(api) as person:
        await use(person, liar, 401)
        assert (await person.get("/me", 303)).headers["location"].startswith(FACTOR)
        await use(person, device, 303)
        await person.get("/me")


async def test_an_old_counter_is_refused_with_an_alert(api: Api) -> None:
    device = SoftAuthenticator(ORIGIN, sign_count=7)
    copy = replace(device)
    async with signed_in(api) as person:
        await person.register_passkey(device)
    async with signed_in(api) as person:
        await use(person, device, 303)
        await use(person, copy, 401)
    lines = await api.services.store.audit(kind=AuditKind.FACTOR_REFUSED)
    assert [line.entry.alert for line in lines] == [True]
    assert "counts 8, and counted 8 before" in (await refusals(api))[0]


async def test_the_challenge_of_another_session_and_an_answer_that_comes_twice(api: Api) -> None:
    device = SoftAuthenticator(ORIGIN, counts=False)
    async with signed_in(api) as person:
        await person.register_passkey(device)
    async with signed_in(api) as one, signed_in(api) as other:
        answer = json.dumps(device.use(await one.options(FACTOR)))
        await other.post(FACTOR, 401, answer=answer)  # it was asked for nothing
        await other.options(FACTOR)
        await other.post(FACTOR, 401, answer=answer)  # it was asked for something else
        await one.post(FACTOR, 303, answer=answer)
        await one.post(FACTOR, 401, answer=answer)
    assert sum("challenge" in reason for reason in await refusals(api)) == 1


async def test_the_passkey_of_another_account(api: Api) -> None:
    hers, his = SoftAuthenticator(ORIGIN, credential_id=b"hers"), SoftAuthenticator(ORIGIN, credential_id=b"his")
    async with signed_in(api, "anna") as anna, signed_in(api, "eve") as eve:
        await anna.register_passkey(hers)
        await eve.register_passkey(his)
        taken = replace(his, credential_id=b"hers")
        options = await eve.options("/me/passkeys/new")
        await eve.post("/me/passkeys/new", 409, answer=json.dumps(taken.register(options)))
    async with signed_in(api, "anna") as anna:
        await use(anna, his, 401)
        await use(anna, taken, 401)
        await use(anna, hers, 303)


async def test_the_secret_of_a_session_changes_with_its_factor(api: Api) -> None:
    """Whoever placed the secret in the browser of somebody else does not get further with it."""
    async with signed_in(api) as person, signed_in(api) as thief:
        planted = person.secret
        app = await person.register_app()
        assert person.secret != planted
        thief.client.cookies.set(COOKIE, planted, domain="localhost.local")
        assert (await thief.get("/me", 303)).headers["location"].startswith("/login?")
        before = person.secret
        api.harness.clock.at += STEP_UP
        await person.post(FACTOR, 303, code=app.code())
        assert person.secret != before
        thief.client.cookies.set(COOKIE, before, domain="localhost.local")
        assert (await thief.get("/me", 303)).headers["location"].startswith("/login?")


async def test_before_its_factor_a_session_does_nothing_else(api: Api) -> None:
    async with signed_in(api) as person:
        app = await person.register_app()
    async with signed_in(api) as person:
        response = await person.client.get("/api/v1/devices")
        assert (response.status_code, response.json()["error"]["code"]) == (403, "factor_needed")
        for path in ("/me/totp", "/me/recovery-codes", "/me/factors/totp/remove", "/me/sessions/a/end"):
            assert (await person.post(path, 303)).headers["location"].startswith(FACTOR)
        await person.post(FACTOR, 303, code=app.code(1))
        assert (await person.client.get("/api/v1/devices")).status_code == 200


async def test_factors_are_changed_only_after_a_fresh_one(api: Api) -> None:
    async with signed_in(api) as person:
        app = await person.register_app()
        api.harness.clock.at += STEP_UP
        for path in ("/me/totp", "/me/recovery-codes", "/me/factors/totp/remove"):
            assert (await person.post(path, 303)).headers["location"].startswith(FACTOR)
        assert (await person.get("/me/passkeys/new", 303)).headers["location"].startswith(FACTOR)
        await person.post(FACTOR, 303, code=app.code())
        await person.post("/me/totp", 200)


async def test_the_first_factor_is_registered_only_after_a_fresh_login(api: Api) -> None:
    async with signed_in(api) as person:
        api.harness.clock.at += STEP_UP
        assert "log out and in again" in (await person.post("/me/totp", 409)).text


async def test_after_the_first_administrator_everybody_needs_a_factor_and_for_good(api: Api) -> None:
    async with signed_in(api, "vera", "viewer") as vera:
        assert (await vera.client.get("/api/v1/devices")).status_code == 200
        async with signed_in(api, "anna") as anna:
            await anna.register_app()
            last = await anna.post("/me/factors/totp/remove", 409)
            assert "register another one first" in last.text
        response = await vera.client.get("/api/v1/devices")
        assert (response.status_code, response.json()["error"]["code"]) == (403, "factor_registration_needed")
        await api.services.accounts.factors.remove_totp("id-anna", StoreWrites())
        assert (await vera.client.get("/api/v1/devices")).status_code == 403
        await vera.register_app()
        assert (await vera.client.get("/api/v1/devices")).status_code == 200


async def test_guessing_of_codes_is_slowed_and_holds_up_no_passkey(api: Api) -> None:
    device = SoftAuthenticator(ORIGIN)
    async with signed_in(api) as person:
        app = await person.register_app()
        answer = device.register(await person.options("/me/passkeys/new"))
        await person.post("/me/passkeys/new", 303, name="a key", answer=json.dumps(answer))
    async with signed_in(api) as guesser, signed_in(api) as person:
        for _ in range(FREE_FAILURES + 1):
            await guesser.post(FACTOR, 401, code="000000")
        await guesser.post(FACTOR, 429, code="000000")
        await person.post(FACTOR, 429, code=app.code(1))
        await use(person, device, 303)
        api.harness.clock.at += MAX_WAIT
        await guesser.post(FACTOR, 303, code=app.code())


async def test_guesses_that_come_at_one_moment_are_slowed_too(api: Api) -> None:
    async with signed_in(api) as person:
        app = await person.register_app()
    async with signed_in(api) as guesser:

        async def guess(way: dict[str, str]) -> int:
            headers = {"Sec-Fetch-Site": "same-origin", CSRF_HEADER: csrf_of(guesser.secret)}
            response = await guesser.client.post("/api/v1/factors/give", json=way, headers=headers)
            return response.status_code

        for way in ({"code": "000000"}, {"recovery": "A" * 16}):
            found = Counter(await asyncio.gather(*(guess(way) for _ in range(40))))
            assert found == {403: FREE_FAILURES + 1, 429: 39 - FREE_FAILURES}, way
        api.harness.clock.at += MAX_WAIT
        await guesser.post(FACTOR, 303, code=app.code())
        async with signed_in(api) as person:
            for _ in range(FREE_FAILURES):  # what was right is forgotten as a failure
                await person.post(FACTOR, 401, code="000000")
            await person.post(FACTOR, 303, code=app.code(1))


async def test_a_session_that_has_ended_meanwhile_is_no_wrong_code(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async with signed_in(api) as person:
        app = await person.register_app()
    accounts = api.services.accounts.store
    for step in range(FREE_FAILURES + 8):  # more than 30 s would have to be waited by then
        api.harness.clock.at += 30
        async with signed_in(api) as person:
            with monkeypatch.context() as patched:
                patched.setattr(accounts, "add_session", AsyncMock(return_value=False))
                headers = {"Sec-Fetch-Site": "same-origin", CSRF_HEADER: csrf_of(person.secret)}
                answer = await person.client.post("/api/v1/factors/give", json={"code": app.code()}, headers=headers)
            assert answer.json()["error"]["code"] == "session_over", step


async def test_who_guesses_codes_is_told(api: Api) -> None:
    async with signed_in(api) as person:
        await person.register_app()
    async with signed_in(api) as guesser:
        for _ in range(GUESSING + 1):
            await guesser.post(FACTOR, 401, code="000000")
            api.harness.clock.at += MAX_WAIT
            if guesser.secret and await guesser.who() is None:
                guesser.client.cookies.set(COOKIE, await begin_session(api))
    (line,) = await api.services.store.audit(kind=AuditKind.ACCOUNT_GUESSING_DETECTED)
    assert line.entry.alert
    assert "somebody may know the password" in str(line.entry.detail)


@pytest.mark.parametrize("kind", ["totp", "passkey"])
async def test_of_two_first_factors_at_one_moment_one_is_registered(api: Api, kind: str) -> None:
    async with signed_in(api) as owner, signed_in(api) as thief:
        secret = (await owner.call("POST", "/factors/totp", 201))["secret"]
        path, site = "/api/v1/factors/totp/confirm", {"Sec-Fetch-Site": "same-origin"}
        headers = {**site, CSRF_HEADER: csrf_of(owner.secret)}
        own = owner.client.post(path, json={"code": App(api, secret).code()}, headers=headers)
        headers = {**site, CSRF_HEADER: csrf_of(thief.secret)}
        if kind == "totp":
            theirs = App(api, (await thief.call("POST", "/factors/totp", 201))["secret"]).code()
            other = thief.client.post(path, json={"code": theirs}, headers=headers)
        else:
            made = SoftAuthenticator(ORIGIN).register(await thief.options("/me/passkeys/new"))
            fields = {"name": "x", "answer": json.dumps(made), "csrf": csrf_of(thief.secret)}
            other = thief.client.post("/me/passkeys/new", data=fields, headers=site)
        found = await asyncio.gather(own, other)
        assert sorted(one.status_code for one in found) == [200, 409], [one.text for one in found]
        factors = await api.services.accounts.second_factors.factors_of("id-anna")
        assert (factors.totp is not None) + len(factors.passkeys) == 1


async def test_failures_do_not_fill_the_record(api: Api) -> None:
    async with signed_in(api) as person:
        await person.register_app()
    for _ in range(5):
        async with signed_in(api) as guesser:
            for _ in range(FREE_FAILURES):
                await guesser.post(FACTOR, 401, recovery="A" * 16)
    assert len(await refusals(api)) == MAX_LINES
