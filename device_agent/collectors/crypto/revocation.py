"""Revocation of certificates by CRLs, from files and, where configured, from URLs."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from device_agent.collectors.crypto.certificate_chain import DAMAGED, decode_pem, der_elements
from device_agent.collectors.crypto.crypto_files import files_below, pem_blocks, utf8_of
from device_agent.collectors.crypto.fetch import FetchError, fetch
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

FETCH_EVERY_SECONDS: Final = 3600.0
MAX_CRL_BYTES: Final = 4 * 1024 * 1024
_KNOWN_CRITICAL: Final = frozenset(
    {
        *(ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER),
        *(ExtensionOID.ISSUING_DISTRIBUTION_POINT, ExtensionOID.DELTA_CRL_INDICATOR),
    }
)
ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)
_PARTIAL: Final = "the revocation list covers only a part of what its issuer signed"
_NO_REASON: Final = x509.ReasonFlags.unspecified


@dataclass(frozen=True, slots=True)
class RevocationStatus:
    """The fields `crl` and `revoked` of a certificate; `reason` explains `notchecked`."""

    crl: str
    revoked: str
    reason: str = ""


class VerifiedCrl:
    """A CRL and its state: `fresh`, `stale`, `badsignature`, or the reason why it cannot be used.

    A partial one (a delta, or with an issuing distribution point) does not show that a certificate is not revoked.
    """

    def __init__(self, crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate], now: datetime) -> None:
        self._crl = crl
        self.issuer = crl.issuer
        self.state = _verify_crl(crl, issuers, now)
        self.is_usable = self.state in ("fresh", "stale")
        self.is_partial = self.is_delta = False
        self._indirect: dict[tuple[x509.Name, int], x509.RevokedCertificate] | None = None
        if not self.is_usable:
            return
        point = _extension(crl, x509.IssuingDistributionPoint)
        delta = _extension(crl, x509.DeltaCRLIndicator)
        number = _extension(crl, x509.CRLNumber)
        self.is_delta = delta is not None
        self.is_partial = self.is_delta or point is not None
        self.number = number.crl_number if number is not None else 0
        self.base_number = delta.crl_number if delta is not None else 0
        if point is not None and point.indirect_crl:
            self._indirect = _entries_by_issuer(crl)

    def reason_of(self, certificate: x509.Certificate) -> x509.ReasonFlags | None:
        """Returns why the list has the certificate; None if it has not."""
        if self._indirect is not None:
            entry = self._indirect.get((certificate.issuer, certificate.serial_number))
        elif self.issuer == certificate.issuer:
            entry = self._crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        else:
            entry = None
        if entry is None:
            return None
        try:
            return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        except (x509.ExtensionNotFound, *DAMAGED):
            return _NO_REASON

    def speaks_for(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate's issuer issued the list, or the certificate names who did. [RFC 5280, 4.2.1.13]"""
        if self.issuer == certificate.issuer:
            return True
        points = _extension(certificate, x509.CRLDistributionPoints) or ()
        return any(x509.DirectoryName(self.issuer) in (point.crl_issuer or ()) for point in points)


@dataclass(frozen=True, slots=True)
class VerifiedCrls:
    """The CRLs, and whether every configured one could be read."""

    crls: Sequence[VerifiedCrl]
    is_complete: bool = True

    def status_of(self, certificate: x509.Certificate) -> RevocationStatus:
        """Returns the status of a certificate; an entry in a correctly signed CRL counts even when the CRL is stale."""
        listed = {crl: reason for crl in self.crls if crl.is_usable and (reason := crl.reason_of(certificate))}
        issued = [crl for crl in self.crls if crl.issuer == certificate.issuer or crl in listed]
        if not issued:
            return RevocationStatus("notchecked", "notchecked", "no revocation list of its issuer")
        revoking = [crl for crl in listed if crl.speaks_for(certificate) and not _is_lifted(crl, listed)]
        signed = [crl for crl in issued if crl.is_usable]
        if revoking:
            state = "fresh" if any(crl.state == "fresh" for crl in signed) else "stale"
            return RevocationStatus(state, "yes")
        if any(not crl.speaks_for(certificate) for crl in listed):
            return RevocationStatus(
                "notchecked", "notchecked", "it is on a revocation list of an issuer that it does not name"
            )
        whole = [crl for crl in signed if not crl.is_partial]
        if any(crl.state == "fresh" for crl in whole):
            if self.is_complete:
                return RevocationStatus("fresh", "no")
            return RevocationStatus("fresh", "notchecked", "a revocation list could not be read")
        if whole:
            return RevocationStatus("stale", "notchecked", "the revocation list is out of date")
        if signed:
            return RevocationStatus("notchecked", "notchecked", _PARTIAL)
        state = issued[0].state
        if state == "badsignature":
            return RevocationStatus(state, "notchecked", "the revocation list has no valid signature of its issuer")
        return RevocationStatus("notchecked", "notchecked", state)


def _is_lifted(crl: VerifiedCrl, listed: Mapping[VerifiedCrl, x509.ReasonFlags]) -> bool:
    """Whether an entry removes the certificate, or a hold that a fresh, later delta removes. [RFC 5280, 5.2.4]"""
    if listed[crl] is x509.ReasonFlags.remove_from_crl:
        return True
    return listed[crl] is x509.ReasonFlags.certificate_hold and any(
        reason is x509.ReasonFlags.remove_from_crl
        and other.is_delta
        and other.state == "fresh"
        and other.issuer == crl.issuer
        and other.base_number <= crl.number < other.number
        for other, reason in listed.items()
    )


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
        unread = GapRecorder()
        blobs = [(file.name, file.data) for file in files_below(system, self._paths, unread, MAX_CRL_BYTES)]
        blobs += self._download(issuers, now, gaps)
        verified = []
        for name, data in blobs:
            crls = _parse_crls(data)
            if not crls:
                unread.add("no readable revocation list", name)
            elif None in crls:
                unread.add("a revocation list in it cannot be read", name)
            verified += [VerifiedCrl(crl, issuers, now) for crl in crls if crl is not None]
        return VerifiedCrls(verified, is_complete=not gaps.take(unread.complete(unread.gaps)))

    def _download(
        self, issuers: Sequence[x509.Certificate], now: datetime, gaps: GapRecorder
    ) -> list[tuple[str, bytes]]:
        last = self.downloaded_at
        is_due = last is None or (now - last).total_seconds() >= FETCH_EVERY_SECONDS
        for url in self._urls:
            if is_due or url not in self.downloaded:
                try:
                    fetched = fetch(url, max_bytes=MAX_CRL_BYTES)
                except FetchError as e:
                    # The previous CRL stays in use; its own dates limit that.
                    gaps.add(str(e), url)
                    continue
                reason = _why_not_newer(fetched, self.downloaded.get(url), issuers, now)
                if reason:
                    gaps.add(reason, url)
                else:
                    self.downloaded[url] = fetched
        if is_due:
            self.downloaded_at = now
        return sorted(self.downloaded.items())


def _why_not_newer(fetched: bytes, kept: bytes | None, issuers: Sequence[x509.Certificate], now: datetime) -> str:
    """Returns why lists that were fetched must not replace those kept of the same address; empty if they may.

    Whoever is on the way could send an older list, on which a certificate is not revoked yet, or none. A list that is
    out of date gives way to any.
    """
    if kept is None:
        return ""
    after, before = (_newest_by_issuer(data, issuers, now) for data in (fetched, kept))
    for issuer, newest in before.items():
        if issuer not in after:
            return "what was fetched has no valid revocation list of an issuer of the one before, which stays in use"
        if after[issuer] < newest:
            return "the revocation list that was fetched is older than the one before, which stays in use"
    return ""


def _newest_by_issuer(
    data: bytes, issuers: Sequence[x509.Certificate], now: datetime
) -> dict[x509.Name, tuple[int, datetime]]:
    """Returns number and time of the newest fresh list of each issuer."""
    newest: dict[x509.Name, tuple[int, datetime]] = {}
    for crl in _parse_crls(data):
        verified = None if crl is None else VerifiedCrl(crl, issuers, now)
        if crl is not None and verified is not None and verified.state == "fresh":
            age = (verified.number, crl.last_update_utc)
            newest[crl.issuer] = max(age, newest.get(crl.issuer, age))
    return newest


def _parse_crls(data: bytes) -> list[x509.CertificateRevocationList | None]:
    """Returns the lists in a PEM or DER file; None for one that is malformed."""
    data = utf8_of(data)
    if data[:1] == b"\x30":
        return [_parse_crl(element) for element in der_elements(data)]
    blocks = [(content, is_complete) for label, content, is_complete in pem_blocks(data) if label == "X509 CRL"]
    return [_parse_crl(decode_pem(content)) if is_complete else None for content, is_complete in blocks]


def _parse_crl(der: bytes | None) -> x509.CertificateRevocationList | None:
    if der is None:
        return None
    try:
        crl = x509.load_der_x509_crl(der)
        _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc)
    except DAMAGED:
        return None
    return crl


def _verify_crl(crl: x509.CertificateRevocationList, issuers: Sequence[x509.Certificate], now: datetime) -> str:
    try:
        signers = [issuer for issuer in issuers if issuer.subject == crl.issuer and _is_signed_by(crl, issuer)]
        if not signers:
            return "badsignature"
        critical = {extension.oid for extension in crl.extensions if extension.critical}
    except DAMAGED:
        return "the revocation list cannot be read"
    if not any(_may_sign_crls(signer) for signer in signers):
        return "its issuer may not sign revocation lists"
    if critical - _KNOWN_CRITICAL:
        return "the revocation list has a critical extension that is not understood"
    is_fresh = crl.last_update_utc <= now and (crl.next_update_utc is None or now < crl.next_update_utc)
    return "fresh" if is_fresh else "stale"


def _may_sign_crls(issuer: x509.Certificate) -> bool:
    usage = _extension(issuer, x509.KeyUsage)
    return usage is None or usage.crl_sign


def _extension(holder: x509.Certificate | x509.CertificateRevocationList, kind: type[ExtensionT]) -> ExtensionT | None:
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, *DAMAGED):
        return None


def _entries_by_issuer(
    crl: x509.CertificateRevocationList,
) -> dict[tuple[x509.Name, int], x509.RevokedCertificate]:
    """Returns the entries of an indirect list: each belongs to the issuer last named. [RFC 5280, 5.3.3]"""
    entries = {}
    issuers = [crl.issuer]
    for entry in crl:
        with contextlib.suppress(x509.ExtensionNotFound, *DAMAGED):
            named = entry.extensions.get_extension_for_class(x509.CertificateIssuer).value
            issuers = named.get_values_for_type(x509.DirectoryName)
        for issuer in issuers:
            entries[issuer, entry.serial_number] = entry
    return entries


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # other key types raise TypeError
    except DAMAGED:
        return False
