"""Recognises every private key in a file, with type, size and protection by the format alone.

Nothing is decrypted; of the keys only public parts are read: modulus, curve, public key.
"""

import base64
import binascii
import contextlib
import json
import re
import struct
from collections.abc import Iterator
from typing import Any, Final

from device_agent.collectors.crypto.crypto_files import pem_blocks, utf8_of
from device_agent.collectors.crypto.key_asn1 import KeyFormat, number_bits, read_asn1_key, read_asn1_keys
from device_agent.host.reading import GapRecorder, Reading

MAX_KEYS: Final = 16  # of one file
_MAX_SSH_BYTES: Final = 64 * 1024
_SSH_MAGIC: Final = b"openssh-key-v1\0"
_SSH_CIPHER: Final = re.compile(
    rb"(aes(128|192|256)-(cbc|ctr|gcm@openssh\.com)|chacha20-poly1305@openssh\.com|3des-cbc)"
)
_SSH_KINDS: Final = {
    "ssh-ed25519": ("ed25519", 256),
    "sk-ssh-ed25519@openssh.com": ("ed25519", 256),
    "ecdsa-sha2-nistp256": ("ec", 256),
    "ecdsa-sha2-nistp384": ("ec", 384),
    "ecdsa-sha2-nistp521": ("ec", 521),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("ec", 256),
}
_SECURITY_KEY: Final = b"sk-"  # the file holds a handle that only the security key can use
_PUTTY: Final = b"PuTTY-User-Key-File-"
_SSH2: Final = b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----"
_SSH1: Final = b"SSH PRIVATE KEY FILE FORMAT 1."
_PEM_ENCRYPTED: Final = re.compile(rb"^[ \t]*Proc-Type:[ \t]*4,[ \t]*ENCRYPTED[ \t\r]*$", re.MULTILINE)
_PEM_CIPHER: Final = re.compile(
    rb"^[ \t]*DEK-Info:[ \t]*(AES|DES|CAMELLIA|ARIA|SEED|SM4|BF|CAST5?|IDEA|RC2|RC4)(?:-[A-Z0-9-]+)?,",
    re.MULTILINE | re.IGNORECASE,
)
_WIREGUARD: Final = re.compile(  # of wg and networkd, NetworkManager, OpenWrt
    rb"^[ \t]*(?:option[ \t]+)?private[-_]?key(?:[ \t]*=[ \t]*|[ \t]+)['\"]?([^\s#'\"]+)", re.MULTILINE | re.IGNORECASE
)
_AGE: Final = re.compile(rb"AGE-SECRET-KEY-1[0-9A-Z]{20,}", re.IGNORECASE)
_ENCODED_PEM: Final = re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/]{20,}={0,2}")  # base64 of "-----BEGIN "
_WIREGUARD_SECTION: Final = re.compile(rb"^[ \t]*\[(?:Interface|WireGuard)\]", re.MULTILINE | re.IGNORECASE)
_WIREGUARD_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_JWK_BITS: Final = {
    "P-256": ("ec", 256),
    "P-384": ("ec", 384),
    "P-521": ("ec", 521),
    "secp256k1": ("ec", 256),
    **{name: (name.lower(), bits) for name, bits in (("Ed25519", 256), ("Ed448", 456), ("X25519", 256), ("X448", 448))},
}
_JKS_MAGIC: Final = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")


def read_keys(data: bytes) -> Reading[tuple[KeyFormat, ...]]:
    """Returns every private key in a file."""
    gaps = GapRecorder()
    keys: list[KeyFormat] = []
    for key in _keys(utf8_of(data), gaps):
        if len(keys) == MAX_KEYS:
            gaps.add(f"only the first {MAX_KEYS} keys were read")
            break
        keys.append(key)
    return gaps.complete(tuple(keys))


def _keys(data: bytes, gaps: GapRecorder) -> Iterator[KeyFormat]:
    if data.startswith(_PUTTY):
        yield _putty(data)
    elif data.startswith(_JKS_MAGIC):
        yield from _java_keys(data)
    elif data.startswith(_SSH1):
        yield KeyFormat("ssh1", "rsa")
    elif data.startswith(b"\0\0\0"):
        yield from _dropbear(data)
    elif data[:1] == b"\x30":
        with gaps.capture():
            yield from read_asn1_keys(data, MAX_KEYS + 1)
    elif data.lstrip()[:1] in (b"{", b"[") and (document := _json(data)) is not None:
        yield from _json_keys(document)
    else:
        if b'"kty"' in data:
            gaps.add("it looks like a JSON Web Key, and is not valid JSON")
        yield from _text_keys(data, gaps)


def _text_keys(data: bytes, gaps: GapRecorder) -> Iterator[KeyFormat]:
    for label, content, is_complete in pem_blocks(data):
        key = _pem(label, content, is_complete=is_complete)
        if key is not None:
            yield key
    for encoded in _ENCODED_PEM.findall(data):
        with gaps.capture():
            yield from _text_keys(base64.b64decode(encoded + b"=" * (-len(encoded) % 4)), gaps)
    for _ in _AGE.findall(data):
        yield KeyFormat("age", "x25519", 256, protected=False)
    if _SSH2 in data:
        yield KeyFormat("ssh2")
    is_wireguard = _WIREGUARD_SECTION.search(data) is not None
    for value in _WIREGUARD.findall(data):
        if _WIREGUARD_KEY.fullmatch(value):
            yield KeyFormat("wireguard", "x25519", 256, protected=False)
        elif is_wireguard and value != b"(none)":
            gaps.add("a PrivateKey of WireGuard cannot be read")


def _pem(label: str, content: bytes, *, is_complete: bool) -> KeyFormat | None:
    content = content.partition(b"-----END ")[0]  # of another label, where the marks are damaged
    if not label.endswith("PRIVATE KEY"):
        return KeyFormat("pgp") if label == "PGP PRIVATE KEY BLOCK" else _unnamed_pem(content)
    kind = label.removesuffix("PRIVATE KEY").strip().lower()
    names = {"": "pkcs8", "encrypted": "pkcs8", "openssh": "openssh", "rsa": "pkcs1", "ec": "sec1", "tss2": "tpm"}
    name = names.get(kind, "pem")
    key_type = kind if kind in ("rsa", "ec", "dsa") else "unknown"
    if _PEM_ENCRYPTED.search(content):
        return KeyFormat(name, key_type, 0, protected=True if _PEM_CIPHER.search(content) else None)
    try:
        raw = base64.b64decode(content, validate=False)
        key = _openssh(raw) if kind == "openssh" else read_asn1_key(raw)
    except (ValueError, binascii.Error, struct.error):
        # Malformed: only the label is known, and a key without encryption header is not called protected.
        return KeyFormat(name, key_type, 0, protected=False if is_complete and key_type != "unknown" else None)
    return key or KeyFormat(name, key_type)


def _unnamed_pem(content: bytes) -> KeyFormat | None:
    """Returns the key in a block with another label; certificates and the like are none."""
    try:
        return read_asn1_key(base64.b64decode(content, validate=False))
    except (ValueError, binascii.Error):
        return None


def _openssh(raw: bytes) -> KeyFormat:
    if not raw.startswith(_SSH_MAGIC) or len(raw) > _MAX_SSH_BYTES:
        return KeyFormat("openssh")
    at = len(_SSH_MAGIC)
    cipher, at = _ssh_string(raw, at)
    kdf, at = _ssh_string(raw, at)
    _, at = _ssh_string(raw, at)
    blob, _ = _ssh_string(raw, at + 4)  # skips the number of keys
    kind, bits = _ssh_kind(blob)
    if cipher == b"none":
        return KeyFormat("openssh", kind, bits, protected=blob[4:].startswith(_SECURITY_KEY))
    is_encrypted = kdf == b"bcrypt" and _SSH_CIPHER.fullmatch(cipher) is not None
    return KeyFormat("openssh", kind, bits, protected=True if is_encrypted else None)


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
        return "rsa", number_bits(modulus)
    if kind == "ssh-dss":
        prime, _ = _ssh_string(blob, at)
        return "dsa", number_bits(prime)
    return _SSH_KINDS.get(kind, ("unknown", 0))


def _dropbear(data: bytes) -> Iterator[KeyFormat]:
    """Reads a host key of Dropbear: the public key in the format of SSH, then the private numbers."""
    try:
        kind, bits = _ssh_kind(data)
    except (ValueError, struct.error):
        return
    if kind != "unknown":
        yield KeyFormat("dropbear", kind, bits, protected=False)


def _putty(data: bytes) -> KeyFormat:
    lines = data.decode("ascii", "replace").splitlines()
    fields = dict(reversed([line.split(": ", 1) for line in lines if ": " in line]))
    name = lines[0].rpartition(": ")[2]
    kind, bits = _SSH_KINDS.get(name, ({"ssh-rsa": "rsa", "ssh-dss": "dsa"}.get(name, "unknown"), 0))
    encryption = fields.get("Encryption", "")
    start = next((number for number, line in enumerate(lines, 1) if line.startswith("Public-Lines: ")), len(lines))
    count = fields.get("Public-Lines", "")[:3]
    with contextlib.suppress(ValueError, struct.error):  # the name of the algorithm remains
        kind, bits = _ssh_kind(base64.b64decode("".join(lines[start : start + int(count)])))
    protected = {"none": False, "aes256-cbc": True}.get(encryption)
    return KeyFormat("ppk", kind, bits, protected=protected)


def _java_keys(data: bytes) -> Iterator[KeyFormat]:
    """Reads the entries of a Java key store (JKS, JCEKS), whose private keys always have a password."""
    is_whole = False
    with contextlib.suppress(struct.error):
        version, count = struct.unpack_from(">II", data, 4)
        at, tag = 12, 0
        for _ in range(min(count, 10_000)):
            (tag,) = struct.unpack_from(">I", data, at)
            at = _skip(data, at + 4, ">H") + 8  # alias and date
            chain = 1
            if tag == 1:
                yield KeyFormat("jks", protected=True)
                at = _skip(data, at, ">I") + 4
                (chain,) = struct.unpack_from(">I", data, at - 4)
            elif tag != 2:
                break  # a serialised object, of unknown length
            for _ in range(min(chain, 100)):
                at = _skip(data, _skip(data, at, ">H") if version == 2 else at, ">I")
        is_whole = at + 20 == len(data)  # a digest ends it
    if not is_whole:
        yield KeyFormat("jks")


def _skip(data: bytes, at: int, length_format: str) -> int:
    (length,) = struct.unpack_from(length_format, data, at)
    return at + struct.calcsize(length_format) + int(length)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _json_keys(document: Any) -> Iterator[KeyFormat]:
    """Reads JSON Web Keys at any depth, and PEM keys in strings, as in service account files."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += reversed(value)
        elif isinstance(value, dict):
            if "kty" in value and ("d" in value or "k" in value):
                yield _json_web_key(value)
            pending += reversed(value.values())
        elif isinstance(value, str) and "-----BEGIN " in value:
            yield from _text_keys(value.encode(errors="replace"), GapRecorder())


def _json_web_key(value: dict[str, Any]) -> KeyFormat:
    if value["kty"] == "RSA":
        modulus = value.get("n")
        length = len(modulus.rstrip("=")) * 6 // 8 * 8 if isinstance(modulus, str) else 0
        return KeyFormat("jwk", "rsa", length, protected=False)
    if value["kty"] == "oct":
        return KeyFormat("jwk", "oct", protected=False)
    curve = value.get("crv")
    kind, bits = _JWK_BITS.get(curve, ("unknown", 0)) if isinstance(curve, str) else ("unknown", 0)
    return KeyFormat("jwk", kind, bits, protected=False)
