"""Failures slow sign-ins down, and nobody can lock somebody else out."""

import pytest

from controller.domain.accounts import login_delay
from controller.domain.accounts.login_delay import (
    FORGET,
    FREE_OF_ACCOUNT,
    FREE_OF_ADDRESS,
    MAX_ACCOUNT_DELAY,
    MAX_ADDRESS_DELAY,
    MAX_ENTRIES,
    LoginDelays,
)


def test_the_delay_of_an_address_grows_and_is_bounded() -> None:
    delays = LoginDelays(b"key")
    seen = []
    for _ in range(40):
        seen.append(delays.seconds("a", "ada", 0.0))
        delays.failed("a", f"name-{len(seen)}", 0.0)
    assert seen[:FREE_OF_ADDRESS] == [0.0] * FREE_OF_ADDRESS
    assert seen == sorted(seen)
    assert seen[-1] == MAX_ADDRESS_DELAY
    assert delays.seconds("b", "ada", 0.0) == 0.0
    assert delays.seconds("a", "ada", FORGET) == 0.0


def test_an_attack_from_many_addresses_slows_the_account_but_not_its_owner() -> None:
    delays = LoginDelays(b"key")
    delays.succeeded("home", "ada")
    for number in range(FREE_OF_ACCOUNT + 10):
        delays.failed(f"bot-{number}", "Ada", 0.0)
    assert delays.seconds("bot-new", "ada", 0.0) == MAX_ACCOUNT_DELAY
    assert delays.seconds("home", "ADA", 0.0) == 0.0
    assert delays.seconds("bot-new", "bob", 0.0) == 0.0


def test_a_sign_in_of_ones_own_does_not_buy_further_guesses() -> None:
    delays = LoginDelays(b"key")
    for _ in range(FREE_OF_ADDRESS):
        delays.failed("a", "ada", 0.0)
    delays.succeeded("a", "eve")
    assert delays.seconds("a", "ada", 0.0) > 0.0


def test_other_names_never_push_the_failures_of_an_account_out() -> None:
    delays = LoginDelays(b"key")
    for number in range(FREE_OF_ACCOUNT):
        delays.failed(f"bot-{number}", "ada", 0.0)
    for number in range(MAX_ENTRIES + 1):
        delays.failed(f"bot-{number}", f"n{number}", 1.0)
    assert delays.failures("ADA", 2.0) >= FREE_OF_ACCOUNT
    assert delays.seconds("bot-new", "ada", 2.0) > 0.0
    assert LoginDelays(b"another key").failures("ada", 2.0) == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_delay, "BUCKETS", 8)
    delays = LoginDelays(b"key")
    for _ in range(FREE_OF_ADDRESS):
        delays.failed("first", "ada", 0.0)
    for number in range(MAX_ENTRIES):
        delays.failed(f"a{number}", f"n{number}", 0.0)
    assert delays.seconds("first", "bob", FORGET) == 0.0
    assert len(delays._accounts) == 8
    assert len(delays._addresses) == MAX_ENTRIES
