"""Revocation lists of other authorities, from files and URLs: bounded, and accepted only with a valid signature."""

import asyncio
import http.client
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from controller.adapters.x509 import building
from controller.ports.certificates import AuthorityError, ExternalCrl, ExternalCrls
from controller.ports.errors import SettingsError
from schemas.http_deadline import HttpConnection, HttpsConnection
from schemas.pem import PemError, read_certificates, read_crl
from schemas.safe_files import open_for_reading

MAX_LIST: Final = 16 * 1024 * 1024  # bytes
MAX_ISSUERS: Final = 64
TIMEOUT: Final = 20.0  # seconds without a byte; a whole answer has `ANSWER_TIMEOUTS` times as long
_MAX_BUNDLE: Final = 1024 * 1024  # bytes


class X509ExternalCrls(ExternalCrls):
    """External revocation lists from files and URLs."""

    def __init__(self, issuers: Path) -> None:
        """Loads the certificates of the trusted issuers.

        Raises:
            SettingsError: the file cannot be used.
        """
        try:
            with open_for_reading(issuers) as file:
                content = file.read(_MAX_BUNDLE + 1)
            self._issuers = read_certificates(content, MAX_ISSUERS)
        except OSError as e:
            raise SettingsError(f"authority.watch_issuers: {issuers} cannot be read: {e.strerror}") from e
        except PemError as e:
            raise SettingsError(f"authority.watch_issuers: {issuers}: {e}") from e
        if len(content) > _MAX_BUNDLE:
            raise SettingsError(f"authority.watch_issuers: {issuers} is larger than {_MAX_BUNDLE} bytes")

    async def read(self, place: str, now: float) -> ExternalCrl:
        raw = await (asyncio.to_thread(_fetch, place) if "://" in place else asyncio.to_thread(_load, Path(place)))
        return await asyncio.to_thread(self._judge, place, raw, now)

    def _judge(self, place: str, raw: bytes, now: float) -> ExternalCrl:
        found = _parse(place, raw)
        issuer = next((one for one in self._issuers if one.subject == found.issuer and _signed(found, one)), None)
        if issuer is None:
            raise AuthorityError(f"{place}: not signed by any of authority.watch_issuers")
        until = found.next_update_utc
        if found.last_update_utc.timestamp() > now + _SKEW:
            raise AuthorityError(f"{place}: made in the future; is this machine's clock right?")
        if until is None or until.timestamp() <= now:
            raise AuthorityError(f"{place}: out of date since {until.isoformat() if until else 'ever'}")
        return ExternalCrl(
            place=place,
            issuer=building.key_identifier(issuer.public_key()),
            number=_number(found),
            next_update=until.timestamp(),
            serials=_serials(place, found),
        )


_SKEW: Final = 3600.0  # seconds; clocks disagree a little
# RFC 5280, 5.2: a list with another critical extension is not used.
_KNOWN: Final = frozenset(
    {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_NUMBER,
        ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        ExtensionOID.DELTA_CRL_INDICATOR,
    }
)
_KNOWN_OF_ENTRIES: Final = frozenset(
    {CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE, CRLEntryExtensionOID.CERTIFICATE_ISSUER}
)


def _signed(found: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return found.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # another kind is a TypeError
    except (TypeError, UnsupportedAlgorithm):
        return False


def _serials(place: str, found: x509.CertificateRevocationList) -> frozenset[str]:
    """Returns the serial numbers in a list (AuthorityError: what its entries mean is not known here).

    A list that covers only a part of its issuer's certificates is usable: who is on it is revoked.
    """
    try:
        _reject_unknown(place, found.extensions, _KNOWN)
        for one in found.extensions:
            if isinstance(one.value, x509.DeltaCRLIndicator):
                raise AuthorityError(f"{place}: lists only changes of another list (a delta CRL)")
            if isinstance(one.value, x509.IssuingDistributionPoint) and one.value.indirect_crl:
                raise AuthorityError(f"{place}: has entries of other authorities (an indirect CRL)")
        for entry in found:
            _reject_unknown(place, entry.extensions, _KNOWN_OF_ENTRIES)
            for one in entry.extensions:
                if isinstance(one.value, x509.CertificateIssuer):
                    raise AuthorityError(f"{place}: has entries of other authorities (an indirect CRL)")
                if isinstance(one.value, x509.CRLReason) and one.value.reason is x509.ReasonFlags.remove_from_crl:
                    raise AuthorityError(f"{place}: has entries of a delta CRL (removeFromCRL)")
        return frozenset(f"{one.serial_number:x}" for one in found)
    except (ValueError, x509.DuplicateExtension) as e:
        raise AuthorityError(f"{place}: its extensions cannot be read: {e}") from e


def _reject_unknown(place: str, extensions: x509.Extensions, known: frozenset[x509.ObjectIdentifier]) -> None:
    for one in extensions:
        if one.critical and one.oid not in known:
            raise AuthorityError(f"{place}: has a critical extension that is not known here ({one.oid.dotted_string})")


def _number(found: x509.CertificateRevocationList) -> int:
    try:
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError):
        return int(found.last_update_utc.timestamp())


def _parse(place: str, raw: bytes) -> x509.CertificateRevocationList:
    try:
        return read_crl(raw)
    except PemError as e:
        raise AuthorityError(f"{place}: not a revocation list: {e}") from e


def _load(path: Path) -> bytes:
    try:
        with open_for_reading(path) as file:  # a pipe would keep the thread for ever
            raw = file.read(MAX_LIST + 1)
    except OSError as e:
        raise AuthorityError(f"{path}: cannot be read: {e.strerror}") from e
    return _bounded(str(path), raw)


def _fetch(url: str) -> bytes:
    parts = urlsplit(url)
    kind = HttpsConnection if parts.scheme == "https" else HttpConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
        try:
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                raise AuthorityError(f"{url}: answered {response.status}")
            raw = response.read(MAX_LIST + 1)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise AuthorityError(f"{url}: cannot be fetched: {type(e).__name__} {e}") from e
    return _bounded(url, raw)


def _bounded(place: str, raw: bytes) -> bytes:
    if len(raw) > MAX_LIST:
        raise AuthorityError(f"{place}: larger than {MAX_LIST} bytes")
    return raw
