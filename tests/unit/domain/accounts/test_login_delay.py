"""Failures slow sign-ins down, and nobody can lock somebody else out."""

import pytest

from controller.domain.accounts import login_delay
from controller.domain.accounts.failure_counts import MAX_KEYS, DelayRule, FailureCounts
from controller.domain.accounts.login_delay import (
    FORGET,
    FREE_OF_ACCOUNT,
    FREE_OF_ADDRESS,
    MAX_ACCOUNT_DELAY,
    MAX_ADDRESS_DELAY,
    LoginDelays,
)


def waited(delays: LoginDelays, address: str, name: str, now: float = 0.0) -> float:
    return delays.seconds(address, name, now, is_known=delays.is_known(address, name))


def test_the_delay_of_an_address_grows_and_is_bounded() -> None:
    delays = LoginDelays(b"key")
    seen = []
    for _ in range(40):
        seen.append(waited(delays, "a", "ada"))
        delays.failed("a", f"name-{len(seen)}", 0.0)
    assert seen[:FREE_OF_ADDRESS] == [0.0] * FREE_OF_ADDRESS
    assert seen == sorted(seen)
    assert seen[-1] == MAX_ADDRESS_DELAY
    assert waited(delays, "b", "ada") == 0.0
    assert waited(delays, "a", "ada", FORGET) == 0.0


def test_an_attack_from_many_addresses_slows_the_account_but_not_its_owner() -> None:
    delays = LoginDelays(b"key")
    delays.succeeded("home", "ada")
    for number in range(FREE_OF_ACCOUNT + 10):
        delays.failed(f"bot-{number}", "Ada", 0.0)
    assert waited(delays, "bot-new", "ada") == MAX_ACCOUNT_DELAY
    assert waited(delays, "home", "ADA") == 0.0
    assert waited(delays, "bot-new", "bob") == 0.0


def test_a_sign_in_of_ones_own_does_not_buy_further_guesses() -> None:
    delays = LoginDelays(b"key")
    for _ in range(FREE_OF_ADDRESS):
        delays.failed("a", "ada", 0.0)
    delays.succeeded("a", "eve")
    assert waited(delays, "a", "ada") > 0.0


def test_other_names_never_push_the_failures_of_an_account_out() -> None:
    delays = LoginDelays(b"key")
    for number in range(FREE_OF_ACCOUNT):
        delays.failed(f"bot-{number}", "ada", 0.0)
    for number in range(MAX_KEYS + 1):
        delays.failed(f"bot-{number}", f"n{number}", 1.0)
    assert delays.failures("ADA", 2.0) >= FREE_OF_ACCOUNT
    assert waited(delays, "bot-new", "ada", 2.0) > 0.0
    assert LoginDelays(b"another key").failures("ada", 2.0) == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_delay, "BUCKETS", 8)
    delays = LoginDelays(b"key")
    for _ in range(FREE_OF_ADDRESS):
        delays.failed("first", "ada", 0.0)
    for number in range(MAX_KEYS):
        delays.failed(f"a{number}", f"n{number}", 0.0)
    assert waited(delays, "first", "bob", FORGET) == 0.0
    assert len(delays._accounts._failures) == 8
    assert len(delays._addresses._failures) == MAX_KEYS


def test_what_was_counted_is_taken_back_and_forgotten() -> None:
    counts = FailureCounts[str](DelayRule(3, 2.0, 300.0, 3600.0))
    assert [counts.record("a", 10.0) for _ in range(4)] == [1, 2, 3, 4]
    assert (counts.wait("a", 10.0), counts.wait("a", 13.0), counts.wait("a", 14.0)) == (4.0, 1.0, 0.0)
    counts.take_back("a")
    assert counts.wait("a", 10.0) == 2.0
    counts.forget("a")
    counts.record("b", 0.0)
    counts.take_back("b")
    assert (counts.count("a", 10.0), counts.count("b", 0.0)) == (0, 0)
