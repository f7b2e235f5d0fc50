"""One person who tries to be two: every way to approve what one has asked for oneself."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.accounts.secret_text import csrf_of, digest_of
from controller.domain.accounts.session import Session
from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import ALL, Scope
from controller.ports.store import ApiToken, StoreWrites
from controller.service.accounts.operations import AccountError, Administrator
from controller.service.containment.operator_actions import OperatorLimits
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.persons import account_of, put_holder

BASE = "/api/v1"
FLEET = tuple(f"edge-{number}" for number in range(1, 6))
WHY = {"reason": "because"}
LIMITS = OperatorLimits(2, 3600.0, 7200.0)
HOUR = 3600.0
SCOPES = {"scopes": ["contain", "command"], "for": "2h", **WHY}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Api]:
    """Five devices; `ada` and `bob` may everything, `eve` reads; each has a token and a session."""
    async with open_api(tmp_path / "c.db", by_hand=LIMITS) as made:
        for device in FLEET:
            await made.report(device)
        for name, role in (("ada", "admin"), ("bob", "admin"), ("eve", "viewer")):
            token = ApiToken(name, digest_of(f"cordon_{name}"), 0.0, ALL)
            await put_holder(made.harness.store, token, role)
            await sign_in(made, name)
        yield made


async def sign_in(api: Api, name: str) -> None:
    at = api.harness.clock.at
    session = Session(digest_of(f"session-{name}"), account_of(name).account_id, at, at, factor_at=at, factor="totp")
    await api.services.accounts.store.add_session(session, StoreWrites())


async def as_(api: Api, who: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer to a token's name, or to the session of `NAME@`."""
    if who.endswith("@"):
        secret = f"session-{who[:-1]}"
        headers = {"Cookie": f"__Host-cordon={secret}", "X-Cordon-CSRF": csrf_of(secret)}
        headers |= {"Sec-Fetch-Site": "same-origin", "Authorization": ""}
        request = api.client.build_request(method, BASE + path, json=body, headers=headers)
        del request.headers["authorization"]
        response = await api.client.send(request)
    else:
        headers = {"Authorization": f"Bearer cordon_{who}"}
        response = await api.client.request(method, BASE + path, json=body, headers=headers)
    return response.status_code, response.json() if response.content else None


async def asked(api: Api, who: str, **more: Any) -> str:
    """The request of somebody to isolate three devices."""
    status, answer = await as_(
        api, who, "PUT", "/quarantine", {"devices": FLEET[:3], "level": "isolated", **WHY, **more}
    )
    assert status == 202, answer
    return str(answer["request"]["request_id"])


async def approve(api: Api, who: str, request: str) -> tuple[int, str]:
    """Status of an approval, and what it says."""
    status, answer = await as_(api, who, "POST", f"/approvals/{request}/approve", {})
    return status, "" if status == 200 else answer["error"]["message"]


async def state(api: Api, request: str) -> str:
    return str((await as_(api, "bob", "GET", f"/approvals/{request}"))[1]["state"])


def levels(api: Api) -> set[str]:
    return {api.harness.level(device).value for device in FLEET}


async def lend(api: Api, who: str = "eve@", by: str = "bob", **more: Any) -> str:
    """Scopes for a while for `who`, which `by` gives."""
    status, answer = await as_(api, who, "POST", "/approvals", {**SCOPES, **more})
    assert status == 201, answer
    assert (await approve(api, by, answer["request_id"]))[0] == 200
    return str(answer["request_id"])


async def disable(api: Api, name: str, *, enabled: bool = False) -> None:
    account = await api.services.accounts.store.account(account_of(name).account_id)
    assert account is not None
    await api.services.accounts.operations.set_enabled(account, Administrator(), api.harness.clock.at, enabled=enabled)


@pytest.mark.parametrize(("asks", "approves"), [("ada", "ada@"), ("ada@", "ada"), ("ada", "ada"), ("ada", "second")])
async def test_whatever_the_credential_it_is_one_person(fleet: Api, asks: str, approves: str) -> None:
    second = ApiToken("second", digest_of("cordon_second"), 0.0, ALL, owner=account_of("ada").account_id)
    await fleet.harness.store.put_token(second)
    request = await asked(fleet, asks)
    assert await approve(fleet, approves, request) == (
        409, "a second person has to approve: this request is your own"
    )  # fmt: skip
    assert levels(fleet) == {"none"}
    assert (await approve(fleet, "bob@", request))[0] == 200


@pytest.mark.parametrize(("asks", "approves"), [("old", "ada"), ("ada", "old"), ("old", "older")])
async def test_a_token_without_owner_is_nobody_who_counts(fleet: Api, asks: str, approves: str) -> None:
    """It may be the approver's own: only the one who holds it knows."""
    for name in ("old", "older"):
        await fleet.harness.store.put_token(ApiToken(name, digest_of(f"cordon_{name}"), 0.0, ALL))
    request = await asked(fleet, asks)
    assert (await approve(fleet, approves, request))[0] == 409
    assert levels(fleet) == {"none"}


async def test_asking_again_with_another_credential_changes_nothing(fleet: Api) -> None:
    request = await asked(fleet, "ada")
    assert (await as_(fleet, "ada@", "POST", f"/approvals/{request}/withdraw", WHY))[0] == 200
    again = await asked(fleet, "ada@")
    assert again != request
    for who in ("ada", "ada@"):
        assert (await approve(fleet, who, again))[0] == 409
        assert (await approve(fleet, who, request))[0] == 409
    assert (await approve(fleet, "bob", request))[0] == 409, "what was withdrawn is not approved"
    assert levels(fleet) == {"none"}


async def test_a_request_does_not_come_back_with_its_account(fleet: Api) -> None:
    request, lent = await asked(fleet, "ada"), await lend(fleet)
    for name in ("ada", "eve"):
        await disable(fleet, name)
    assert [await state(fleet, request), (await fleet.harness.store.approval(request)).state] == ["expired"] * 2  # type: ignore[union-attr]
    for name in ("ada", "eve"):
        await disable(fleet, name, enabled=True)
        await sign_in(fleet, name)
    assert (await approve(fleet, "bob", request))[0] == 409
    assert (await as_(fleet, "eve@", "PUT", "/quarantine/edge-1", {"level": "restricted", **WHY}))[0] == 403
    found = (await as_(fleet, "bob", "GET", f"/approvals/{lent}"))[1]
    assert found["outcome"] == "the account was disabled"
    assert levels(fleet) == {"none"}


async def test_a_disabled_person_approves_nothing(fleet: Api) -> None:
    request = await asked(fleet, "ada")
    await disable(fleet, "bob")
    for who in ("bob", "bob@"):
        assert (await approve(fleet, who, request))[0] == 401
    assert levels(fleet) == {"none"}


async def test_somebody_who_is_disabled_while_the_broker_answers(fleet: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.users.live["lab"] = ["a", "b", "c"]
    body = {"username": "lab", "level": "isolated", **WHY}
    request = (await as_(fleet, "ada", "POST", "/users/contain", body))[1]["request"]["request_id"]
    users = fleet.services.containment.users
    looked = users.sessions_to_cut

    async def slowly(name: str) -> tuple[str, ...]:
        await disable(fleet, "bob")
        return await looked(name)

    monkeypatch.setattr(users, "sessions_to_cut", slowly)
    status, text = await approve(fleet, "bob", request)
    assert (status, "your token or account has ended" in text) == (409, True)
    assert users.cases == {}


async def test_somebody_who_loses_scopes_or_session_while_the_broker_answers(
    fleet: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.users.live["lab"] = ["a", "b", "c"]
    body = {"username": "lab", "level": "isolated", **WHY}
    request = (await as_(fleet, "ada", "POST", "/users/contain", body))[1]["request"]["request_id"]
    users, accounts = fleet.services.containment.users, fleet.services.accounts
    looked = users.sessions_to_cut

    async def slowly(name: str) -> tuple[str, ...]:
        bob = await accounts.store.account_named("bob")
        assert bob is not None
        if who == "bob@":
            await accounts.sign_in.end(bob, bob.in_session)
        else:
            await accounts.operations.set_role(bob, "viewer", Administrator(), fleet.harness.clock.at)
        return await looked(name)

    monkeypatch.setattr(users, "sessions_to_cut", slowly)
    for who in ("bob@", "bob"):
        status, text = await approve(fleet, who, request)
        assert (status, "needs the scope" in text) == (403, True), who
    assert users.cases == {}


async def test_a_name_is_never_given_again(fleet: Api) -> None:
    await disable(fleet, "bob")
    for name in ("bob", "BOB"):
        with pytest.raises(AccountError):
            await fleet.services.accounts.operations.create(replace(account_of(name), account_id="x"), Administrator())


async def test_two_approvals_at_one_moment_and_a_replay(fleet: Api) -> None:
    await put_holder(fleet.harness.store, ApiToken("cy", digest_of("cordon_cy"), 0.0, ALL))
    request = await asked(fleet, "ada")
    found = await asyncio.gather(*(approve(fleet, who, request) for who in ("bob", "cy", "bob@", "cy")))
    assert sorted(status for status, _ in found) == [200, 409, 409, 409]
    assert (await approve(fleet, "bob", request))[0] == 409
    kinds = [line.entry.kind for line in await fleet.harness.store.audit()]
    assert kinds.count(AuditKind.APPROVAL_GRANTED) == 1
    assert kinds.count(AuditKind.CONTAINMENT_DECIDED) == 3


async def test_an_approval_and_a_withdrawal_at_one_moment(fleet: Api) -> None:
    request = await asked(fleet, "ada")
    (approved, _), (withdrawn, _) = await asyncio.gather(
        approve(fleet, "bob", request), as_(fleet, "ada", "POST", f"/approvals/{request}/withdraw", WHY)
    )
    assert sorted((approved, withdrawn)) == [200, 409]
    assert (levels(fleet) == {"none"}) is (approved == 409)


async def test_scopes_for_a_while_count_where_they_were_asked_for_and_end(fleet: Api) -> None:
    status, answer = await as_(fleet, "eve", "POST", "/approvals", SCOPES)
    assert status == 201
    request, body = answer["request_id"], {"level": "restricted", **WHY}
    other = ApiToken("other", digest_of("cordon_other"), 0.0, (Scope.READ,), owner=account_of("eve").account_id)
    await fleet.harness.store.put_token(other)
    for who in ("eve", "eve@", "ada"):
        assert ((await approve(fleet, who, request))[0] == 200) is (who == "ada")
    for who, device in (("eve", "edge-1"), ("eve@", "edge-2")):
        assert (await as_(fleet, who, "PUT", f"/quarantine/{device}", body))[0] == 200
    assert (await as_(fleet, "other", "PUT", "/quarantine/edge-3", body))[0] == 403, "it was made to read"
    lent = (await as_(fleet, "eve", "GET", "/approvals/grants?mine=true"))[1]["items"]
    assert [(one["by"], one["scopes"], one["decided_by"]) for one in lent] == [
        ("operator:eve", ["contain", "command"], "operator:ada")
    ]
    fleet.harness.clock.at += 2 * HOUR
    assert (await as_(fleet, "eve", "PUT", "/quarantine/edge-3", body))[0] == 403, "without anything having run"
    await fleet.services.approvals.book.expire()
    (ended,) = await fleet.harness.store.audit(kind=AuditKind.SCOPES_ENDED)
    assert ended.entry.detail is not None
    assert (ended.entry.detail["requester"], ended.entry.detail["reason"]) == ("operator:eve", "their time is over")


@pytest.mark.parametrize("who", ["eve@", "bob"])
async def test_scopes_for_a_while_are_ended_early(fleet: Api, who: str) -> None:
    request = await lend(fleet)
    assert (await as_(fleet, who, "POST", f"/approvals/{request}/end", WHY))[0] == 200
    assert (await as_(fleet, "eve@", "PUT", "/quarantine/edge-1", {"level": "restricted", **WHY}))[0] == 403
    assert (await as_(fleet, who, "POST", f"/approvals/{request}/end", WHY))[0] == 409


async def test_nobody_approves_with_a_scope_that_the_requester_gave(fleet: Api) -> None:
    """Whoever appoints their own second person for an hour is still one person."""
    await lend(fleet, by="bob")
    status, text = await approve(fleet, "eve@", await asked(fleet, "bob"))
    assert (status, "gave you the scope" in text) == (403, True)
    assert levels(fleet) == {"none"}
    assert (await approve(fleet, "eve@", await asked(fleet, "ada")))[0] == 200, "of another person it counts"


async def test_scopes_for_a_while_are_not_passed_on(fleet: Api) -> None:
    await put_holder(fleet.harness.store, ApiToken("dan", digest_of("cordon_dan"), 0.0, ALL), "viewer")
    await lend(fleet)
    request = (await as_(fleet, "dan", "POST", "/approvals", SCOPES))[1]["request_id"]
    status, text = await approve(fleet, "eve@", request)
    assert (status, "passed on" in text) == (403, True)
    assert (await as_(fleet, "dan", "POST", "/approvals", {**SCOPES, "scopes": ["admin"]}))[0] == 409


async def test_an_approver_whose_scopes_have_ended(fleet: Api) -> None:
    lent, request = await lend(fleet), await asked(fleet, "ada")
    await as_(fleet, "bob", "POST", f"/approvals/{lent}/end", WHY)
    assert (await approve(fleet, "eve@", request))[0] == 403
    assert levels(fleet) == {"none"}


async def test_a_rollout_has_one_way_to_its_approval_by_any_route(fleet: Api) -> None:
    body = {"target": "app/2.0", "rings": [{"name": "all", "select": "rest"}], **WHY}
    rollout = (await as_(fleet, "ada", "POST", "/rollouts", body))[1]["rollout_id"]
    await fleet.services.approvals.run_once()
    for path in (f"/rollouts/{rollout}/approve", f"/approvals/{rollout}/approve"):
        for who in ("ada", "ada@"):
            assert (await as_(fleet, who, "POST", path, {}))[0] == 409
    await disable(fleet, "ada")
    for path in (f"/rollouts/{rollout}/approve", f"/approvals/{rollout}/approve"):
        assert (await as_(fleet, "bob", "POST", path, {}))[0] == 409, "what a thief has begun does not go on"


async def test_what_was_approved_is_carried_out_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []
    async with open_api(tmp_path / "c.db", by_hand=LIMITS, tokens=[_token("bob"), _token("cy")]) as api:
        users = api.services.containment.users
        for name in ("lab", "hall"):
            api.users.live[name] = ["a", "b", name]
            body = {"username": name, "level": "isolated", **WHY}
            requests.append((await as_(api, "bob", "POST", "/users/contain", body))[1]["request"]["request_id"])

        async def killed(*_args: Any, **_more: Any) -> Any:
            raise asyncio.CancelledError

        monkeypatch.setattr(users, "contain", killed)
        for request in requests:
            with pytest.raises(asyncio.CancelledError):
                await as_(api, "cy", "POST", f"/approvals/{request}/approve", {})
        changed = await api.harness.store.approval(requests[1])
        assert changed is not None
        assert (changed.state.value, changed.unfinished) == ("approved", True)
        await api.harness.store.commit(StoreWrites(requests=(replace(changed, username="everybody"),)))
    monkeypatch.undo()
    async with open_api(tmp_path / "c.db", by_hand=LIMITS) as api:
        await api.services.approvals.run_once()
        assert set(api.services.containment.users.cases) == {"lab"}, "what was changed after the approval is not done"
        assert [await _state(api, request) for request in requests] == ["approved", "failed"]
        assert api.services.approvals.book.unfinished == ()


def _token(name: str) -> ApiToken:
    return ApiToken(name, digest_of(f"cordon_{name}"), 0.0, ALL)


async def _state(api: Api, request: str) -> str:
    found = await api.harness.store.approval(request)
    assert found is not None
    return found.state.value
