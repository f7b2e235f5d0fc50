"""Accounts, sessions and factors in the store: what the port promises, over a restart and at one moment."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.sql.accounts import SqlAccounts
from controller.adapters.sql.factors import SqlFactors
from controller.domain.accounts.account import (
    Account,
    AccountRefusal,
    with_enabled,
    with_first_password,
    with_password,
    with_role,
    with_setup_code,
    without_credentials,
)
from controller.domain.accounts.factors import MAX_PASSKEYS, Factors, Passkey, Totp
from controller.domain.accounts.roles import Roles
from controller.domain.accounts.session import MAX_SESSIONS, Session
from controller.domain.audit_kinds import AuditKind
from controller.domain.effects import AuditEntry
from controller.domain.principal import MakingRecord
from controller.ports.store import ApiToken, StoreWrites, TokenChange
from tests.support.persons import account_of, token_of
from tests.support.store import NOW, opened

NOTHING = StoreWrites()
LINE = StoreWrites(audit=((NOW, AuditEntry(AuditKind.ACCOUNT_CREATED, "", "test")),))
ADA, BOB = account_of("ada"), account_of("bob")
ROLES = Roles()


def session(account: Account, number: int, used: float = NOW) -> Session:
    return Session(f"{number:032x}" + "0" * 32, account.account_id, NOW, used, NOW, "totp", "192.0.2.1", "agent")


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    whole = replace(
        ADA, password="phc", issuer="https://id", subject="s", makers=(MakingRecord("k", "n", 2.0),), password_at=3.0
    )
    async with opened(path) as store:
        accounts = SqlAccounts(store)
        assert await accounts.add_account(whole, LINE) == whole
        assert await accounts.add_session(session(ADA, 1), NOTHING)
    async with opened(path) as store:
        accounts = SqlAccounts(store)
        found = replace(whole, last_login_at=NOW)
        assert await accounts.accounts() == [found]
        assert await accounts.account_named("ADA") == found
        assert await accounts.account_of_subject("https://id", "s") == found
        assert await accounts.account_of_subject("", "") is None
        assert await accounts.session(session(ADA, 1).digest) == (session(ADA, 1), found)
        assert [one.entry.kind for one in await store.audit()] == [AuditKind.ACCOUNT_CREATED]


async def test_names_and_subjects_belong_to_one_account(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        accounts = SqlAccounts(store)
        await accounts.add_account(replace(ADA, issuer="i", subject="s"), NOTHING)
        assert await accounts.add_account(replace(BOB, name="Ada"), LINE) is AccountRefusal.NAME_USED
        assert await accounts.add_account(replace(BOB, issuer="i", subject="s"), LINE) is AccountRefusal.SUBJECT_USED
        assert await accounts.change_account("nobody", with_role("viewer", ROLES), NOW, LINE) is AccountRefusal.UNKNOWN
        assert await store.audit() == [], "what was refused is not in the audit as done"


async def test_disabling_ends_sessions_tokens_and_code_together(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        accounts = SqlAccounts(store)
        for one in (ADA, BOB):
            await accounts.add_account(one, NOTHING)
            await store.put_token(token_of(one.name))
            await accounts.add_session(session(one, ord(one.name[0])), NOTHING)
        await accounts.add_session(session(ADA, 7), NOTHING)
        await accounts.change_account(ADA.account_id, with_setup_code("d", NOW, NOW + 9), NOW, NOTHING)
        off = await accounts.change_account(ADA.account_id, with_enabled(ROLES, enabled=False), NOW, LINE)
        assert isinstance(off, Account)
        assert not off.enabled
        assert off.setup_digest == ""
        assert await accounts.sessions(ADA.account_id) == []
        assert {one.name: one.expires_at for one in await store.tokens()} == {"ada": NOW, "bob": None}
        assert not await accounts.add_session(session(ADA, 8), LINE), "none begins afterwards"
        assert await store.add_token(replace(token_of("ada"), name="x"), 9, LINE) is TokenChange.NO_OWNER
        await accounts.change_account(ADA.account_id, with_enabled(ROLES, enabled=True), NOW + 1, NOTHING)
        assert {one.name: one.expires_at for one in await store.tokens()}["ada"] == NOW, "what ended stays over"
        assert len(await store.audit()) == 1


async def test_two_administrators_who_disable_each_other_leave_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        accounts = SqlAccounts(store)
        for one in (ADA, BOB):
            await accounts.add_account(one, NOTHING)
        off = with_enabled(ROLES, enabled=False)
        found = await asyncio.gather(*(accounts.change_account(one.account_id, off, NOW, LINE) for one in (ADA, BOB)))
        assert [one for one in found if isinstance(one, AccountRefusal)] == [AccountRefusal.LAST_ADMIN]
        assert sum(one.enabled for one in await accounts.accounts()) == 1
        assert len(await store.audit()) == 1


async def test_a_one_time_code_is_used_once_at_one_moment(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        accounts = SqlAccounts(store)
        await accounts.add_account(replace(ADA, setup_digest="d", setup_until=NOW + 1), NOTHING)
        changes = (
            accounts.change_account(ADA.account_id, with_first_password("d", f"phc{number}", NOW), NOW, LINE)
            for number in range(5)
        )
        found = await asyncio.gather(*changes)
        assert sum(isinstance(one, Account) for one in found) == 1


async def test_sessions_without_a_factor_end_none_with_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        accounts = SqlAccounts(store)
        await accounts.add_account(ADA, NOTHING)
        proved = [replace(session(ADA, number, NOW), factor_at=NOW, factor="totp") for number in range(2)]
        for number in range(10, 11 + MAX_SESSIONS):
            await accounts.add_session(replace(session(ADA, number, NOW + number), factor_at=0.0), NOTHING)
            if number < 12:
                await accounts.add_session(proved[number - 10], NOTHING)
        left = await accounts.sessions(ADA.account_id)
        assert [one for one in left if one.factor_at] == sorted(proved, key=lambda one: one.digest)
        assert len(left) == len(proved) + MAX_SESSIONS


async def test_a_session_is_replaced_once_and_the_oldest_make_room(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        accounts = SqlAccounts(store)
        await accounts.add_account(ADA, NOTHING)
        await accounts.add_session(session(ADA, 1), NOTHING)
        first = session(ADA, 1).digest
        assert await accounts.add_session(session(ADA, 2), NOTHING, replaces=first)
        assert not await accounts.add_session(session(ADA, 3), NOTHING, replaces=first)
        for number in range(10, 10 + MAX_SESSIONS):
            await accounts.add_session(session(ADA, number, NOW + number), NOTHING)
        left = await accounts.sessions(ADA.account_id)
        assert len(left) == MAX_SESSIONS
        assert session(ADA, 2) not in left
        assert left == sorted(left, key=lambda one: -one.last_used_at)
        assert await accounts.end_sessions(ADA.account_id, LINE, session_id=left[0].session_id) == 1
        assert await accounts.end_sessions(ADA.account_id, LINE, session_id=left[0].session_id) == 0
        assert await accounts.end_sessions(ADA.account_id, LINE, but=left[1].session_id) == MAX_SESSIONS - 2
        await accounts.touch_session(left[1].digest, NOW + 999)
        await accounts.touch_session(left[1].digest, NOW)
        assert [one.last_used_at for one in await accounts.sessions(ADA.account_id)] == [NOW + 999]
        await accounts.change_account(ADA.account_id, with_password("phc", NOW), NOW, NOTHING)
        assert await accounts.sessions(ADA.account_id) == []
        assert len(await store.audit()) == 2


async def test_sessions_that_are_over_are_deleted_by_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        accounts = SqlAccounts(store)
        await accounts.add_account(ADA, NOTHING)
        await accounts.add_session(session(ADA, 1), NOTHING)
        late = replace(session(ADA, 2), created_at=NOW + 86_400, last_used_at=NOW + 86_400)
        await accounts.add_session(late, NOTHING)
        assert await accounts.sessions(ADA.account_id) == [late]


async def test_last_use_of_a_token(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        token = ApiToken("t", "a" * 64, 1.0)
        await store.put_token(token)
        await SqlAccounts(store).touch_token(token.digest, NOW, "192.0.2.1")
        assert await store.tokens() == [replace(token, last_used_at=NOW, last_peer="192.0.2.1")]


@pytest.mark.parametrize(("counter", "taken"), [(6, True), (5, False), (0, False)])
async def test_the_counter_of_a_passkey_grows(tmp_path: Path, counter: int, taken: bool) -> None:
    async with opened(tmp_path / "store.db") as store:
        factors = SqlFactors(store)
        key = Passkey(ADA.account_id, b"id", b"key", 5, "phone", NOW)
        assert await factors.add_passkey(key, LINE)
        assert not await factors.add_passkey(replace(key, account_id=BOB.account_id), LINE)
        assert await factors.use_passkey(b"id", counter, NOW + 1) is taken
        (found,) = (await factors.factors(ADA.account_id)).passkeys
        assert found == (replace(key, sign_count=6, last_used_at=NOW + 1) if taken else key)
        assert not await factors.remove_passkey(BOB.account_id, b"id", LINE)
        assert await factors.remove_passkey(ADA.account_id, b"id", LINE)
        assert len(await store.audit()) == 2


async def test_steps_and_codes_are_taken_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        factors = SqlFactors(store)
        await factors.put_totp(Totp(ADA.account_id, "sealed", NOW), NOTHING)
        assert (await factors.factors(ADA.account_id)).exist
        found = await asyncio.gather(*(factors.use_totp(ADA.account_id, 7) for _ in range(5)))
        assert sorted(found) == [False] * 4 + [True]
        assert not await factors.use_totp(ADA.account_id, 6)
        await factors.put_recovery_codes(ADA.account_id, ["a", "b"], NOTHING)
        await factors.put_recovery_codes(ADA.account_id, ["b", "c"], NOTHING)
        used = await asyncio.gather(*(factors.use_recovery_code(ADA.account_id, "b", LINE) for _ in range(5)))
        assert sorted(used) == [False] * 4 + [True]
        assert not await factors.use_recovery_code(ADA.account_id, "a", LINE)
        assert len(await store.audit()) == 1
        for number in range(MAX_PASSKEYS + 1):
            key = Passkey(ADA.account_id, b"%d" % number, b"key", 0, "phone", NOW)
            assert await factors.add_passkey(key, NOTHING) is (number < MAX_PASSKEYS)
        assert not await factors.add_passkey(replace(key, credential_id=b"x"), LINE, as_first=True)
        assert not await factors.put_totp(Totp(ADA.account_id, "of a thief", NOW), LINE, as_first=True)
        eve = MakingRecord("account:9", "eve", NOW)
        accounts = SqlAccounts(store)
        await accounts.add_account(ADA, NOTHING)
        await accounts.add_session(Session("d", ADA.account_id, NOW, NOW), NOTHING)
        decide = without_credentials("d", NOW, NOW + 9, (eve,))
        after = await accounts.change_account(ADA.account_id, decide, NOW, LINE, resets_factors=True)
        assert after == replace(ADA, makers=(eve,), last_login_at=NOW, setup_digest="d", setup_until=NOW + 9)
        assert await accounts.account_with_code("d") == after
        assert not await factors.put_totp(Totp(ADA.account_id, "begun before", NOW), LINE, session="d")
        assert not await factors.add_passkey(replace(key, credential_id=b"y"), LINE, session="d")
        assert not await factors.put_recovery_codes(ADA.account_id, ["x"], LINE, session="d")
        assert await accounts.session("d") is None
        assert await factors.factors(ADA.account_id) == Factors()


async def test_of_two_last_factors_that_are_removed_at_one_moment_one_stays(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        factors = SqlFactors(store)
        await factors.put_totp(Totp(ADA.account_id, "sealed", NOW), NOTHING)
        await factors.add_passkey(Passkey(ADA.account_id, b"id", b"key", 5, "phone", NOW), NOTHING)
        removed = await asyncio.gather(
            factors.remove_totp(ADA.account_id, LINE, keeps_one=True),
            factors.remove_passkey(ADA.account_id, b"id", LINE, keeps_one=True),
        )
        assert sorted(removed) == [False, True]
        assert (await factors.factors(ADA.account_id)).count == 1
        assert len(await store.audit()) == 1
