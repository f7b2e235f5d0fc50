"""Facts about private keys and certificates."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from schemas.sections.crypto import CertificateFile, CertificatesSection, KeyFile, KeysSection

# Shorter keys (bits) are weak; DSA keys always are.
_MIN_BITS: Final = {"rsa": 2048, "ec": 224}
_ALWAYS_WEAK: Final = frozenset({"dsa"})

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "key_count": ("int", "keys", "number of private keys in the scanned folders"),
    "open_keys": ("list(string)", "keys", "private keys without a passphrase, and not in hardware"),
    "exposed_keys": ("list(string)", "keys", "private keys that every user may read or replace"),
    "group_readable_keys": ("list(string)", "keys", "private keys that their group may read or replace"),
    "weak_keys": ("list(string)", "keys", "private keys that are too short or of an outdated kind"),
    "oldest_key_days": ("int", "keys", "days since the oldest private key was written; 0 without any"),
    "certificate_count": ("int", "certificates", "number of certificates in the scanned files"),
    "expired_certificates": ("list(string)", "certificates", "certificates that have expired"),
    "soonest_expiry_days": ("int", "certificates", "days until the first certificate expires; negative after that"),
    "untrusted_certificates": ("list(string)", "certificates", "certificates without a chain to a trusted authority"),
    "self_signed_certificates": (
        "list(string)",
        "certificates",
        "self-signed certificates that are not of an authority",
    ),
    "weak_certificates": ("list(string)", "certificates", "certificates with a weak key"),
    "misnamed_certificates": (
        "list(string)",
        "certificates",
        "the device's own certificate, if it names another device",
    ),
    "stale_crl_certificates": ("list(string)", "certificates", "certificates with an outdated or badly signed CRL"),
    "revoked_certificates": ("list(string)", "certificates", "certificates that were revoked"),
    "revoked_own_certificates": ("list(string)", "certificates", "the device's own certificate, if it was revoked"),
}
# The section's fields behind each fact; devices name the field in their gaps.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys(CATALOGUE, ("entries",))
# Numbers of which a part of the entries shows a bound: a lower one, or an upper one for those in `FALLING`.
GROWING: Final = frozenset({"key_count", "oldest_key_days", "certificate_count", "soonest_expiry_days"})
# Names in gaps without which every entry is still reported, each with the checks that were not made.
EXPLANATIONS: Final = frozenset({"trust_store", "crl"})
# Facts that become smaller when the section gets more entries.
FALLING: Final = frozenset({"soonest_expiry_days"})


def _paths(entries: Iterable[KeyFile | CertificateFile]) -> list[str]:
    return sorted({entry.path for entry in entries})


def _is_weak(kind: str, bits: int) -> bool:
    return kind in _ALWAYS_WEAK or 0 < bits < _MIN_BITS.get(kind, 0)


def _keys(section: KeysSection) -> dict[str, Any]:
    entries = section.entries
    return {
        "key_count": len(entries),
        "open_keys": _paths(key for key in entries if key.protected is False),
        "exposed_keys": _paths(key for key in entries if "others" in (*key.readable_by, *key.replaceable_by)),
        "group_readable_keys": _paths(key for key in entries if "group" in (*key.readable_by, *key.replaceable_by)),
        "weak_keys": _paths(key for key in entries if _is_weak(key.kind, key.bits)),
        "oldest_key_days": max((key.age_days for key in entries), default=0),
    }


def _is_revoked(entry: CertificateFile) -> bool:
    return entry.revoked == "yes" or entry.ocsp == "revoked"


def _certificates(section: CertificatesSection) -> dict[str, Any]:
    entries = section.entries
    return {
        "certificate_count": len(entries),
        "expired_certificates": _paths(entry for entry in entries if entry.days_left < 0),
        "soonest_expiry_days": min((entry.days_left for entry in entries), default=None),
        "untrusted_certificates": _paths(entry for entry in entries if entry.chain == "untrusted"),
        "self_signed_certificates": _paths(entry for entry in entries if entry.self_signed and not entry.is_ca),
        "weak_certificates": _paths(entry for entry in entries if _is_weak(entry.kind, entry.bits)),
        "misnamed_certificates": _paths(entry for entry in entries if entry.is_own and entry.name == "differs"),
        "stale_crl_certificates": _paths(entry for entry in entries if entry.crl in ("stale", "badsignature")),
        "revoked_certificates": _paths(entry for entry in entries if _is_revoked(entry)),
        "revoked_own_certificates": _paths(entry for entry in entries if entry.is_own and _is_revoked(entry)),
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (("keys", _keys), ("certificates", _certificates))


def _keys_partial(section: KeysSection) -> dict[str, str]:
    found = {}
    if unknown := sum(key.protected is None for key in section.entries):
        found["open_keys"] = f"keys: for {unknown} it is unknown whether they have a passphrase"
    if unknown := sum(key.kind in ("rsa", "ec", "unknown") and not key.bits for key in section.entries):
        found["weak_keys"] = f"keys: the size of {unknown} is unknown without the passphrase"
    return found


def _certificates_partial(section: CertificatesSection) -> dict[str, str]:
    found = {}
    entries = section.entries
    if any(entry.chain == "notchecked" for entry in entries):
        found["untrusted_certificates"] = _unchecked_reason(entries, lambda entry: entry.chain == "notchecked")
    if any(entry.is_own and entry.name == "notchecked" for entry in entries):
        found["misnamed_certificates"] = _unchecked_reason(
            entries, lambda entry: entry.is_own and entry.name == "notchecked"
        )
    # A revocation shows in a CRL or by OCSP; it is unknown without both.
    if any(_is_unchecked(entry) for entry in entries):
        found["revoked_certificates"] = _unchecked_reason(entries, _is_unchecked)
    if any(entry.is_own and _is_unchecked(entry) for entry in entries):
        found["revoked_own_certificates"] = _unchecked_reason(
            entries, lambda entry: entry.is_own and _is_unchecked(entry)
        )
    return found


def _is_unchecked(entry: CertificateFile) -> bool:
    # A self-signed authority cannot be revoked.
    is_root = entry.is_ca and entry.self_signed
    return not is_root and entry.revoked == "notchecked" and entry.ocsp in ("notchecked", "unknown")


def _unchecked_reason(entries: Iterable[CertificateFile], condition: Callable[[CertificateFile], bool]) -> str:
    unchecked = [entry for entry in entries if condition(entry)]
    return f"certificates: {len(unchecked)} could not be checked: {unchecked[0].reason or unchecked[0].path}"


# Facts of which a section has only a part, and why.
PARTIAL: Final[Mapping[str, Callable[[Any], Mapping[str, str]]]] = {
    "keys": _keys_partial,
    "certificates": _certificates_partial,
}
