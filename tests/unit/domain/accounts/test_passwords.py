"""Which texts may be passwords."""

import pytest

from controller.domain.accounts.passwords import (
    MAX_PASSWORD,
    MIN_PASSWORD,
    WeakPasswordError,
    check_password,
    normalized,
)
from controller.packs import common_passwords

COMMON = common_passwords()


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("x" * (MIN_PASSWORD - 1), "at least"),
        ("Zq7" * MAX_PASSWORD, "at most"),
        ("123qweasdzxc", "common"),
        ("123QWEasdZXC", "common"),
        ("password1234", "common"),
        ("!!Password99", "common"),
        ("dragondragon", "common"),
        ("123456123456", "common"),
        ("aaaaaaaaaaaa", "common"),
        ("ada.lovelace", "login name"),
        ("Ada.Lovelace1815", "login name"),
    ],
)
def test_what_is_guessed_first_is_none(password: str, why: str) -> None:
    with pytest.raises(WeakPasswordError, match=why):
        check_password(password, "ada.lovelace", COMMON)


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery",
        "dragon over the harbour",
        "äöü kein Wörterbuch",
        "8842-1093-5567-2",
        "a lovelace of summers",
    ],
)
def test_nothing_is_asked_of_its_characters(password: str) -> None:
    check_password(password, "ada.lovelace", COMMON)


def test_keyboards_may_compose_it_as_they_like() -> None:
    assert normalized("a\u0308") == normalized("\u00e4")


def test_the_shipped_list_is_in_small_letters() -> None:
    assert 10_000 <= len(COMMON) < 11_000
    assert "password" in COMMON
    assert all(word == word.casefold() and word[:1] != "#" for word in COMMON)
