"""Revocation of certificates by CRLs, from files and, where configured, from URLs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from device_agent.collectors.crypto.certificate_chain import DAMAGED
from device_agent.collectors.crypto.crypto_files import files_below, pem_blocks
from device_agent.collectors.crypto.fetch import FetchError, fetch
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

FETCH_EVERY_SECONDS: Final = 3600.0
MAX_CRL_BYTES: Final = 4 * 1024 * 1024
# Any other critical extension limits the scope of a CRL: a certificate that is not on it may still be revoked.
_KNOWN_CRITICAL: Final = frozenset({ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER})


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """The fields `crl` and `revoked` of a certificate; `reason` explains `notchecked`."""

    crl: str
    revoked: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VerifiedCrls:
    """CRLs with the state of each: `fresh`, `stale`, `badsignature`, or the reason why it cannot be used."""

    crls: Sequence[tuple[x509.CertificateRevocationList, str]]

    def status_of(self, certificate: x509.Certificate) -> RevocationStatus:
        """Returns the status of a certificate; an entry in a correctly signed CRL counts even when the CRL is stale."""
        issued = [(crl, state) for crl, state in self.crls if crl.issuer == certificate.issuer]
        if not issued:
            return RevocationStatus("notchecked", "notchecked", "no revocation list of its issuer")
        signed = [(crl, state) for crl, state in issued if state in ("fresh", "stale")]
        if any(crl.get_revoked_certificate_by_serial_number(certificate.serial_number) for crl, _ in signed):
            state = "fresh" if any(state == "fresh" for _, state in signed) else "stale"
            return RevocationStatus(state, "yes")
        if any(state == "fresh" for _, state in signed):
            return RevocationStatus("fresh", "no")
        if signed:
            return RevocationStatus("stale", "notchecked", "the revocation list is out of date")
        state = issued[0][1]
        if state == "badsignature":
            return RevocationStatus(state, "notchecked", "the revocation list has no valid signature of its issuer")
        return RevocationStatus("notchecked", "notchecked", state)


class CrlLoader:
    """Reads CRL files at each scan and downloads CRLs from URLs once an hour."""

    def __init__(
        self,
        paths: Sequence[Path],
        urls: Sequence[str],
        downloaded: Mapping[str, bytes] | None = None,
        downloaded_at: datetime | None = None,
    ) -> None:
        self._paths = [str(path) for path in paths]
        self._urls = urls
        self.downloaded = dict(downloaded or {})
        """CRLs by URL."""
        self.downloaded_at = downloaded_at

    def load(
        self, system: System, issuers: Sequence[x509.Certificate], now: datetime, gaps: GapRecorder
    ) -> VerifiedCrls:
        """Returns every CRL with its state; failures are added to `gaps`."""
        blobs = [(file.name, file.data) for file in files_below(system, self._paths, gaps, MAX_CRL_BYTES)]
        blobs += self._download(now, gaps)
        verified = []
        for name, data in blobs:
            crls = _parse_crls(data)
            if not crls:
                gaps.add("no readable revocation list", name)
            verified += [(crl, _verify_crl(crl, issuers, now)) for crl in crls]
        return VerifiedCrls(verified)

    def _download(self, now: datetime, gaps: GapRecorder) -> list[tuple[str, bytes]]:
        last = self.downloaded_at
        is_due = last is None or (now - last).total_seconds() >= FETCH_EVERY_SECONDS
        for url in self._urls:
            if is_due or url not in self.downloaded:
                try:
                    self.downloaded[url] = fetch(url, max_bytes=MAX_CRL_BYTES)
                except FetchError as e:
                    # The previous CRL stays in use; its own dates limit that.
                    gaps.add(str(e), url)
        if is_due:
            self.downloaded_at = now
        return sorted(self.downloaded.items())


def _parse_crls(data: bytes) -> list[x509.CertificateRevocationList]:
    blobs: list[bytes] = []
    if data[:1] == b"\x30":
        blobs = [data]
    else:
        for label, content, is_complete in pem_blocks(data):
            if label == "X509 CRL" and is_complete:
                blobs.append(b"-----BEGIN X509 CRL-----" + content + b"-----END X509 CRL-----\n")
    crls = []
    for blob in blobs:
        load = x509.load_der_x509_crl if blob[:1] == b"\x30" else x509.load_pem_x509_crl
        try:
            crl = load(blob)
            _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc)
        except DAMAGED:
            continue
        crls.append(crl)
    return crls


def _verify_crl(crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate], now: datetime) -> str:
    try:
        if not any(_is_signed_by(crl, issuer) for issuer in issuers if issuer.subject == crl.issuer):
            return "badsignature"
        critical = {extension.oid for extension in crl.extensions if extension.critical}
    except DAMAGED:
        return "the revocation list cannot be read"
    if critical - _KNOWN_CRITICAL:
        return "the revocation list covers only a part of what its issuer signed"
    is_fresh = crl.last_update_utc <= now and (crl.next_update_utc is None or now < crl.next_update_utc)
    return "fresh" if is_fresh else "stale"


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # other key types raise TypeError
    except DAMAGED:
        return False
