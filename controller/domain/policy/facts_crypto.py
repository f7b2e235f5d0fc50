"""Facts about private keys and certificates."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from schemas.sections.crypto import CertificateFile, CertificatesSection, KeyFile, KeysSection

# Below these sizes (bits) a key is weak; DSA is at any.
_LEAST_BITS: Final = {"rsa": 2048, "ec": 224}
_ALWAYS_WEAK: Final = frozenset({"dsa"})

# Fact: its type, the section it comes from, its meaning.
CATALOGUE: Final[dict[str, tuple[str, str, str]]] = {
    "key_count": ("int", "keys", "number of private keys in the folders looked at"),
    "open_keys": ("list(string)", "keys", "private keys without a passphrase"),
    "exposed_keys": ("list(string)", "keys", "private keys that anybody may read or replace"),
    "group_readable_keys": ("list(string)", "keys", "private keys that their group may read or replace"),
    "weak_keys": ("list(string)", "keys", "private keys that are too short or of an outdated kind"),
    "oldest_key_days": ("int", "keys", "days since the oldest private key was written; 0 without any"),
    "certificate_count": ("int", "certificates", "number of certificates in the files looked at"),
    "expired_certificates": ("list(string)", "certificates", "certificates that have expired"),
    "soonest_expiry_days": ("int", "certificates", "days until the first certificate expires; negative when it has"),
    "untrusted_certificates": ("list(string)", "certificates", "certificates that no trusted authority vouches for"),
    "self_signed_certificates": ("list(string)", "certificates", "self-signed certificates that are no authority's"),
    "weak_certificates": ("list(string)", "certificates", "certificates of a weak key"),
    "misnamed_certificates": ("list(string)", "certificates", "the device's own certificate, when it does not name it"),
    "stale_crl_certificates": ("list(string)", "certificates", "certificates with an outdated or badly signed CRL"),
    "revoked_certificates": ("list(string)", "certificates", "certificates that were revoked"),
    "revoked_own_certificates": ("list(string)", "certificates", "the device's own certificate, when it was revoked"),
}


def _paths(entries: Iterable[KeyFile | CertificateFile]) -> list[str]:
    return sorted({entry.path for entry in entries})


def _is_weak(kind: str, bits: int) -> bool:
    return kind in _ALWAYS_WEAK or 0 < bits < _LEAST_BITS.get(kind, 0)


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
        "expired_certificates": _paths(one for one in entries if one.days_left < 0),
        "soonest_expiry_days": min((one.days_left for one in entries), default=None),
        "untrusted_certificates": _paths(one for one in entries if one.chain == "untrusted"),
        "self_signed_certificates": _paths(one for one in entries if one.self_signed and not one.is_ca),
        "weak_certificates": _paths(one for one in entries if _is_weak(one.kind, one.bits)),
        "misnamed_certificates": _paths(one for one in entries if one.is_own and one.name == "differs"),
        "stale_crl_certificates": _paths(one for one in entries if one.crl in ("stale", "badsignature")),
        "revoked_certificates": _paths(one for one in entries if _is_revoked(one)),
        "revoked_own_certificates": _paths(one for one in entries if one.is_own and _is_revoked(one)),
    }


READERS: Final[tuple[tuple[str, Any], ...]] = (("keys", _keys), ("certificates", _certificates))


def _of(section: str) -> list[str]:
    return [name for name, (_, owner, _) in CATALOGUE.items() if owner == section]


def _keys_partial(section: KeysSection) -> dict[str, str]:
    if section.problems:
        return dict.fromkeys(_of("keys"), f"keys: {section.problems[0]}")
    found = {}
    if untold := sum(key.protected is None for key in section.entries):
        found["open_keys"] = f"keys: of {untold} it is not known whether a passphrase protects them"
    if untold := sum(key.kind in ("rsa", "ec", "unknown") and not key.bits for key in section.entries):
        found["weak_keys"] = f"keys: the size of {untold} is not known without the passphrase"
    return found


def _certificates_partial(section: CertificatesSection) -> dict[str, str]:
    # Without a store or a list every certificate was still looked at, and each says what was not checked.
    missed = [text for text in section.problems if not text.startswith(("trust_store: ", "crl: "))]
    if missed:
        return dict.fromkeys(_of("certificates"), f"certificates: {missed[0]}")
    found = {}
    entries = section.entries
    if any(one.chain == "notchecked" for one in entries):
        found["untrusted_certificates"] = _unchecked_reason(entries, lambda one: one.chain == "notchecked")
    if any(one.is_own and one.name == "notchecked" for one in entries):
        found["misnamed_certificates"] = _unchecked_reason(entries, lambda one: one.is_own and one.name == "notchecked")
    # Both ways to learn of a revocation count; without either, nobody knows.
    if any(_is_unchecked(one) for one in entries):
        found["revoked_certificates"] = _unchecked_reason(entries, _is_unchecked)
    if any(one.is_own and _is_unchecked(one) for one in entries):
        found["revoked_own_certificates"] = _unchecked_reason(entries, lambda one: one.is_own and _is_unchecked(one))
    return found


def _is_unchecked(entry: CertificateFile) -> bool:
    # Nobody but whoever believes it can revoke an authority that signed itself.
    is_root = entry.is_ca and entry.self_signed
    return not is_root and entry.revoked == "notchecked" and entry.ocsp in ("notchecked", "unknown")


def _unchecked_reason(entries: Iterable[CertificateFile], wanted: Callable[[CertificateFile], bool]) -> str:
    unchecked = [entry for entry in entries if wanted(entry)]
    return f"certificates: {len(unchecked)} could not be checked: {unchecked[0].reason or unchecked[0].path}"


# Where a section tells only a part, for reasons of its own: fact and reason.
PARTIAL: Final[Mapping[str, Callable[[Any], Mapping[str, str]]]] = {
    "keys": _keys_partial,
    "certificates": _certificates_partial,
}
