"""Recognises private key files and their type, size and passphrase protection by the file format alone.

Nothing is decrypted; of the key only public parts are read: modulus, curve, public key.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from typing import Final

from device_agent.collectors.crypto.crypto_files import pem_blocks

MAX_BITS: Final = 65_536  # larger sizes are reported as this
_MAX_SSH_BYTES: Final = 64 * 1024
_SSH_MAGIC: Final = b"openssh-key-v1\0"
_RSA: Final = frozenset({"1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"})
_EC: Final = "1.2.840.10045.2.1"
_DSA: Final = "1.2.840.10040.4.1"
_FIXED: Final = {
    "1.3.101.110": ("x25519", 256),
    "1.3.101.111": ("x448", 448),
    "1.3.101.112": ("ed25519", 256),
    "1.3.101.113": ("ed448", 456),
}
_CURVES: Final = {
    "1.2.840.10045.3.1.1": 192,
    "1.2.840.10045.3.1.7": 256,
    "1.3.132.0.10": 256,
    "1.3.132.0.33": 224,
    "1.3.132.0.34": 384,
    "1.3.132.0.35": 521,
    "1.3.36.3.3.2.8.1.1.7": 256,
    "1.3.36.3.3.2.8.1.1.11": 384,
    "1.3.36.3.3.2.8.1.1.13": 512,
}
_PKCS12_DATA: Final = "1.2.840.113549.1.7.1"  # content type at the start of every PKCS #12 file
_SSH_KINDS: Final = {
    "ssh-ed25519": ("ed25519", 256),
    "sk-ssh-ed25519@openssh.com": ("ed25519", 256),
    "ecdsa-sha2-nistp256": ("ec", 256),
    "ecdsa-sha2-nistp384": ("ec", 384),
    "ecdsa-sha2-nistp521": ("ec", 521),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("ec", 256),
}
_SEQUENCE, _INTEGER, _OID, _OCTETS, _CONTEXT = 0x30, 0x02, 0x06, 0x04, 0xA0


@dataclass(frozen=True, slots=True)
class KeyFormat:
    """Format and properties of a private key; `bits` is 0 and `protected` None where the format does not say."""

    format: str
    kind: str = "unknown"
    bits: int = 0
    protected: bool | None = None


class _Der:
    """Reads the elements of one level of a DER structure."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at >= len(self._data)

    def peek(self) -> int:
        return -1 if self.is_done else self._data[self._at]

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

    def sequence(self) -> "_Der":
        return _Der(self.read_element(_SEQUENCE))


def key_format(data: bytes) -> KeyFormat | None:
    """Returns the format of the private key in a file; None when there is none."""
    if data.startswith(b"PuTTY-User-Key-File-"):
        return _putty(data)
    for label, content, is_complete in pem_blocks(data):
        if label.endswith("PRIVATE KEY"):
            return _pem(label, content, is_complete=is_complete)
    if data[:1] == b"\x30":
        try:
            return _der(data)
        except ValueError:
            return None
    return None


def _pem(label: str, content: bytes, *, is_complete: bool) -> KeyFormat:
    kind = label.removesuffix("PRIVATE KEY").strip().lower()
    name = {"": "pkcs8", "encrypted": "pkcs8", "openssh": "openssh", "rsa": "pkcs1", "ec": "sec1"}.get(kind, "pem")
    key_type = kind if kind in ("rsa", "ec", "dsa") else "unknown"
    if b"ENCRYPTED" in content[:256]:
        return KeyFormat(name, key_type, 0, protected=True)
    if kind == "encrypted":
        return KeyFormat(name, protected=True)
    try:
        raw = base64.b64decode(content, validate=False)
        if kind == "openssh":
            return _openssh(raw)
        return _der(raw) or KeyFormat(name, key_type)
    except (ValueError, binascii.Error, struct.error):
        # Malformed: only the label is known, and a key without encryption header is not called protected.
        return KeyFormat(name, key_type, 0, protected=False if is_complete and key_type != "unknown" else None)


def _der(data: bytes) -> KeyFormat | None:
    outer = _Der(data)
    body = outer.sequence()
    if not outer.is_done:
        return None
    if body.peek() == _SEQUENCE:  # EncryptedPrivateKeyInfo, or another structure such as a certificate
        inner = body.sequence()
        is_encrypted = inner.peek() == _OID and body.peek() == _OCTETS
        return KeyFormat("pkcs8", protected=True) if is_encrypted else None
    version = int.from_bytes(body.read_element(_INTEGER)[:4])
    if body.peek() == _INTEGER:
        return _pkcs1_or_dsa(body, version)
    if body.peek() == _OCTETS and version == 1:
        body.read_element()
        curve = _Der(body.read_element()).read_element(_OID) if body.peek() == _CONTEXT else b""
        return KeyFormat("sec1", "ec", _CURVES.get(_dotted(curve), 0), protected=False)
    algorithm = body.sequence()
    oid = _dotted(algorithm.read_element(_OID))
    if version == 3 and oid == _PKCS12_DATA:
        return KeyFormat("pkcs12")
    inner_key = body.read_element(_OCTETS)
    if oid in _FIXED:
        return KeyFormat("pkcs8", *_FIXED[oid], protected=False)
    if oid in _RSA:
        numbers = _Der(inner_key).sequence()
        numbers.read_element(_INTEGER)
        return KeyFormat("pkcs8", "rsa", _bits(numbers.read_element(_INTEGER)), protected=False)
    if oid == _EC:
        curve = algorithm.read_element() if algorithm.peek() == _OID else b""
        return KeyFormat("pkcs8", "ec", _CURVES.get(_dotted(curve), 0), protected=False)
    if oid == _DSA:
        return KeyFormat("pkcs8", "dsa", _bits(algorithm.sequence().read_element(_INTEGER)), protected=False)
    return KeyFormat("pkcs8", protected=False)


def _pkcs1_or_dsa(body: _Der, version: int) -> KeyFormat | None:
    """Distinguishes PKCS #1 from the traditional DSA format by the number of integers."""
    numbers: list[int] = []
    while body.peek() == _INTEGER and len(numbers) < 9:
        numbers.append(_bits(body.read_element()))
    if len(numbers) >= 8 and version in (0, 1):
        return KeyFormat("pkcs1", "rsa", numbers[0], protected=False)
    return KeyFormat("pem", "dsa", numbers[0], protected=False) if len(numbers) == 5 and version == 0 else None


def _bits(number: bytes) -> int:
    return min(int.from_bytes(number).bit_length(), MAX_BITS)


def _dotted(oid: bytes) -> str:
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


def _openssh(raw: bytes) -> KeyFormat:
    if not raw.startswith(_SSH_MAGIC) or len(raw) > _MAX_SSH_BYTES:
        return KeyFormat("openssh")
    at = len(_SSH_MAGIC)
    fields = []
    for _ in range(3):  # cipher, KDF, KDF options
        field, at = _ssh_string(raw, at)
        fields.append(field)
    blob, _ = _ssh_string(raw, at + 4)  # skips the number of keys
    kind, bits = _ssh_kind(blob)
    return KeyFormat("openssh", kind, bits, protected=fields[0] != b"none")


def _ssh_string(raw: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", raw, at)
    if at + 4 + length > len(raw):
        raise ValueError("truncated")
    return raw[at + 4 : at + 4 + length], at + 4 + length


def _ssh_kind(blob: bytes) -> tuple[str, int]:
    name, at = _ssh_string(blob, 0)
    kind = name.decode("ascii", "replace")
    if kind == "ssh-rsa":
        _, at = _ssh_string(blob, at)
        modulus, _ = _ssh_string(blob, at)
        return "rsa", _bits(modulus)
    if kind == "ssh-dss":
        prime, _ = _ssh_string(blob, at)
        return "dsa", _bits(prime)
    return _SSH_KINDS.get(kind, ("unknown", 0))


def _putty(data: bytes) -> KeyFormat:
    lines = data[:1024].decode("ascii", "replace").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    name = lines[0].rpartition(": ")[2] if lines else ""
    kind, bits = _SSH_KINDS.get(name, ({"ssh-rsa": "rsa", "ssh-dss": "dsa"}.get(name, "unknown"), 0))
    encryption = fields.get("Encryption", "")
    return KeyFormat("ppk", kind, bits, protected=encryption != "none" if encryption else None)
