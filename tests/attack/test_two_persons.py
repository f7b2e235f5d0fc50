"""A stolen token that plays the second person, outlives its theft, or locks the owner out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.guards.guards import FleetGuards, ProtectionRules
from controller.domain.principal import KINSHIP, MAX_GENERATIONS, MakingRecord, Principal, account_key
from controller.domain.scopes import ALL
from controller.ports.store import ApiToken
from controller.service.accounts.operations import Administrator, TooManyGenerationsError
from controller.service.approvals import book
from controller.service.containment.operator_actions import OperatorLimits
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.persons import account_of, put_holder

BASE = "/api/v1"
FLEET = tuple(f"edge-{number}" for number in range(1, 6))
GUARDS = FleetGuards(protection=ProtectionRules(tags=frozenset({"life-support"})))
WHY = {"reason": "because"}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Api]:
    """Five devices, of which one person contains two."""
    async with open_api(tmp_path / "c.db", guards=GUARDS, by_hand=OperatorLimits(2, 3600.0, 7200.0)) as made:
        for device in FLEET:
            await made.report(device)
        yield made


async def _as(api: Api, secret: str, method: str, path: str, body: Any = None) -> Any:
    """Status and JSON of a request with this token; with none, that of the fixture."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else None
    response = await api.client.request(method, BASE + path, json=body, headers=headers)
    return response.status_code, response.json() if response.content else None


async def _make(api: Api, name: str, by: str = "", *scopes: str, lasting: str | None = None) -> str:
    body = {"name": name, "scopes": list(scopes) or ["contain", "read", "admin"], "for": lasting}
    status, answer = await _as(api, by, "POST", "/tokens", body)
    assert status == 201, answer
    return str(answer["token"])


async def _person(api: Api, name: str, makers: tuple[MakingRecord, ...] = ()) -> str:
    """The token of somebody with an account of their own; `makers` of the account."""
    token = ApiToken(name, digest_of(f"cordon_{name}"), 0.0, ALL)
    await put_holder(api.harness.store, token, makers=makers)
    return f"cordon_{name}"


async def _request(api: Api, secret: str = "", **more: Any) -> str:
    body = {"devices": list(FLEET[:3]), "level": "isolated", **WHY, **more}
    status, answer = await _as(api, secret, "PUT", "/quarantine", body)
    assert status == 202, answer
    return str(answer["request"]["request_id"])


async def _approve(api: Api, secret: str, request: str) -> tuple[int, str]:
    status, answer = await _as(api, secret, "POST", f"/approvals/{request}/approve")
    return status, answer["error"]["message"] if status != 200 else ""


def _levels(api: Api) -> set[str]:
    return {api.harness.level(device).value for device in FLEET}


async def test_a_token_made_by_the_thief_is_no_second_person(fleet: Api) -> None:
    request = await _request(fleet)
    colleague = await _make(fleet, "colleague", "", "contain", "read")
    status, text = await _approve(fleet, colleague, request)
    assert status == 409
    assert "your own" in text
    assert _levels(fleet) == {"none"}


async def test_neither_is_a_grandchild_a_sibling_or_the_maker_itself(fleet: Api) -> None:
    child = await _make(fleet, "child")
    grandchild = await _make(fleet, "grandchild", child)
    sibling = await _make(fleet, "sibling")
    request = await _request(fleet, grandchild)
    for secret in ("", child, sibling):
        assert (await _approve(fleet, secret, request))[0] == 409
    await _as(fleet, "", "DELETE", "/tokens/child")
    for secret in ("", sibling):
        status, text = await _approve(fleet, secret, request)
        assert (status, "your own" in text) == (409, True), "all of them are of one account"
    assert _levels(fleet) == {"none"}


async def test_an_account_made_by_the_thief_is_no_second_person_for_a_day(fleet: Api) -> None:
    maker = MakingRecord(account_of("tests").key, "tests", fleet.harness.clock.at)
    made = await _person(fleet, "made", (maker,))
    sibling = await _person(fleet, "sibling", (maker,))
    request = await _request(fleet, made)
    for secret in ("", sibling):
        status, text = await _approve(fleet, secret, request)
        assert (status, "one person" in text) == (409, True)
    fleet.harness.clock.at += KINSHIP - 1.0
    assert (await _approve(fleet, "", await _request(fleet, made, level="restricted")))[0] == 409
    assert _levels(fleet) == {"none"}


async def test_tokens_without_owner_are_one_person(fleet: Api) -> None:
    for name in ("old", "older"):
        token = ApiToken(name, digest_of(f"cordon_{name}"), 0.0, ALL)
        await fleet.harness.store.put_token(token)
    request = await _request(fleet, "cordon_old")
    status, text = await _approve(fleet, "cordon_older", request)
    assert (status, "your own" in text) == (409, True)
    alone = {"devices": list(FLEET[:2]), "level": "restricted", **WHY}
    assert (await _as(fleet, "cordon_old", "PUT", "/quarantine", alone))[0] == 200
    more = {"devices": [FLEET[3]], "level": "restricted", **WHY}
    assert (await _as(fleet, "cordon_older", "PUT", "/quarantine", more))[0] == 202, "and have one allowance"
    status, answer = await _as(fleet, "cordon_old", "POST", "/tokens", {"name": "new"})
    assert (status, answer["error"]["code"]) == (409, "owner_needed"), "no more of them are made"


async def test_after_a_day_colleagues_are_two_persons(fleet: Api) -> None:
    colleague = await _person(
        fleet, "colleague", (MakingRecord(account_of("tests").key, "tests", fleet.harness.clock.at),)
    )
    fleet.harness.clock.at += KINSHIP
    request = await _request(fleet)
    assert (await _approve(fleet, colleague, request))[0] == 200
    assert _levels(fleet) == {"isolated", "none"}


async def test_a_fresh_token_has_no_fresh_allowance(fleet: Api) -> None:
    alone = {"devices": list(FLEET[:2]), "level": "restricted", **WHY}
    assert (await _as(fleet, "", "PUT", "/quarantine", alone))[0] == 200
    for name in ("p1", "p2"):
        secret = await _make(fleet, name)
        more = {"devices": [FLEET[3]], "level": "restricted", **WHY}
        assert (await _as(fleet, secret, "PUT", "/quarantine", more))[0] == 202, "it counts with its maker"


async def test_a_rollout_is_not_approved_by_a_token_of_its_starter(fleet: Api) -> None:
    secret = await _make(fleet, "colleague", "", "rollout", "read")
    body = {"target": "app/2.0", "rings": [{"name": "all", "select": "rest"}], **WHY}
    status, made = await _as(fleet, "", "POST", "/rollouts", body)
    assert status == 201, made
    status, answer = await _as(fleet, secret, "POST", f"/rollouts/{made['rollout_id']}/approve")
    assert status == 409
    assert "second person" in answer["error"]["message"]


def test_generations_are_bounded_so_that_no_link_is_lost() -> None:
    person = Principal(account_key("first"), "first")
    for number in range(MAX_GENERATIONS):
        person = Principal(account_key(str(number)), str(number), Administrator(person).makers(NOW))
    with pytest.raises(TooManyGenerationsError):
        Administrator(person).makers(NOW)


async def test_nobody_acts_in_the_name_of_a_revoked_token(fleet: Api) -> None:
    await _make(fleet, "ada")
    assert (await _as(fleet, "", "DELETE", "/tokens/ada"))[0] == 204
    status, answer = await _as(fleet, "", "POST", "/tokens", {"name": "ada", "scopes": ["read"]})
    assert (status, answer["error"]["code"]) == (409, "token_name_used")
    await _make(fleet, "ada-2")


@pytest.mark.parametrize("name", ["machine", "MACHINE", "init"])
async def test_no_token_acts_in_the_name_of_the_machine(fleet: Api, name: str) -> None:
    status, answer = await _as(fleet, "", "POST", "/tokens", {"name": name, "scopes": ["read"]})
    assert (status, answer["error"]["code"]) == (409, "token_name_used")


@pytest.mark.parametrize("name", [".", ".."])
async def test_a_token_has_a_name_by_which_it_can_be_revoked(fleet: Api, name: str) -> None:
    assert (await _as(fleet, "", "POST", "/tokens", {"name": name, "scopes": ["read"]}))[0] == 422


async def test_one_person_leaves_places_for_the_requests_of_others(fleet: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_REQUESTS_OF_ONE", 3)
    monkeypatch.setattr(book, "MAX_REQUESTS", 4)
    thief, colleague = await _make(fleet, "thief", lasting="1h"), await _person(fleet, "colleague")
    first = await _request(fleet, thief)
    assert await _request(fleet, thief, reason="again") == first, "the same once more is no second request"
    child = await _make(fleet, "child", thief)
    asked = ((thief, {"for": "1h"}), (child, {"level": "restricted"}))
    others = {await _request(fleet, who, **more) for who, more in asked}
    assert len(others | {first}) == 3
    body = {"devices": list(FLEET), "level": "isolated", **WHY}
    for secret in (thief, child):
        status, answer = await _as(fleet, secret, "PUT", "/quarantine", body)
        assert (status, answer["error"]["code"]) == (409, "too_many_requests")
        assert "requests of yours" in answer["error"]["message"]
    await _request(fleet, colleague)
    recorded = await fleet.harness.store.audit(kind=AuditKind.APPROVAL_REQUESTED)
    assert len(recorded) == 4


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_a_request_ends_with_its_token(fleet: Api, how: str) -> None:
    thief, colleague = await _make(fleet, "thief", lasting="1h"), await _person(fleet, "colleague")
    request = await _request(fleet, thief)
    if how == "expired":
        fleet.harness.clock.at += 3600.0
    else:
        assert (await _as(fleet, "", "DELETE", "/tokens/thief"))[0] == 204
    status, text = await _approve(fleet, colleague, request)
    assert status == 409
    assert "ended" in text or "expired" in text
    await fleet.services.approvals.book.expire()
    assert (await _as(fleet, "", "GET", f"/approvals/{request}"))[1]["state"] == "expired"
    assert _levels(fleet) == {"none"}


@pytest.mark.parametrize("meant", [False, True])
async def test_protection_is_checked_again_at_approval(fleet: Api, meant: bool) -> None:
    colleague = await _person(fleet, "colleague")
    request = await _request(fleet, even_protected=meant)
    status, _ = await _as(fleet, "", "PUT", "/devices/edge-1/labels", {"tags": ["life-support"]})
    assert status == 200
    status, _ = await _approve(fleet, colleague, request)
    assert (status, _levels(fleet)) == ((200, {"isolated", "none"}) if meant else (409, {"none"}))


@pytest.mark.parametrize("meant", [False, True])
async def test_sessions_of_a_user_are_checked_at_approval(fleet: Api, meant: bool) -> None:
    """Finding: a protected device that came after the request was cut though nobody meant protected ones."""
    colleague = await _person(fleet, "colleague")
    fleet.users.live["lab"] = ["a", "b", "c"]
    body = {"username": "lab", "level": "isolated", "even_protected": meant, **WHY}
    status, asked = await _as(fleet, "", "POST", "/users/contain", body)
    assert status == 202, asked
    assert (await _as(fleet, "", "PUT", "/devices/edge-1/labels", {"tags": ["life-support"]}))[0] == 200
    fleet.users.live["lab"] = ["a", "b", "c", "edge-1"]
    status, _ = await _approve(fleet, colleague, asked["request"]["request_id"])
    assert (status, set(fleet.services.containment.users.cases)) == ((200, {"lab"}) if meant else (409, set()))


async def test_the_last_two_administrators_at_one_moment(fleet: Api) -> None:
    other = await _make(fleet, "other")
    answers = await asyncio.gather(
        _as(fleet, "", "DELETE", "/tokens/other"), _as(fleet, other, "DELETE", "/tokens/tests")
    )
    assert sorted(status for status, _ in answers) == [204, 409]
    assert len(await fleet.harness.store.tokens()) == 1


async def test_twenty_creations_of_one_name(fleet: Api) -> None:
    body = {"name": "dup", "scopes": ["read"]}
    answers = await asyncio.gather(*(_as(fleet, "", "POST", "/tokens", body) for _ in range(20)))
    made = [answer["token"] for status, answer in answers if status == 201]
    assert len(made) == 1
    assert (await _as(fleet, made[0], "GET", "/devices"))[0] == 200
    assert [status for status, _ in answers].count(409) == 19
    kinds = [one.entry.kind for one in await fleet.harness.store.audit()]
    assert kinds.count(AuditKind.TOKEN_CREATED) == 1, "what was refused is not in the audit as made"


async def test_a_token_that_is_revoked_makes_no_other_at_that_moment(fleet: Api) -> None:
    thief = await _make(fleet, "thief")
    body = {"name": "heir", "scopes": ["admin"]}
    (gone, _), (made, _) = await asyncio.gather(
        _as(fleet, "", "DELETE", "/tokens/thief"), _as(fleet, thief, "POST", "/tokens", body)
    )
    names = {one.name for one in await fleet.harness.store.tokens()}
    assert gone == 204
    assert (made == 201) is ("heir" in names)
    assert (await _as(fleet, thief, "POST", "/tokens", {**body, "name": "later"}))[0] == 401


async def test_the_bound_of_tokens_holds_at_one_moment(fleet: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.api.tokens.MAX_TOKENS", 5)
    answers = await asyncio.gather(*(_as(fleet, "", "POST", "/tokens", {"name": f"n{number}"}) for number in range(10)))
    assert sorted({status for status, _ in answers}) == [201, 409]
    assert len(await fleet.harness.store.tokens()) == 5


_AGES = st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0.0, 3 * KINSHIP)), max_size=4)
NOW = 10 * KINSHIP


@given(one=_AGES, other=_AGES)
def test_who_is_one_person_does_not_depend_on_who_asks(
    one: list[tuple[str, float]], other: list[tuple[str, float]]
) -> None:
    def principal(key: str, ages: list[tuple[str, float]]) -> Principal:
        links = sorted(ages, key=lambda link: link[1])
        makers = (MakingRecord(account_key(name), name, NOW - age) for name, age in links)
        return Principal(account_key(key), key, tuple(makers))

    first, second = principal("x", one), principal("y", other)
    assert first.is_same_person(first, NOW)
    assert first.is_same_person(second, NOW) is second.is_same_person(first, NOW)
    child = Principal(account_key("z"), "z", first.makers_of_new(NOW))
    assert child.is_same_person(first, NOW)
    assert not child.is_same_person(first, NOW + KINSHIP)
