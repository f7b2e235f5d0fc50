"""Certificates in the configured folders (section `certificates`): chain, validity, device name, revocation."""

import base64
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from device_agent.collectors.base import MAX_AGE_DAYS, Section, SectionBuilder, days_between
from device_agent.collectors.crypto.crypto_files import CryptoFile, files_below, pem_blocks, utf8_of
from device_agent.collectors.crypto.key_format import read_keys
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.reading import NEEDS_ROOT, GapRecorder, error_reason
from device_agent.host.system import System
from schemas.safe_files import open_for_reading

if TYPE_CHECKING:
    from cryptography import x509

    from device_agent.collectors.crypto.fetch import IpNetwork
    from device_agent.collectors.crypto.ocsp import OcspMemory
    from device_agent.collectors.crypto.revocation import CrlLoader

DEFAULT_FOLDERS: Final = ("/etc/cordon",)
SYSTEM_STORES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
MAX_IN_FILE: Final = 16  # certificates; a longer file is a CA bundle, not a chain
MAX_CERTIFICATES: Final = 512  # of one scan
MAX_STORE_BYTES: Final = 2 * 1024 * 1024
_LABELS: Final = frozenset(
    {"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "PKCS7", "PKCS #7 SIGNED DATA", "CMS"}
)
_SUFFIXES: Final = frozenset({".crt", ".cer", ".cert", ".der", ".pem", ".p7b", ".p7c"})
_COMMENT: Final = re.compile(rb"^[ \t]*#.*$", re.MULTILINE)
# A sequence in a sequence, then the version or the number: a certificate, or what is left of one.
_CERTIFICATE_START: Final = re.compile(
    rb"\x30(?:[\0-\x7f]|\x81.|\x82..)\x30(?:[\0-\x7f]|\x81.|\x82..)[\xa0\x02]", re.DOTALL
)
_UNREADABLE: Final = "a certificate in it cannot be read"


@dataclass(frozen=True, slots=True)
class CertificateOptions:
    """What to check; without paths the existing default folders, without a store the system's."""

    paths: Sequence[Path] = ()
    device_certificate: Path | None = None
    device_id: str = ""
    trust_store: Path | None = None
    crl: Sequence[Path] = ()
    crl_urls: Sequence[str] = ()
    ocsp: bool = False
    ocsp_networks: "Sequence[IpNetwork]" = ()


@dataclass(frozen=True, slots=True)
class _CertificateEntry:
    """A certificate and its location; `is_own` marks the device's own."""

    name: str
    certificate: "x509.Certificate"
    is_own: bool = False


class CertificateCollector:
    """Collects the `certificates` section.

    Args:
        options: what to check.
        clock: returns Unix time.
    """

    def __init__(self, options: CertificateOptions | None = None, clock: Callable[[], float] = time.time) -> None:
        self._options = options or CertificateOptions()
        self._clock = clock
        self._crls: CrlLoader | None = None
        self._ocsp: OcspMemory | None = None

    def state(self) -> object:
        """Returns the downloaded CRLs (base64, by URL), the time of the download, and the OCSP answers."""
        if self._crls is None or self._ocsp is None:
            return None
        downloaded_at = self._crls.downloaded_at
        encoded = {url: base64.b64encode(data).decode("ascii") for url, data in self._crls.downloaded.items()}
        return [encoded, downloaded_at.isoformat() if downloaded_at else None, self._ocsp.state()]

    def restore(self, state: Any) -> None:
        """Restores what `state` returned."""
        if state is None:
            return
        from device_agent.collectors.crypto.ocsp import OcspMemory
        from device_agent.collectors.crypto.revocation import CrlLoader

        encoded, downloaded_at, answers = state
        crls = {url: base64.b64decode(data, validate=True) for url, data in encoded.items()}
        last = datetime.fromisoformat(downloaded_at) if downloaded_at else None
        self._crls = CrlLoader(self._options.crl, self._options.crl_urls, crls, last)
        self._ocsp = OcspMemory(answers)

    def __call__(self, system: System) -> Section:
        """Returns the section; revocation is checked as far as the configuration allows, else `notchecked`."""
        options = self._options
        own = str(options.device_certificate.absolute()) if options.device_certificate else ""
        folders = [str(path) for path in options.paths]
        folders = folders or [folder for folder in DEFAULT_FOLDERS if system.path(folder).is_dir()]
        roots = [*folders, *([own] if own else [])]
        if not roots:
            raise NotApplicableError(
                "no folder of certificates is configured, and the device has no certificate of its own"
            )
        gaps = GapRecorder()
        certificates = _find_certificates(system, roots, own, gaps)
        if not certificates and gaps.gaps and all(gap.reason == NEEDS_ROOT for gap in gaps.gaps):
            raise FactsUnavailableError(NEEDS_ROOT)
        now = datetime.fromtimestamp(self._clock(), UTC)
        section = SectionBuilder(folders=sorted(roots))
        section.add_gaps(gaps.gaps, "entries")
        store_name, entries = "", []
        if certificates:
            store_name, store, is_whole = _trust_store(system, options.trust_store, section)
            entries = self._check(system, certificates, store, now, section)
            if not is_whole:
                entries = [_without_distrust(entry) for entry in entries]
        section.set(trust_store=store_name, entries=sorted(entries, key=lambda entry: (entry["path"], entry["serial"])))
        return section.build()

    def _check(
        self,
        system: System,
        found: list[_CertificateEntry],
        store: "list[x509.Certificate]",
        now: datetime,
        section: SectionBuilder,
    ) -> list[dict[str, Any]]:
        # cryptography is large: loaded only where there are certificates.
        from device_agent.collectors.crypto import certificate_chain
        from device_agent.collectors.crypto.ocsp import OcspMemory
        from device_agent.collectors.crypto.revocation import CrlLoader

        options = self._options
        self._crls = self._crls or CrlLoader(options.crl, options.crl_urls)
        self._ocsp = self._ocsp or OcspMemory()
        known = [entry.certificate for entry in found]
        issuers = [*store, *known]
        # Each entry says itself what was not checked for lack of a list.
        crl_gaps = GapRecorder()
        crls = self._crls.load(system, issuers, now, crl_gaps)
        section.add_gaps(crl_gaps.gaps, "crl")
        entries = []
        for entry in found:
            certificate = entry.certificate
            chain, chain_reason = certificate_chain.verify_chain(certificate, known, store, now)
            revocation = crls.status_of(certificate)
            ocsp_status, ocsp_reason = "notchecked", ""
            if options.ocsp and chain != "trusted":
                ocsp_reason = "OCSP is asked for chains to the trust store only"
            elif options.ocsp:
                ocsp_status, ocsp_reason = self._ocsp.check(certificate, issuers, now, options.ocsp_networks)
            name, name_reason = _matches_device(certificate, options.device_id)
            reasons = [chain_reason, revocation.reason, ocsp_reason, name_reason]
            entries.append(
                {
                    "path": entry.name,
                    **certificate_chain.certificate_fields(certificate),
                    "is_own": entry.is_own,
                    "days_left": _days_left(certificate, now),
                    "not_yet_valid": certificate.not_valid_before_utc > now,
                    "chain": chain,
                    "name": name,
                    "crl": revocation.crl,
                    "revoked": revocation.revoked,
                    "ocsp": ocsp_status,
                    "reason": "; ".join(filter(None, reasons)),
                }
            )
        return entries


def _without_distrust(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the entry after a check with a part of the trust store: its authority may be in the rest."""
    if entry["chain"] != "untrusted":
        return entry
    return {**entry, "chain": "notchecked", "reason": f"the trust store was not read completely; {entry['reason']}"}


def _days_left(certificate: "x509.Certificate", now: datetime) -> int:
    """Counts calendar days until the certificate expires; negative from the moment it has expired."""
    end = certificate.not_valid_after_utc
    days = days_between(now.timestamp(), end.timestamp())
    return max(-MAX_AGE_DAYS, min(days, -1 if end <= now else days))


def _find_certificates(system: System, roots: Sequence[str], own: str, gaps: GapRecorder) -> list[_CertificateEntry]:
    entries: list[_CertificateEntry] = []
    own_path = system.path(own).resolve() if own else None
    for file in files_below(system, roots, gaps):
        is_own = own_path is not None and file.path.resolve() == own_path
        certificates = parse_certificates(file, gaps, is_expected=is_own)
        if len(certificates) > MAX_IN_FILE:
            gaps.add(f"a bundle of {len(certificates)} certificates, not checked", file.name)
            continue
        for number, certificate in enumerate(certificates):
            if len(entries) == MAX_CERTIFICATES:
                gaps.add(f"only the first {MAX_CERTIFICATES} certificates were checked")
                return entries
            name = file.name if number == 0 else f"{file.name}#{number + 1}"
            entries.append(_CertificateEntry(name, certificate, is_own=is_own and number == 0))
    return entries


def parse_certificates(file: CryptoFile, gaps: GapRecorder, *, is_expected: bool = False) -> "list[x509.Certificate]":
    """Returns every certificate of a PEM, DER or PKCS #7 file; what cannot be read is added to `gaps`.

    `is_expected` and the name's suffix say whether a file without any certificate, key or the like is a gap.
    """
    data = utf8_of(file.data)
    is_der, is_pem = data[:1] == b"\x30", b"-----BEGIN " in data
    is_expected = is_expected or (file.path.suffix.lower() in _SUFFIXES and bool(data.strip()))
    if not is_der and not is_pem:
        if is_expected:
            gaps.add(_UNREADABLE, file.name)
        return []
    from device_agent.collectors.crypto.certificate_chain import (  # large, see `_check`
        decode_pem,
        der_elements,
        is_other_structure,
        load_bundle,
    )

    certificates: list[x509.Certificate] = []
    if is_der:
        found = load_bundle(data)
        is_other = found is None and (is_other_structure(data) or bool(read_keys(data).value))
        if found is None and not is_other and (is_expected or _CERTIFICATE_START.match(data)):
            gaps.add(_UNREADABLE, file.name)
        return found or []
    for label, content, is_complete in pem_blocks(_COMMENT.sub(b"", data)):
        if label not in _LABELS:
            # Behind a damaged mark, or another program's: certificates are judged, anything else is not expected.
            der = decode_pem(content.partition(b"-----END ")[0])
            certificates += (load_bundle(der) if der is not None and _CERTIFICATE_START.match(der) else None) or []
            continue
        der = decode_pem(content) if is_complete else None
        if der is not None and label == "TRUSTED CERTIFICATE":
            der = b"".join(der_elements(der)[:1])  # then follow OpenSSL's own trust settings
        block = load_bundle(der) if der is not None else None
        if block is None:
            gaps.add(_UNREADABLE, file.name)
        certificates += block or []
    if is_expected and not certificates and b"-----BEGIN " not in _COMMENT.sub(b"", data):
        gaps.add(_UNREADABLE, file.name)
    return certificates


def _trust_store(
    system: System, configured: Path | None, section: SectionBuilder
) -> "tuple[str, list[x509.Certificate], bool]":
    """Returns path and authorities of the trust store, and whether all of it was read; what was not is a gap."""
    from device_agent.collectors.crypto.certificate_chain import load_pem

    paths = (str(configured),) if configured else SYSTEM_STORES
    name = next((path for path in paths if system.path(path).is_file()), "")
    if not name:
        section.gap("trust_store", reason=f"{configured} is not a file" if configured else "there is none")
        return "", [], False
    try:
        with open_for_reading(system.path(name)) as file:
            data = file.read(MAX_STORE_BYTES + 1)
    except OSError as e:
        section.gap("trust_store", reason=error_reason(e), source=name)
        return name, [], False
    blocks = pem_blocks(_COMMENT.sub(b"", utf8_of(data[:MAX_STORE_BYTES])))
    # OpenSSL's own trust settings in a TRUSTED CERTIFICATE may say that it is not trusted.
    authorities = [
        load_pem(content) if is_complete and label != "TRUSTED CERTIFICATE" else None
        for label, content, is_complete in blocks
        if label in _LABELS
    ]
    is_whole = len(data) <= MAX_STORE_BYTES and None not in authorities
    if not is_whole:
        section.gap("trust_store", reason="it was not read completely", source=name)
    return name, [authority for authority in authorities if authority is not None], is_whole


def _matches_device(certificate: "x509.Certificate", device_id: str) -> tuple[str, str]:
    """Compares the certificate's names with the device id: `matches`, `differs`, or `notchecked` with the reason."""
    from device_agent.collectors.crypto.certificate_chain import subject_names

    if not device_id:
        return "notchecked", "the device has no configured id"
    names = subject_names(certificate)
    if names is None:
        return "notchecked", "its names cannot be read"
    return ("matches" if device_id in names else "differs"), ""
