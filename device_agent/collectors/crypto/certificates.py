"""Certificates in the folders that the device was told to look at: trusted, in time, of this device, not revoked."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.crypto.crypto_files import CryptoFile, files_below, pem_blocks
from device_agent.collectors.crypto.keys import days_between
from device_agent.collectors.reading import GapRecorder, reason_of
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System

if TYPE_CHECKING:
    from cryptography import x509

    from device_agent.collectors.crypto.revocation import CrlLoader

USUAL_FOLDERS: Final = ("/etc/cordon",)
SYSTEM_STORES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
MAX_IN_FILE: Final = 16  # certificates; a longer file is a collection of authorities, not a chain
MAX_LOOKED_AT: Final = 512  # certificates of one look
MAX_STORE_BYTES: Final = 2 * 1024 * 1024
MAX_DAYS: Final = 36_500
_MAX_PROBLEMS: Final = 16


@dataclass(frozen=True, slots=True)
class CertificateOptions:
    """What to look at; without a folder the usual ones that are there, without a store the system's."""

    paths: Sequence[Path] = ()
    own: Path | None = None
    device_id: str = ""
    trust_store: Path | None = None
    crl: Sequence[Path] = ()
    crl_urls: Sequence[str] = ()
    ocsp: bool = False


@dataclass(slots=True)
class _Seen:
    """One certificate: where it lies, and whether it is the device's own."""

    name: str
    certificate: "x509.Certificate"
    is_own: bool = False
    reasons: list[str] = field(default_factory=list)


class CertificateCollector:
    """Finds the `certificates` section.

    Args:
        wanted: what to look at.
        clock: seconds since the epoch.
    """

    def __init__(self, wanted: CertificateOptions | None = None, clock: Callable[[], float] = time.time) -> None:
        self._wanted = wanted or CertificateOptions()
        self._clock = clock
        self._lists: CrlLoader | None = None

    def remembered(self) -> object:
        """The lists that were fetched."""
        return None if self._lists is None else self._lists.fetched

    def recall(self, memory: Any) -> None:
        """Go on from there."""
        if memory is not None:
            from device_agent.collectors.crypto.revocation import CrlLoader

            self._lists = CrlLoader(self._wanted.crl, self._wanted.crl_urls)
            self._lists.fetched = memory

    def __call__(self, system: System) -> Section:
        """The `certificates` section; revocation by what the settings allow, and else `notchecked`."""
        wanted = self._wanted
        own = str(wanted.own.absolute()) if wanted.own else ""
        folders = [str(path) for path in wanted.paths]
        folders = folders or [place for place in USUAL_FOLDERS if system.path(place).is_dir()]
        places = [*folders, *([own] if own else [])]
        if not places:
            raise NotApplicableError(
                "no folder of certificates is configured, and the device has no certificate of its own"
            )
        gaps = GapRecorder()
        seen = _all_below(system, places, own, gaps)
        problems_of_files = gaps.listed()
        if not seen and problems_of_files and all(text.endswith(": needs root") for text in problems_of_files):
            raise FactsUnavailableError("needs root")
        now = datetime.fromtimestamp(self._clock(), UTC)
        store_name, store = _trust_store(system, wanted.trust_store, gaps) if seen else ("", [])
        entries = self._entries(system, seen, store, now, gaps) if seen else []
        return {
            "state": "ok",
            "folders": sorted(places),
            "trust_store": store_name,
            "entries": sorted(entries, key=lambda entry: (entry["path"], entry["serial"])),
            "problems": gaps.listed()[:_MAX_PROBLEMS],
        }

    def _entries(
        self, system: System, seen: list[_Seen], store: "list[x509.Certificate]", now: datetime, gaps: GapRecorder
    ) -> list[dict[str, Any]]:
        # Heavy, and only for whoever has certificates.
        from device_agent.collectors.crypto import certificate_chain, ocsp
        from device_agent.collectors.crypto.revocation import CrlLoader

        wanted = self._wanted
        self._lists = self._lists or CrlLoader(wanted.crl, wanted.crl_urls)
        known = [one.certificate for one in seen]
        issuers = [*store, *known]
        lists = self._lists.load(system, issuers, now, gaps)
        entries = []
        for one in seen:
            certificate = one.certificate
            trust, why = certificate_chain.judge(certificate, known, store, now)
            told = lists.judge(certificate)
            answer, answer_why = "notchecked", "OCSP is not switched on"
            if wanted.ocsp:
                answer, answer_why = ocsp.ask(certificate, issuers, now)
            name, name_why = _names(certificate, wanted.device_id)
            reasons = [why, told.reason, answer_why if wanted.ocsp else "", name_why]
            entries.append(
                {
                    "path": one.name,
                    **certificate_chain.described(certificate),
                    "is_own": one.is_own,
                    "days_left": _days_left(certificate, now),
                    "not_yet_valid": certificate.not_valid_before_utc > now,
                    "chain": trust,
                    "name": name,
                    "crl": told.crl,
                    "revoked": told.revoked,
                    "ocsp": answer,
                    "reason": "; ".join(filter(None, reasons)),
                }
            )
        return entries


def _days_left(certificate: "x509.Certificate", now: datetime) -> int:
    """Days by the calendar until it expires; below zero from the moment it has."""
    end = certificate.not_valid_after_utc
    days = days_between(now.timestamp(), end.timestamp())
    return max(-MAX_DAYS, min(days, -1 if end <= now else days))


def _all_below(system: System, places: Sequence[str], own: str, gaps: GapRecorder) -> list[_Seen]:
    seen: list[_Seen] = []
    own_path = system.path(own).resolve() if own else None
    for found in files_below(system, places, gaps):
        certificates = certificates_in(found, gaps)
        if len(certificates) > MAX_IN_FILE:
            gaps.add(found.name, f"a collection of {len(certificates)} certificates, not looked at")
            continue
        is_own = own_path is not None and found.path.resolve() == own_path
        for number, certificate in enumerate(certificates):
            if len(seen) == MAX_LOOKED_AT:
                gaps.add("certificates", f"only the first {MAX_LOOKED_AT} were looked at")
                return seen
            name = found.name if number == 0 else f"{found.name}#{number + 1}"
            seen.append(_Seen(name, certificate, is_own=is_own and number == 0))
    return seen


def certificates_in(found: CryptoFile, gaps: GapRecorder) -> "list[x509.Certificate]":
    """Every certificate of a PEM or DER file; one that cannot be read goes to `gaps`."""
    if found.data[:1] != b"\x30" and b"-----BEGIN " not in found.data:
        return []
    from device_agent.collectors.crypto.certificate_chain import (  # heavy, and only for whoever has certificates
        load_der,
        load_pem,
    )

    if found.data[:1] == b"\x30":
        single = load_der(found.data)
        return [single] if single else []
    certificates = []
    for label, content, is_whole in pem_blocks(found.data):
        if label not in ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"):
            continue
        certificate = load_pem(content) if is_whole else None
        if certificate is None:
            gaps.add(found.name, "a certificate in it cannot be read")
        else:
            certificates.append(certificate)
    return certificates


def _trust_store(system: System, configured: Path | None, gaps: GapRecorder) -> "tuple[str, list[x509.Certificate]]":
    """Name and authorities of the store that is believed; empty with a gap when there is none."""
    from device_agent.collectors.crypto.certificate_chain import load_pem

    places = (str(configured),) if configured else SYSTEM_STORES
    name = next((place for place in places if system.path(place).is_file()), "")
    if not name:
        gaps.add("trust_store", f"{configured} is not a file" if configured else "there is none")
        return "", []
    try:
        with system.path(name).open("rb") as file:
            data = file.read(MAX_STORE_BYTES)
    except OSError as e:
        gaps.add("trust_store", f"{name}: {reason_of(e)}")
        return name, []
    authorities = [load_pem(content) for label, content, whole in pem_blocks(data) if whole and "CERT" in label]
    return name, [one for one in authorities if one is not None]


def _names(certificate: "x509.Certificate", device_id: str) -> tuple[str, str]:
    """Whether it names this device, by common name or alternative name."""
    from device_agent.collectors.crypto.certificate_chain import names_of

    if not device_id:
        return "notchecked", "the device has no configured id"
    names = names_of(certificate)
    if names is None:
        return "notchecked", "its names cannot be read"
    return ("matches" if device_id in names else "differs"), ""
