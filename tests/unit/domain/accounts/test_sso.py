"""Single sign-on: roles of groups, second factors of a provider, names of accounts."""

from dataclasses import replace

import pytest

from controller.domain.accounts.account import is_account_name
from controller.domain.accounts.sso import (
    NO_ROLE,
    GroupRole,
    ProvedIdentity,
    SsoRules,
    factor_at,
    login_names,
    role_of,
)

RULES = SsoRules(
    (GroupRole("admins", "admin"), GroupRole("ops", "operator"), GroupRole("admins", "viewer")),
    acr_values=("mfa",),
    amr_values=("otp", "hwk"),
)
WHO = ProvedIdentity("https://id.example.com", "u-1", "anna", ("ops", "admins"), auth_time=900.0)


@pytest.mark.parametrize(
    ("groups", "role"),
    [(("ops", "admins"), "admin"), (("ops",), "operator"), (("Admins",), NO_ROLE), ((), NO_ROLE), (None, NO_ROLE)],
)
def test_the_first_entry_whose_group_a_person_is_in_gives_the_role(groups: tuple[str, ...] | None, role: str) -> None:
    assert role_of(replace(WHO, groups=groups), RULES) == role


@pytest.mark.parametrize(
    ("acr", "amr", "at", "found"),
    [
        ("mfa", (), 900.0, 900.0),
        ("", ("pwd", "hwk"), 900.0, 900.0),
        ("mfa", (), 0.0, 0.0),  # the provider does not say when
        ("mfa", (), 2000.0, 1000.0),  # its clock is ahead
        ("mfa", (), -5.0, 0.0),
        ("pwd", ("pwd",), 900.0, 0.0),
        ("", (), 900.0, 0.0),
    ],
)
def test_only_configured_values_are_a_second_factor(acr: str, amr: tuple[str, ...], at: float, found: float) -> None:
    assert factor_at(replace(WHO, acr=acr, amr=amr, auth_time=at), RULES, 1000.0) == found
    assert factor_at(replace(WHO, acr=acr, amr=amr, auth_time=at), SsoRules(RULES.groups), 1000.0) == 0.0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("anna", "anna"),
        ("anna@example.com", "anna@example.com"),
        ("\uff21nna \uff22", "Anna-B"),
        ("../../root", "root"),
        ("<script>", "script"),
        ("\u0430dmin", "dmin"),  # a Cyrillic letter is none of a login name
        ("", "person"),
        ("--", "person"),
        ("x" * 300, "x" * 48),
    ],
)
def test_login_names_are_plain_and_the_second_one_is_nobody_elses(text: str, name: str) -> None:
    plain, unique = login_names(replace(WHO, name=text))
    assert plain == name
    assert is_account_name(plain)
    assert is_account_name(unique)
    assert unique != login_names(replace(WHO, name=text, subject="u-2"))[1]
    assert unique != login_names(replace(WHO, name=text, issuer="https://other.example.com"))[1]
