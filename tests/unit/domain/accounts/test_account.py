"""What is decided over all accounts; roles; sessions; callers."""

from dataclasses import replace

import pytest

from controller.domain.accounts.account import (
    Account,
    AccountRefusal,
    is_account_name,
    with_enabled,
    with_first_password,
    with_password,
    with_rehash,
    with_role,
    with_setup_code,
    without_credentials,
)
from controller.domain.accounts.caller import STEP_UP, Caller, Credential
from controller.domain.accounts.roles import BUILT_IN, Roles
from controller.domain.accounts.session import ABSOLUTE, IDLE, Session
from controller.domain.principal import KINSHIP, MakingRecord, Principal
from controller.domain.scopes import ALL, Scope

ROLES = Roles({"night": (Scope.READ, Scope.CONTAIN), "admin": (Scope.READ,)})
ADA, BOB = Account("1", "ada", "admin", 0.0), Account("2", "bob", "viewer", 0.0)


def test_roles_are_sets_of_scopes() -> None:
    assert ROLES.names == (*BUILT_IN, "night")
    assert ROLES.scopes_of("admin") == frozenset(ALL), "the built-in one stays"
    assert ROLES.scopes_of("night") == {Scope.READ, Scope.CONTAIN}
    assert ROLES.scopes_of("gone") == frozenset()
    assert ROLES.exceeding("operator", (Scope.READ, Scope.CONTAIN)) == (Scope.COMMAND,)


@pytest.mark.parametrize("decide", [with_role("viewer", ROLES), with_enabled(ROLES, enabled=False)])
def test_the_last_administrator_stays(decide: object) -> None:
    assert callable(decide)
    assert decide(ADA, (ADA, BOB)) is AccountRefusal.LAST_ADMIN
    disabled = replace(BOB, role="admin", enabled=False)
    assert decide(ADA, (ADA, disabled)) is AccountRefusal.LAST_ADMIN
    assert isinstance(decide(ADA, (ADA, replace(BOB, role="admin"))), Account)
    assert isinstance(decide(BOB, (ADA, BOB)), Account)


def test_a_one_time_code_sets_one_password() -> None:
    coded = with_setup_code("digest", 1.0, 10.0)(ADA, ())
    assert isinstance(coded, Account)
    first = with_first_password("digest", "phc", 9.0)
    after = first(coded, ())
    assert isinstance(after, Account)
    assert (after.password, after.password_at, after.setup_digest) == ("phc", 9.0, "")
    assert first(after, ()) is AccountRefusal.CHANGED
    assert with_first_password("digest", "phc", 10.0)(coded, ()) is AccountRefusal.CHANGED
    assert with_first_password("", "phc", 9.0)(ADA, ()) is AccountRefusal.CHANGED


def test_a_rehash_never_undoes_a_change_of_the_password() -> None:
    changed = with_password("new", 5.0)(replace(ADA, password="old"), ())
    assert isinstance(changed, Account)
    assert with_rehash("old", "better")(changed, ()) is AccountRefusal.CHANGED


def test_whoever_sets_a_password_counts_as_the_person() -> None:
    eve = Principal("account:9", "eve", in_session=True)
    taken = with_password("phc", 5.0, eve.makers_of_new(5.0))(ADA, ())
    assert isinstance(taken, Account)
    assert taken.makers == (MakingRecord("account:9", "eve", 5.0),)
    assert taken.in_session.is_same_person(eve, 5.0)


@pytest.mark.parametrize("how", ["password", "setup code", "factors"])
def test_whoever_takes_over_later_hides_no_earlier_maker(how: str) -> None:
    eve, bob = (Principal(f"account:{n}", name, in_session=True) for n, name in ((8, "eve"), (9, "bob")))
    old = MakingRecord("account:7", "old", 0.0)
    puppet = replace(ADA, makers=(*eve.makers_of_new(10.0), old))
    now = KINSHIP + 5.0
    by_bob = bob.makers_of_new(now)
    decide = {
        "password": with_password("phc", now, by_bob),
        "setup code": with_setup_code("digest", now, now + 9, by_bob),
        "factors": without_credentials("", now, now, by_bob),
    }[how]
    after = decide(puppet, ())
    assert isinstance(after, Account)
    assert [maker.name for maker in after.makers] == ["bob", "eve"], "what no longer counts is left out"
    assert after.in_session.is_same_person(eve, now)
    assert not after.in_session.is_same_person(eve, 10.0 + KINSHIP)
    assert after.in_session.is_same_person(bob, 10.0 + KINSHIP)
    again = without_credentials("", now + 1, now + 1, eve.makers_of_new(now + 1))(after, ())
    assert isinstance(again, Account)
    assert [(maker.name, maker.at) for maker in again.makers] == [("eve", now + 1), ("bob", now)]


def test_a_stale_link_hides_no_fresh_one_behind_it() -> None:
    stale, fresh = MakingRecord("account:7", "old", 0.0), MakingRecord("account:8", "eve", KINSHIP)
    assert "account:8" in replace(ADA, makers=(stale, fresh)).in_session.keys_at(KINSHIP + 1)


def test_the_day_of_who_gave_a_one_time_code_begins_when_it_is_used() -> None:
    eve = Principal("account:9", "eve", in_session=True)
    coded = with_setup_code("digest", 0.0, KINSHIP, eve.makers_of_new(0.0))(ADA, ())
    assert isinstance(coded, Account)
    used = KINSHIP - 1
    after = with_first_password("digest", "phc", used)(coded, ())
    assert isinstance(after, Account)
    assert after.in_session.is_same_person(eve, used + KINSHIP - 1)
    assert not after.in_session.is_same_person(eve, used + KINSHIP)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "ä", "a" * 65, "a\n", "\u0430da"])
def test_names_that_look_like_others_are_none(name: str) -> None:
    assert not is_account_name(name)
    assert is_account_name("ada@example.org")


def test_a_session_ends_by_idleness_and_in_any_case() -> None:
    session = Session("d", "1", 0.0, 0.0)
    assert not session.is_over(IDLE - 1)
    assert session.is_over(IDLE)
    used = replace(session, last_used_at=ABSOLUTE - 1)
    assert not used.is_over(ABSOLUTE - 0.5)
    assert used.is_over(ABSOLUTE)
    assert replace(session, created_at=3 * ABSOLUTE, last_used_at=3 * ABSOLUTE).is_over(1.0), (
        "a clock that was put back"
    )


def test_a_factor_is_fresh_for_a_while() -> None:
    caller = Caller(ADA.in_session, frozenset(), Credential.SESSION, "1", factor_at=1000.0)
    assert caller.has_fresh_factor(1000.0 + STEP_UP - 1)
    assert not caller.has_fresh_factor(1000.0 + STEP_UP)
    assert not caller.has_fresh_factor(999.0)
    assert not replace(caller, factor_at=0.0).has_fresh_factor(1.0)


def test_without_credentials_only_who_can_use_a_code_gets_one() -> None:
    decide = without_credentials("d", 5.0, 9.0)
    for before, code, at in (
        (replace(ADA, password="phc", setup_digest="old", setup_until=7.0), "d", 5.0),
        (replace(ADA, enabled=False, password="phc"), "", 5.0),
        (replace(ADA, issuer="https://id", subject="s", setup_digest="old"), "", 0.0),
    ):
        after = decide(before, ())
        assert isinstance(after, Account)
        assert (after.password, after.setup_digest, after.password_at) == ("", code, at)
    assert with_setup_code("d", 5.0, 9.0)(replace(ADA, enabled=False), ()) is AccountRefusal.DISABLED
