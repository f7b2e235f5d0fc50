"""Second factors: which codes are right, what a session has to do first, and how long a factor is fresh."""

import pyotp
import pytest

from controller.domain.accounts.caller import STEP_UP
from controller.domain.accounts.factors import FactorGate
from controller.domain.accounts.second_factor import (
    RECOVERY_BYTES,
    gate_of,
    may_change_factors,
    recovery_code,
    recovery_digest,
    totp_step,
    totp_text,
    totp_uri,
)

SECRET = bytes(range(20))
NOW = 1_800_000_010.0  # ten seconds into a step
STEP = int(NOW // 30)


def code_of(step: int) -> str:
    return pyotp.HOTP(totp_text(SECRET)).at(step)


@pytest.mark.parametrize(("away", "found"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_code_counts_for_one_step_around_now(away: int, found: bool) -> None:
    assert totp_step(SECRET, code_of(STEP + away), NOW, 0) == (STEP + away if found else None)


def test_a_step_counts_once_and_no_earlier_one_after_it() -> None:
    assert totp_step(SECRET, code_of(STEP), NOW, STEP) is None
    assert totp_step(SECRET, code_of(STEP - 1), NOW, STEP) is None
    assert totp_step(SECRET, code_of(STEP + 1), NOW, STEP) == STEP + 1


@pytest.mark.parametrize(
    "text", ["", "12345", "1234567", "abcdef", "\u0661\u0662\u0663\u0664\u0665\u0666", "-1e100", "1" * 10_000]
)
def test_what_is_no_code_is_wrong_and_no_error(text: str) -> None:
    assert totp_step(SECRET, text, NOW, 0) is None


def test_blanks_in_a_code_do_not_matter() -> None:
    code = code_of(STEP)
    assert totp_step(SECRET, f" {code[:3]} {code[3:]}", NOW, 0) == STEP


def test_the_address_for_apps_names_account_and_issuer() -> None:
    parsed = pyotp.parse_uri(totp_uri(SECRET, "anna&co", "Cordon"))
    assert (parsed.name, parsed.issuer, parsed.secret) == ("anna&co", "Cordon", totp_text(SECRET))


def test_recovery_codes_have_eighty_bits_and_are_read_as_people_type_them() -> None:
    code = recovery_code(bytes(range(RECOVERY_BYTES)))
    assert len(code.replace("-", "")) * 5 == RECOVERY_BYTES * 8
    digest = recovery_digest("a1", code)
    assert recovery_digest("a1", f" {code.lower().replace('-', ' ')} ") == digest
    assert recovery_digest("a2", code) != digest


@pytest.mark.parametrize(
    ("has_factor", "factor_at", "required", "gate"),
    [
        (True, 0.0, False, FactorGate.GIVE),
        (True, 0.0, True, FactorGate.GIVE),
        (True, NOW, True, FactorGate.OPEN),
        (False, 0.0, True, FactorGate.REGISTER),
        (False, 0.0, False, FactorGate.OPEN),
        (False, NOW, True, FactorGate.OPEN),  # a provider of single sign-on vouched for it
    ],
)
def test_gate(has_factor: bool, factor_at: float, required: bool, gate: FactorGate) -> None:
    assert gate_of(has_factor=has_factor, factor_at=factor_at, required=required) is gate


def test_factors_are_changed_after_a_fresh_factor_and_the_first_after_a_fresh_login() -> None:
    late = NOW + STEP_UP
    assert may_change_factors(has_factor=False, factor_at=0.0, begun_at=NOW, now=NOW + 1)
    assert not may_change_factors(has_factor=False, factor_at=0.0, begun_at=NOW, now=late)
    assert not may_change_factors(has_factor=True, factor_at=0.0, begun_at=NOW, now=NOW + 1)
    assert may_change_factors(has_factor=True, factor_at=NOW, begun_at=0.0, now=NOW + 1)
    assert not may_change_factors(has_factor=True, factor_at=NOW, begun_at=late, now=late)
    assert not may_change_factors(has_factor=True, factor_at=late, begun_at=0.0, now=NOW), "the clock leapt back"
