"""Reads private keys in ASN.1: PKCS #1, PKCS #8, SEC 1, DSA, PKCS #12 and TPM 2.0. Nothing is decrypted."""

import struct
from dataclasses import dataclass
from typing import Final

from device_agent.errors import FactsUnavailableError

_MAX_STRUCTURES: Final = 256  # looked at in one file
MAX_BITS: Final = 65_536  # larger sizes are reported as this
_RSA: Final = frozenset({"1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"})
_EC: Final = "1.2.840.10045.2.1"
_DSA: Final = "1.2.840.10040.4.1"
_FIXED: Final = {
    "1.3.101.110": ("x25519", 256),
    "1.3.101.111": ("x448", 448),
    "1.3.101.112": ("ed25519", 256),
    "1.3.101.113": ("ed448", 456),
}
# The named curves of X9.62, SEC 2, Brainpool and SM2 by the last arc, with the bits of their field.
_SEC2: Final = (
    *((1, 163), (2, 163), (3, 239), (4, 113), (5, 113), (6, 112), (7, 112), (8, 160), (9, 160), (10, 256), (15, 163)),
    *((16, 283), (17, 283), (22, 131), (23, 131), (24, 193), (25, 193), (26, 233), (27, 233), (28, 128), (29, 128)),
    *((30, 160), (31, 192), (32, 224), (33, 224), (34, 384), (35, 521), (36, 409), (37, 409), (38, 571), (39, 571)),
)
_CURVES: Final = {
    **{f"1.2.840.10045.3.1.{arc}": bits for arc, bits in enumerate((192, 192, 192, 239, 239, 239, 256), 1)},
    **{f"1.3.132.0.{arc}": bits for arc, bits in _SEC2},
    **{
        f"1.3.36.3.3.2.8.1.1.{arc}": bits
        for arc, bits in enumerate((160, 160, 192, 192, 224, 224, 256, 256, 320, 320, 384, 384, 512, 512), 1)
    },
    "1.2.156.10197.1.301": 256,
}
_PRIME_FIELD: Final = "1.2.840.10045.1.1"
# PBES1, PBES2 and the schemes of PKCS #12.
_ENCRYPTION: Final = ("1.2.840.113549.1.5.", "1.2.840.113549.1.12.1.")
# Data, or signed data: the content types at the start of every PKCS #12 file.
_PKCS12_CONTENT: Final = frozenset({"1.2.840.113549.1.7.1", "1.2.840.113549.1.7.2"})
_TPM: Final = "2.23.133."  # the arc of the Trusted Computing Group
_TPM_RSA, _TPM_ECC, _TPM_NULL = 0x0001, 0x0023, 0x0010
_TPM_CURVES: Final = {1: 192, 2: 224, 3: 256, 4: 384, 5: 521, 0x10: 256, 0x11: 638, 0x20: 256}
_SEQUENCE, _INTEGER, _OID, _OCTETS, _CONTEXT = 0x30, 0x02, 0x06, 0x04, 0xA0


@dataclass(frozen=True, slots=True)
class KeyFormat:
    """Format and properties of a private key; `bits` is 0 and `protected` None where the format does not say."""

    format: str
    kind: str = "unknown"
    bits: int = 0
    protected: bool | None = None


class DerReader:
    """Reads the elements of one level of a DER structure."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def rest(self) -> bytes:
        """What was not read yet."""
        return self._data[self._at :]

    def peek(self) -> int:
        """Returns the tag of the next element; -1 at the end."""
        return -1 if self._at >= len(self._data) else self._data[self._at]

    def read_element(self, tag: int | None = None) -> bytes:
        """Returns the content of the next element.

        Raises:
            ValueError: truncated, an invalid length, or another tag than `tag`.
        """
        data, at = self._data, self._at
        if at + 2 > len(data) or (tag is not None and data[at] != tag):
            raise ValueError("unexpected structure")
        length, at = data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or at + count > len(data):
                raise ValueError("invalid length")
            length, at = int.from_bytes(data[at : at + count]), at + count
        if at + length > len(data):
            raise ValueError("truncated")
        self._at = at + length
        return data[at : at + length]

    def read_whole(self) -> bytes:
        """Returns the next element with its tag and length (ValueError as `read_element`)."""
        start = self._at
        self.read_element()
        return self._data[start : self._at]

    def sequence(self) -> "DerReader":
        """Enters the next element, a SEQUENCE."""
        return DerReader(self.read_element(_SEQUENCE))

    def enter(self) -> "DerReader":
        """Enters the next element, a SEQUENCE that may be longer than the data, or of indefinite length (BER)."""
        data, at = self._data, self._at
        if at + 2 > len(data) or data[at] != _SEQUENCE:
            raise ValueError("unexpected structure")
        return DerReader(data[at + 2 + (data[at + 1] & 0x7F if data[at + 1] > 0x80 else 0) :])


def read_asn1_keys(data: bytes, limit: int) -> list[KeyFormat]:
    """Returns the keys of a file with DER structures, at most `limit`; other structures are no keys."""
    if is_pkcs12(data):
        return [KeyFormat("pkcs12")]
    keys: list[KeyFormat] = []
    reader = DerReader(data)
    for _ in range(_MAX_STRUCTURES):
        if reader.peek() != _SEQUENCE or len(keys) >= limit:
            return keys
        try:
            whole = reader.read_whole()
        except ValueError:  # the last one: it has no end
            return [*keys, KeyFormat("der")] if _begins_like_a_key(reader.rest) else keys
        try:
            key = read_asn1_key(whole)
        except ValueError:
            key = KeyFormat("der") if _begins_like_a_key(whole) else None
        if key is not None:
            keys.append(key)
    raise FactsUnavailableError(f"more than {_MAX_STRUCTURES} structures")


def _begins_like_a_key(data: bytes) -> bool:
    """Whether a malformed structure begins as private keys do: a version, then an algorithm, a number or octets."""
    try:
        body = DerReader(data).enter()
        return body.read_element(_INTEGER) in (b"\0", b"\1") and body.peek() in (_SEQUENCE, _INTEGER, _OCTETS)
    except ValueError:
        return False


def is_pkcs12(data: bytes) -> bool:
    """Whether this is the start of a PKCS #12 file, in DER or BER."""
    try:
        outer = DerReader(data).enter()
        version = outer.read_element(_INTEGER)
        content_type = outer.enter().read_element(_OID)
    except ValueError:
        return False
    return version == b"\x03" and oid_text(content_type) in _PKCS12_CONTENT


def read_asn1_key(data: bytes) -> KeyFormat | None:
    """Returns the key at the start of `data`; None for another structure, such as a certificate.

    Raises:
        ValueError: malformed.
    """
    body = DerReader(data).sequence()
    if body.peek() == _SEQUENCE:  # EncryptedPrivateKeyInfo, or another structure
        inner = body.sequence()
        if inner.peek() != _OID or body.peek() != _OCTETS:
            return None
        is_known = oid_text(inner.read_element()).startswith(_ENCRYPTION)
        return KeyFormat("pkcs8", protected=True) if is_known else None
    if body.peek() == _OID:
        return _tpm_key(body)
    version = int.from_bytes(body.read_element(_INTEGER)[:4])
    if body.peek() == _INTEGER:
        return _pkcs1_or_dsa(body, version)
    if body.peek() == _OCTETS and version == 1:
        body.read_element()
        parameters = DerReader(body.read_element() if body.peek() == _CONTEXT else b"")
        return KeyFormat("sec1", "ec", _curve_bits(parameters), protected=False)
    return _pkcs8(body)


def _pkcs8(body: DerReader) -> KeyFormat | None:
    algorithm = body.sequence()
    oid = oid_text(algorithm.read_element(_OID))
    inner_key = body.read_element(_OCTETS)
    if oid in _FIXED:
        return KeyFormat("pkcs8", *_FIXED[oid], protected=False)
    if oid in _RSA:
        numbers = DerReader(inner_key).sequence()
        numbers.read_element(_INTEGER)
        return KeyFormat("pkcs8", "rsa", number_bits(numbers.read_element(_INTEGER)), protected=False)
    if oid == _EC:
        return KeyFormat("pkcs8", "ec", _curve_bits(algorithm), protected=False)
    if oid == _DSA:
        return KeyFormat("pkcs8", "dsa", number_bits(algorithm.sequence().read_element(_INTEGER)), protected=False)
    return KeyFormat("pkcs8", protected=False)


def _curve_bits(parameters: DerReader) -> int:
    """Returns the bits of a named curve, or of a prime field in explicit parameters; 0 if it is neither."""
    if parameters.peek() == _OID:
        return _CURVES.get(oid_text(parameters.read_element()), 0)
    if parameters.peek() != _SEQUENCE:
        return 0
    explicit = parameters.sequence()
    explicit.read_element(_INTEGER)
    field = explicit.sequence()
    is_prime = oid_text(field.read_element(_OID)) == _PRIME_FIELD
    return number_bits(field.read_element(_INTEGER)) if is_prime else 0


def _pkcs1_or_dsa(body: DerReader, version: int) -> KeyFormat | None:
    """Distinguishes PKCS #1 from the traditional DSA format by the number of integers."""
    numbers: list[int] = []
    while body.peek() == _INTEGER and len(numbers) < 9:
        numbers.append(number_bits(body.read_element()))
    if len(numbers) >= 8 and version in (0, 1):
        return KeyFormat("pkcs1", "rsa", numbers[0], protected=False)
    return KeyFormat("pem", "dsa", numbers[0], protected=False) if len(numbers) == 5 and version == 0 else None


def _tpm_key(body: DerReader) -> KeyFormat | None:
    """Reads a key that only its TPM can use (`TSS2 PRIVATE KEY` of tpm2-tss and the TPM 2.0 providers)."""
    if not oid_text(body.read_element()).startswith(_TPM):
        return None
    while body.peek() & 0xE0 == _CONTEXT:
        body.read_element()
    body.read_element(_INTEGER)
    public = body.read_element(_OCTETS)
    body.read_element(_OCTETS)
    try:
        return KeyFormat("tpm", *_tpm_public(public), protected=True)
    except struct.error:
        return KeyFormat("tpm", protected=True)


def _tpm_public(public: bytes) -> tuple[str, int]:
    """Returns kind and bits of a TPM2B_PUBLIC. [TPM 2.0 Library, part 2, 12.2]"""
    kind, _, _, policy_length = struct.unpack_from(">HHIH", public, 2)
    at = 12 + policy_length
    (symmetric,) = struct.unpack_from(">H", public, at)
    at += 2 if symmetric == _TPM_NULL else 6
    (scheme,) = struct.unpack_from(">H", public, at)
    at += 2 if scheme == _TPM_NULL else 4
    (size_or_curve,) = struct.unpack_from(">H", public, at)
    if kind == _TPM_RSA:
        return "rsa", size_or_curve
    return ("ec", _TPM_CURVES.get(size_or_curve, 0)) if kind == _TPM_ECC else ("unknown", 0)


def number_bits(number: bytes) -> int:
    """Returns the bits of a big-endian number, at most `MAX_BITS`."""
    return min(int.from_bytes(number).bit_length(), MAX_BITS)


def oid_text(oid: bytes) -> str:
    """Returns an object identifier with dots; empty for an overlong one."""
    if not oid or len(oid) > 32:
        return ""
    arcs, value = [min(oid[0] // 40, 2)], 0
    arcs.append(oid[0] - 40 * arcs[0])
    for byte in oid[1:]:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    return ".".join(map(str, arcs))
