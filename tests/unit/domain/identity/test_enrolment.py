"""What an enrolment token allows."""

from dataclasses import replace

import pytest

from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.domain.identity.enrolment import TOKEN_REFUSED, EnrolmentToken, check_enrolment, check_token

NOW = 1_800_000_000.0
TOKEN = EnrolmentToken("t1", "00", 1, NOW - 10, NOW + 10, "operator:ada")
HELD = (Certificate("a1", "b2", CertificateKind.CLIENT, "d1", NOW, NOW + 1, NOW, "operator", "00", ""),)


@pytest.mark.parametrize("token", [None, TOKEN.with_use(), replace(TOKEN, expires_at=NOW)])
def test_unknown_used_up_and_expired_tokens_are_refused(token: EnrolmentToken | None) -> None:
    assert check_token(token, NOW) == TOKEN_REFUSED
    assert check_enrolment(token, "d1", (), NOW, is_known=False) == TOKEN_REFUSED


def test_new_id_may_enrol() -> None:
    assert check_enrolment(TOKEN, "d1", (), NOW, is_known=False) is None


@pytest.mark.parametrize(("held", "known"), [(HELD, False), ((), True), (HELD, True)])
def test_id_that_was_ever_used_needs_an_approval(held: tuple[Certificate, ...], *, known: bool) -> None:
    refused = check_enrolment(TOKEN, "d1", held, NOW, is_known=known)
    assert refused is not None
    assert (refused.code, refused.is_alert) == ("id_taken", True)
    assert "--replace" in refused.message
    approved = replace(TOKEN, device_id="d1", replaces=True)
    assert check_enrolment(approved, "d1", held, NOW, is_known=known) is None


def test_token_of_one_device_is_refused_for_another() -> None:
    refused = check_enrolment(replace(TOKEN, device_id="d2", replaces=True), "d1", (), NOW, is_known=False)
    assert refused is not None
    assert (refused.code, refused.is_alert) == ("wrong_device", True)
