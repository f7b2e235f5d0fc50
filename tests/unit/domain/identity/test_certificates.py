"""Lifetimes and requirements of certificates."""

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


def test_validity_begins_shortly_before_the_issuance() -> None:
    period = validity(NOW, 30_000.0, None)
    assert (period.start, period.end) == (NOW - SKEW, NOW + 30_000.0)
    assert period.renew_at == NOW - SKEW + (30_000.0 + SKEW) * 2 / 3
    assert validity(NOW, 100.0, None).start == NOW - 5.0


def test_certificate_does_not_outlive_its_issuer() -> None:
    assert validity(NOW, 3000.0, NOW + 1000.0).end == NOW + 1000.0


@pytest.mark.parametrize("left", [-1.0, 0.0, MIN_LIFETIME - 1])
def test_expiring_issuer_issues_nothing(left: float) -> None:
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
def test_weak_keys_are_refused(key: PublicKeyInfo, *, good: bool) -> None:
    assert (key_weakness(key) == "") is good


def test_certificate_is_valid_until_its_end_or_revocation() -> None:
    assert certificate().is_valid(NOW)
    assert not certificate().is_valid(NOW + 100)
    assert not certificate(revoked_at=NOW).is_valid(NOW)


@pytest.mark.parametrize(("newest", "is_revoked"), [(None, True), (NOW - 1, True), (NOW, True), (NOW + 0.001, False)])
def test_only_a_certificate_issued_after_the_revocation_ends_it(newest: float | None, *, is_revoked: bool) -> None:
    assert RevocationStatus("d1", NOW, newest).is_revoked is is_revoked


@pytest.mark.parametrize(
    ("kind", "is_authority"),
    [(CertificateKind.ROOT, True), (CertificateKind.ISSUING, True), (CertificateKind.CLIENT, False)],
)
def test_root_and_issuing_certificates_are_authorities(kind: CertificateKind, *, is_authority: bool) -> None:
    assert kind.is_authority is is_authority


def test_expiry_is_warned_of_30_days_before() -> None:
    day = 86_400.0
    ends = (("far", NOW + 31 * day), ("soon", NOW + 29 * day), ("over", NOW - 1), ("none", None))
    assert expiry_warnings(ends, NOW) == ("soon ends in 29 days", "over ended")
