"""What certificates may say and how long they hold."""

import pytest

from controller.domain.identity.certificates import (
    MIN_LIFETIME,
    SKEW,
    Certificate,
    CertificateKind,
    CertificateTimeError,
    PublicKeyInfo,
    RevocationStatus,
    expiry_warnings,
    key_weakness,
    validity,
)

NOW = 1_800_000_000.0


def certificate(**changes: float | None) -> Certificate:
    times = {"start": NOW, "end": NOW + 100, "issued_at": NOW, **changes}
    revoked_at = times.pop("revoked_at", None)
    return Certificate(
        "a1",
        "b2",
        CertificateKind.CLIENT,
        "d1",
        origin="operator",
        key="00",
        pem="",
        revoked_at=revoked_at,
        **times,  # type: ignore[arg-type]  # only numbers are changed
    )


def test_a_certificate_holds_from_a_little_before_now() -> None:
    when = validity(NOW, 30_000.0, None)
    assert (when.start, when.end) == (NOW - SKEW, NOW + 30_000.0)
    assert when.renew_at == NOW - SKEW + (30_000.0 + SKEW) * 2 / 3
    assert validity(NOW, 100.0, None).start == NOW - 5.0


def test_none_outlives_its_issuer() -> None:
    assert validity(NOW, 3000.0, NOW + 1000.0).end == NOW + 1000.0


@pytest.mark.parametrize("left", [-1.0, 0.0, MIN_LIFETIME - 1])
def test_an_issuer_at_its_end_issues_nothing(left: float) -> None:
    with pytest.raises(CertificateTimeError, match="make a new one"):
        validity(NOW, 3000.0, NOW + left)


@pytest.mark.parametrize(
    ("key", "good"),
    [
        (PublicKeyInfo("ec", 256, "secp256r1"), True),
        (PublicKeyInfo("ec", 521, "secp521r1"), True),
        (PublicKeyInfo("ec", 192, "secp192r1"), False),
        (PublicKeyInfo("ec", 256, "secp256k1"), False),
        (PublicKeyInfo("rsa", 2048), True),
        (PublicKeyInfo("rsa", 1024), False),
        (PublicKeyInfo("ed25519", 256), True),
        (PublicKeyInfo("dsa", 2048), False),
    ],
)
def test_weak_keys(key: PublicKeyInfo, *, good: bool) -> None:
    assert (key_weakness(key) == "") is good


def test_a_certificate_holds_until_its_end_or_revocation() -> None:
    assert certificate().is_valid(NOW)
    assert not certificate().is_valid(NOW + 100)
    assert not certificate(revoked_at=NOW).is_valid(NOW)


@pytest.mark.parametrize(("newest", "out"), [(None, True), (NOW - 1, True), (NOW, True), (NOW + 0.001, False)])
def test_only_a_certificate_issued_after_the_revocation_answers_it(newest: float | None, *, out: bool) -> None:
    assert RevocationStatus("d1", NOW, newest).is_revoked is out


@pytest.mark.parametrize(
    ("kind", "is_authority"),
    [(CertificateKind.ROOT, True), (CertificateKind.ISSUING, True), (CertificateKind.CLIENT, False)],
)
def test_kinds(kind: CertificateKind, *, is_authority: bool) -> None:
    assert kind.is_authority is is_authority


def test_what_people_have_to_renew_is_told_in_time() -> None:
    day = 86_400.0
    ends = (("far", NOW + 31 * day), ("soon", NOW + 29 * day), ("over", NOW - 1), ("none", None))
    assert expiry_warnings(ends, NOW) == ("soon ends in 29 days", "over ended")
