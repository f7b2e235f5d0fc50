"""Whether a certificate was revoked, by lists (CRLs) from files and, where configured, from addresses."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from device_agent.collectors.crypto.certificate_chain import DAMAGED
from device_agent.collectors.crypto.crypto_files import files_below, pem_blocks
from device_agent.collectors.fetch import FetchError, fetch
from device_agent.collectors.reading import GapRecorder
from device_agent.host.system import System

FETCH_EVERY_SECONDS: Final = 3600.0
MAX_LIST_BYTES: Final = 4 * 1024 * 1024
# What limits the meaning of a list beyond its issuer: for one with it, "not on it" would say too little.
_KNOWN_CRITICAL: Final = frozenset({ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER})


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """What the lists say of one certificate; `reason` is why they say nothing."""

    crl: str
    revoked: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VerifiedCrls:
    """Lists with the judgement of each: `fresh`, `stale`, `badsignature`, or a reason why it cannot be used."""

    lists: Sequence[tuple[x509.CertificateRevocationList, str]]

    def judge(self, certificate: x509.Certificate) -> RevocationStatus:
        """The word of the lists on one certificate; a well-signed list that names it counts even when it is stale."""
        mine = [(crl, state) for crl, state in self.lists if crl.issuer == certificate.issuer]
        if not mine:
            return RevocationStatus("notchecked", "notchecked", "no revocation list of its issuer")
        signed = [(crl, state) for crl, state in mine if state in ("fresh", "stale")]
        if any(crl.get_revoked_certificate_by_serial_number(certificate.serial_number) for crl, _ in signed):
            state = "fresh" if any(state == "fresh" for _, state in signed) else "stale"
            return RevocationStatus(state, "yes")
        if any(state == "fresh" for _, state in signed):
            return RevocationStatus("fresh", "no")
        if signed:
            return RevocationStatus("stale", "notchecked", "the revocation list is out of date")
        state = mine[0][1]
        if state == "badsignature":
            return RevocationStatus(state, "notchecked", "the revocation list has no good signature of its issuer")
        return RevocationStatus("notchecked", "notchecked", state)


class CrlLoader:
    """Reads lists anew at each look, and fetches those with an address once an hour."""

    def __init__(self, paths: Sequence[Path], urls: Sequence[str]) -> None:
        self._paths = [str(path) for path in paths]
        self._urls = urls
        self._fetched: dict[str, bytes] = {}
        self._fetched_at: datetime | None = None

    @property
    def fetched(self) -> tuple[dict[str, bytes], datetime | None]:
        """Lists by address, and when they were fetched."""
        return self._fetched, self._fetched_at

    @fetched.setter
    def fetched(self, value: tuple[dict[str, bytes], datetime | None]) -> None:
        self._fetched, self._fetched_at = value

    def load(
        self, system: System, issuers: Sequence[x509.Certificate], now: datetime, gaps: GapRecorder
    ) -> VerifiedCrls:
        """Every list, judged; what cannot be read or fetched goes to `gaps`."""
        own = GapRecorder()
        blobs = [(found.name, found.data) for found in files_below(system, self._paths, own, MAX_LIST_BYTES)]
        blobs += self._from_addresses(now, own)
        lists = []
        for name, data in blobs:
            crls = _lists_in(data)
            if not crls:
                own.add(name, "no revocation list that can be read")
            lists += [(crl, _state(crl, issuers, now)) for crl in crls]
        for text in own.listed():
            field, _, reason = text.partition(": ")
            gaps.add(f"crl: {field}", reason)
        return VerifiedCrls(lists)

    def _from_addresses(self, now: datetime, gaps: GapRecorder) -> list[tuple[str, bytes]]:
        is_due = self._fetched_at is None or (now - self._fetched_at).total_seconds() >= FETCH_EVERY_SECONDS
        for url in self._urls:
            if is_due or url not in self._fetched:
                try:
                    self._fetched[url] = fetch(url, max_bytes=MAX_LIST_BYTES)
                except FetchError as e:
                    # The one from before goes on being used: its own date says how long.
                    gaps.add(url, str(e))
        if is_due:
            self._fetched_at = now
        return sorted(self._fetched.items())


def _lists_in(data: bytes) -> list[x509.CertificateRevocationList]:
    blobs: list[bytes] = []
    if data[:1] == b"\x30":
        blobs = [data]
    else:
        for label, content, is_whole in pem_blocks(data):
            if label == "X509 CRL" and is_whole:
                blobs.append(b"-----BEGIN X509 CRL-----" + content + b"-----END X509 CRL-----\n")
    found = []
    for blob in blobs:
        load = x509.load_der_x509_crl if blob[:1] == b"\x30" else x509.load_pem_x509_crl
        try:
            crl = load(blob)
            _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc)
        except DAMAGED:
            continue
        found.append(crl)
    return found


def _state(crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate], now: datetime) -> str:
    try:
        if not any(_is_signed_by(crl, one) for one in issuers if one.subject == crl.issuer):
            return "badsignature"
        beyond = [one for one in crl.extensions if one.critical and one.oid not in _KNOWN_CRITICAL]
    except DAMAGED:
        return "the revocation list cannot be read"
    if beyond:
        return "the revocation list covers only a part of what its issuer signed"
    is_fresh = crl.last_update_utc <= now and (crl.next_update_utc is None or now < crl.next_update_utc)
    return "fresh" if is_fresh else "stale"


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # other kinds raise TypeError
    except DAMAGED:
        return False
