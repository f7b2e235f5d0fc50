"""Certificates, requests and revocation lists from outside: what was checked is what is used.

OpenSSL, Python's `ssl` and `cryptography` read the same text differently: each skips what it does not understand, and
stops at another place. Whoever checks with one of them and passes the text on to another trusts what nobody checked.
Each reader here therefore accepts blocks of one label and nothing else (no text, byte order mark, header or second
encoding of the same bytes), and returns parsed objects. Callers check, compare, store and trust these, encoded again.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final, Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

MAX_CHAIN: Final = 4  # certificates between a leaf and its root
_BLANK: Final = rb"(?:[ \t]*\r?\n)*"
_BLOCK: Final = re.compile(
    _BLANK + rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+)-----END \1-----"
    rb"[ \t]*(?:\r?\n|\Z)" + _BLANK + rb"(?:[ \t]+\Z)?"
)
_SEQUENCE: Final = b"\x30"  # the first byte of these objects in DER


class PemError(ValueError):
    """Text that is not exactly what was asked for; the message says what is wrong, without quoting it."""


class _Encodable(Protocol):
    def public_bytes(self, encoding: Encoding) -> bytes: ...


_Object = TypeVar("_Object", bound=_Encodable)


def read_certificates(content: str | bytes, most: int) -> tuple[x509.Certificate, ...]:
    """Returns all certificates of a PEM text, between 1 and `most`.

    Raises:
        PemError: fewer or more, or anything else in the text.
    """
    return _read(content, "CERTIFICATE", most, x509.load_der_x509_certificate)


def read_certificate(content: str | bytes) -> x509.Certificate:
    """Returns the certificate of a PEM text with exactly one (PemError)."""
    return read_certificates(content, 1)[0]


def read_chain(content: str) -> tuple[x509.Certificate, ...]:
    """Returns the certificates that follow a leaf, none for an empty text, at most `MAX_CHAIN` (PemError)."""
    return read_certificates(content, MAX_CHAIN) if content else ()


def read_request(content: str | bytes) -> x509.CertificateSigningRequest:
    """Returns the request of a PEM text with exactly one (PemError)."""
    return _read(content, "CERTIFICATE REQUEST", 1, x509.load_der_x509_csr)[0]


def read_crl(content: bytes) -> x509.CertificateRevocationList:
    """Returns the revocation list of a text or DER with exactly one (PemError)."""
    if content.startswith(_SEQUENCE):
        return _parse(content, "X509 CRL", x509.load_der_x509_crl)
    return _read(content, "X509 CRL", 1, x509.load_der_x509_crl)[0]


def encode(certificates: Iterable[x509.Certificate]) -> str:
    """Returns certificates in PEM, one after the other."""
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def fingerprint(certificate: x509.Certificate) -> str:
    """Returns the SHA-256 of the whole certificate in hex, which devices pin."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def check_chain(certificates: Iterable[x509.Certificate]) -> None:
    """Checks that each certificate is signed by the next one, and none is there twice (PemError)."""
    chain = tuple(certificates)
    if len(set(chain)) < len(chain):
        raise PemError("the chain has a certificate twice")
    for one, issuer in pairwise(chain):
        try:
            one.verify_directly_issued_by(issuer)
        except Exception as e:  # invalid signature, wrong name, unsupported key: all mean the same here
            raise PemError("a certificate of the chain is not signed by the next one") from e


def _read(content: str | bytes, label: str, most: int, load: Callable[[bytes], _Object]) -> tuple[_Object, ...]:
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    objects: list[_Object] = []
    end = 0
    while end < len(raw) or not objects:
        block = _BLOCK.match(raw, end)
        if block is None or block[1] != label.encode():
            wanted = "one block" if most == 1 else f"up to {most} blocks"
            raise PemError(f"not {wanted} {label} in PEM and nothing else; remove any other text")
        if len(objects) == most:
            raise PemError(f"more than {most} {label} in PEM")
        objects.append(_parse(_decode(block[2], label), label, load))
        end = block.end()
    return tuple(objects)


def _decode(body: bytes, label: str) -> bytes:
    text = b"".join(body.split())
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error as e:
        raise PemError(f"the {label} is not in base64") from e
    if base64.b64encode(der) != text:
        raise PemError(f"the {label} is not in canonical base64")
    return der


def _parse(der: bytes, label: str, load: Callable[[bytes], _Object]) -> _Object:
    try:
        found = load(der)
        is_same = found.public_bytes(Encoding.DER) == der
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise PemError(f"the {label} cannot be parsed") from e
    if not is_same:
        raise PemError(f"the {label} is not in canonical DER")
    return found
