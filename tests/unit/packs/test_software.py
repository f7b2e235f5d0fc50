"""The baseline for software, keys and certificates finds what its titles say, and passes nothing that is not known."""

from typing import Any

import pytest

from controller.domain.policy.findings import RuleResult
from controller.domain.policy.model import ContainmentLevel
from tests.support.good_software import GOOD_SOFTWARE
from tests.support.packs import failing_rules, load_pack

NAME = "baseline-software"
SOURCE, CONFIG = GOOD_SOFTWARE["sources"]["entries"][0], GOOD_SOFTWARE["openssl"]["config"]
KEY, CERTIFICATE = GOOD_SOFTWARE["keys"]["entries"][0], GOOD_SOFTWARE["certificates"]["entries"][0]


def source(**fields: Any) -> dict[str, Any]:
    return {"sources": {"entries": [{**SOURCE, **fields}]}}


def config(**fields: Any) -> dict[str, Any]:
    return {"openssl": {"config": {**CONFIG, **fields}}}


def key(**fields: Any) -> dict[str, Any]:
    return {"keys": {"entries": [{**KEY, **fields}]}}


def certificate(**fields: Any) -> dict[str, Any]:
    return {"certificates": {"entries": [{**CERTIFICATE, **fields}]}}


@pytest.mark.parametrize(
    ("sections", "rules"),
    [
        ({"updates": {"seen_security_days": 15}}, {"security-updates-installed"}),
        ({"updates": {"unattended": False}}, {"unattended-upgrades"}),
        ({"updates": {"kernel_current": False}}, {"kernel-current"}),
        (source(signed=False, flags=["trusted=yes"]), {"sources-signed", "sources-not-weakened"}),
        (source(signed=False, enabled=False), set()),
        (source(transport="http", url="http://x"), {"sources-encrypted"}),
        (source(key=""), {"sources-have-their-own-key"}),
        (source(flags=["check-valid-until=no"]), {"sources-not-weakened"}),
        ({"openssl": {"stale_processes": ["nginx"]}}, {"openssl-in-memory-current"}),
        (config(min_protocol="TLSv1"), {"openssl-min-protocol"}),
        (config(min_protocol=""), set()),
        (config(cipher_string="ALL:@SECLEVEL=0", security_level=0), {"openssl-security-level"}),
        (config(legacy_provider=True), {"openssl-no-legacy"}),
        (config(unsafe_options=["UnsafeLegacyRenegotiation"]), {"openssl-no-unsafe-options"}),
        ({"openssl": {"tls_errors": "some"}}, set()),
        ({"openssl": {"tls_errors": "many"}}, {"few-tls-errors"}),
        (key(readable_by=["group"]), {"keys-private-to-owner"}),
        (key(readable_by=["group", "others"]), {"keys-private-to-owner", "keys-not-exposed"}),
        (key(replaceable_by=["others"]), {"keys-not-exposed"}),
        (key(protected=False), {"keys-with-passphrase"}),
        (key(kind="rsa", bits=1024), {"keys-strong"}),
        (key(kind="dsa", bits=2048), {"keys-strong"}),
        (key(age_days=731), {"keys-rotated"}),
        (certificate(revoked="yes"), {"own-certificate-not-revoked", "no-revoked-certificates"}),
        (certificate(ocsp="revoked"), {"own-certificate-not-revoked", "no-revoked-certificates"}),
        (certificate(revoked="yes", is_own=False), {"no-revoked-certificates"}),
        (certificate(chain="untrusted"), {"certificates-trusted"}),
        (certificate(days_left=13), {"certificates-renewed-in-time"}),
        (certificate(days_left=-1), {"certificates-renewed-in-time", "no-expired-certificates"}),
        (certificate(name="differs"), {"own-certificate-names-device"}),
        (certificate(name="differs", is_own=False), set()),
        (certificate(crl="stale"), {"revocation-lists-fresh"}),
        (certificate(kind="rsa", bits=1024), {"certificates-strong"}),
    ],
)
def test_the_pack_finds(sections: dict[str, Any], rules: set[str]) -> None:
    assert failing_rules(NAME, **sections) == rules


@pytest.mark.parametrize(
    ("sections", "rules"),
    [
        ({"updates": {"security_pending": None}}, {"security-updates-installed"}),
        ({"updates": {"kernel_current": None}}, {"kernel-current"}),
        (source(signed=None), {"sources-signed"}),
        ({"sources": {"entries": [], "problems": ["sources: none is configured"]}},
         {"sources-signed", "sources-not-weakened", "sources-encrypted", "sources-have-their-own-key"}),
        ({"openssl": {"stale_hidden": True}}, {"openssl-in-memory-current"}),
        ({"openssl": {"stale_processes": None}}, {"openssl-in-memory-current"}),
        ({"openssl": {"tls_errors": None}}, {"few-tls-errors"}),
        (key(protected=None), {"keys-with-passphrase"}),
        (key(kind="unknown", bits=0), {"keys-strong"}),
        (certificate(chain="notchecked"), {"certificates-trusted"}),
        (certificate(name="notchecked"), {"own-certificate-names-device"}),
        (certificate(revoked="notchecked"), {"own-certificate-not-revoked", "no-revoked-certificates"}),
        (certificate(revoked="notchecked", ocsp="good"), set()),
        (certificate(revoked="notchecked", ocsp="unknown"), {"own-certificate-not-revoked", "no-revoked-certificates"}),
        (certificate(revoked="notchecked", is_ca=True, self_signed=True, is_own=False), set()),
        ({"certificates": {"problems": ["crl: /x: No such file"]}}, set()),
        ({"certificates": {"problems": ["/etc/x: needs root"]}}, {
            "own-certificate-not-revoked", "no-revoked-certificates", "certificates-trusted", "no-expired-certificates",
            "certificates-renewed-in-time", "own-certificate-names-device", "revocation-lists-fresh",
            "certificates-strong"}),
    ],
)  # fmt: skip
def test_what_is_not_known_passes_nothing(sections: dict[str, Any], rules: set[str]) -> None:
    assert failing_rules(NAME, RuleResult.UNKNOWN, **sections) == rules
    assert failing_rules(NAME, **sections) == set()


def test_a_list_of_keys_that_was_cut_still_fails_on_its_part() -> None:
    cut = key(protected=False)
    cut["keys"]["truncated"] = 3
    assert failing_rules(NAME, **cut) == {"keys-with-passphrase"}
    assert failing_rules(NAME, RuleResult.UNKNOWN, **cut) >= {"keys-not-exposed", "keys-rotated"}


def test_only_a_revoked_certificate_of_its_own_contains_a_device() -> None:
    levels = {rule.key: rule.response.contain for rule in load_pack(NAME).rules.values()}
    contained = {name: level for name, level in levels.items() if level is not ContainmentLevel.NONE}
    assert contained == {f"{NAME}/own-certificate-not-revoked": ContainmentLevel.ISOLATED}
