"""Files with several keys, and with keys in the formats of other programs."""

import base64
import json
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from device_agent.collectors.crypto.key_asn1 import KeyFormat
from device_agent.collectors.crypto.key_format import read_keys
from tests.support.pki import Authority, key_pem

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED = ed25519.Ed25519PrivateKey.generate()


def der(
    key: Any, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8, passphrase: bytes = b""
) -> bytes:
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.DER, form, protection))


def pem(label: str, content: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(content).decode()}\n-----END {label}-----\n".encode()


def element(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    length = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2)
    return bytes([tag]) + length + body


OPEN_RSA = KeyFormat("pkcs8", "rsa", 2048, protected=False)
PROTECTED = KeyFormat("pkcs8", protected=True)
WIREGUARD = b"[Interface]\nprivatekey = " + base64.b64encode(b"k" * 32) + b" # mine\n[Peer]\nPublicKey = x\n"
OPEN_WIREGUARD = KeyFormat("wireguard", "x25519", 256, protected=False)
# TPMT_PUBLIC: kind, name algorithm, attributes, no policy, no symmetric algorithm, no scheme, bits or curve.
TPM_EC = struct.pack(">HHHIHHHHH", 18, 0x23, 0x0B, 0x40072, 0, 0x10, 0x10, 3, 0x10)
TPM_RSA = struct.pack(">HHHIHHHHHI", 20, 0x01, 0x0B, 0x40072, 0, 0x10, 0x10, 2048, 0, 0)


def tpm_key(public: bytes, oid: str = "678105 0a0103") -> bytes:
    parts = (element(0x06, bytes.fromhex(oid)), element(0xA0, b"\1\1\xff"), element(2, b"\x40\0\0\1"))
    return pem("TSS2 PRIVATE KEY", element(0x30, *parts, element(4, public), element(4, b"private")))


def java_store(*entries: bytes) -> bytes:
    return struct.pack(">III", 0xFEEDFEED, 2, len(entries)) + b"".join(entries) + bytes(20)


JAVA_CERTIFICATE = b"\0\5X.509" + struct.pack(">I", 3) + b"abc"
JAVA_KEY = (
    struct.pack(">IH", 1, 1)
    + b"a"
    + bytes(8)
    + struct.pack(">I", 4)
    + b"keyX"
    + struct.pack(">I", 1)
    + JAVA_CERTIFICATE
)
JAVA_TRUSTED = struct.pack(">IH", 2, 1) + b"b" + bytes(8) + JAVA_CERTIFICATE
JWK_EC = '{"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "d": "c"}'
JWK_PUBLIC = '{"kty": "EC", "crv": "P-256", "x": "a", "y": "b"}'
JWK_RSA = json.dumps({"kty": "RSA", "n": "A" * 342, "e": "AQAB", "d": "x"})
DROPBEAR = struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 64) + bytes(64)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(key_pem(ED, "s") + key_pem(RSA), [PROTECTED, OPEN_RSA], id="an open key after a protected one"),
        pytest.param(key_pem(RSA) + Authority("x").pem + key_pem(ED, "s"), [OPEN_RSA, PROTECTED], id="and before it"),
        pytest.param(der(RSA) + der(RSA, passphrase=b"s"), [OPEN_RSA, PROTECTED], id="two in DER"),
        pytest.param(der(RSA) + b"\n", [OPEN_RSA], id="text after DER"),
        pytest.param(key_pem(RSA).replace(b"\n", b"\r\n"), [OPEN_RSA], id="CRLF"),
        pytest.param(b"\xef\xbb\xbf" + key_pem(RSA), [OPEN_RSA], id="byte order mark"),
        pytest.param(key_pem(RSA).decode().encode("utf-16"), [OPEN_RSA], id="UTF-16"),
        pytest.param(key_pem(RSA).decode().encode("utf-16-be"), [OPEN_RSA], id="UTF-16 without a mark"),
        pytest.param(b"".join(b"    " + line for line in key_pem(RSA).splitlines(True)), [OPEN_RSA], id="indented"),
        pytest.param(pem("ENCRYPTED PRIVATE KEY", der(RSA)), [OPEN_RSA], id="an open key called encrypted"),
        pytest.param(pem("ENCRYPTED PRIVATE KEY", b"?"), [KeyFormat("pkcs8")], id="nothing called encrypted"),
        pytest.param(pem("MY KEY", der(RSA)), [OPEN_RSA], id="a key with another label"),
        pytest.param(key_pem(RSA).replace(b"BEGIN ", b"BEGIN \x01"), [OPEN_RSA], id="a damaged mark"),
        pytest.param(pem("RSA PRIVATE KEY", der(RSA)).replace(b"BEGIN R", b"BEGIN ?"), [OPEN_RSA], id="another one"),
        pytest.param(pem("PGP PRIVATE KEY BLOCK", b"?"), [KeyFormat("pgp")], id="OpenPGP"),
        pytest.param(der(RSA)[:200], [KeyFormat("der")], id="a cut key in DER"),
        pytest.param(
            key_pem(RSA, "s", "TraditionalOpenSSL").replace(b"DEK-Info: AES-256-CBC", b"DEK-Info: NONE"),
            [KeyFormat("pkcs1", "rsa")],
            id="an unknown cipher",
        ),
        pytest.param(
            pem("OPENSSH PRIVATE KEY", b"openssh-key-v1\0" + b"".join(
                struct.pack(">I", len(part)) + part for part in (b"nonf", b"none", b"")) + b"\0\0\0\1" + struct.pack(
                ">I", 15) + struct.pack(">I", 11) + b"ssh-ed25519"),
            [KeyFormat("openssh", "ed25519", 256)],
            id="an unknown cipher of OpenSSH",
        ),
        pytest.param(
            pem("OPENSSH PRIVATE KEY", b"openssh-key-v1\0" + b"".join(
                struct.pack(">I", len(part)) + part for part in (b"none", b"none", b"")) + b"\0\0\0\1" + struct.pack(
                ">I", 30) + struct.pack(">I", 26) + b"sk-ssh-ed25519@openssh.com"),
            [KeyFormat("openssh", "ed25519", 256, protected=True)],
            id="the handle of a security key",
        ),
        pytest.param(
            pem("EC PRIVATE KEY", element(0x30, b"\2\1\1", element(4, bytes(32)), element(0xA0, element(
                6, bytes.fromhex("2b24030302080101 0d".replace(" ", "")))))),
            [KeyFormat("sec1", "ec", 512, protected=False)],
            id="a curve of Brainpool",
        ),
        pytest.param(tpm_key(TPM_EC), [KeyFormat("tpm", "ec", 256, protected=True)], id="a key of a TPM"),
        pytest.param(tpm_key(TPM_RSA), [KeyFormat("tpm", "rsa", 2048, protected=True)], id="an RSA key of a TPM"),
        pytest.param(tpm_key(b""), [KeyFormat("tpm", protected=True)], id="a TPM's key without a public part"),
        pytest.param(tpm_key(TPM_EC, "2a0304"), [KeyFormat("tpm")], id="called a TPM's key"),
        pytest.param(java_store(JAVA_KEY, JAVA_TRUSTED, JAVA_KEY), [KeyFormat("jks", protected=True)] * 2, id="JKS"),
        pytest.param(java_store(JAVA_TRUSTED), [], id="JKS with certificates only"),
        pytest.param(java_store(JAVA_TRUSTED)[:-3], [KeyFormat("jks")], id="JKS, cut"),
        pytest.param(b"\x30\x80\2\1\3\x30\x80\6\x09" + bytes.fromhex("2a864886f70d010701") + bytes(99),
                     [KeyFormat("pkcs12")], id="PKCS #12 in BER"),
        pytest.param(JWK_EC.encode(), [KeyFormat("jwk", "ec", 256, protected=False)], id="JWK"),
        pytest.param(
            f'{{"keys": [{JWK_PUBLIC}, {JWK_RSA}, {{"kty": "oct", "k": "a"}}]}}'.encode(),
            [KeyFormat("jwk", "rsa", 2048, protected=False), KeyFormat("jwk", "oct", protected=False)],
            id="JWKS",
        ),
        pytest.param(json.dumps({"private_key": key_pem(RSA).decode()}).encode(), [OPEN_RSA], id="PEM in JSON"),
        pytest.param(WIREGUARD, [OPEN_WIREGUARD], id="WireGuard"),
        pytest.param(WIREGUARD.replace(b"Interface", b"Peer") + WIREGUARD, [OPEN_WIREGUARD] * 2, id="WireGuard twice"),
        pytest.param(b"PrivateKey = /etc/ssl/private/x\n", [], id="a path of another program"),
        pytest.param(DROPBEAR, [KeyFormat("dropbear", "ed25519", 256, protected=False)], id="Dropbear"),
        pytest.param(b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nx", [KeyFormat("ssh2")], id="SSH2"),
        pytest.param(b"PuTTY-User-Key-File-3: ssh-rsa\nEncryption: nome\nEncryption: aes256-cbc\nPublic-Lines: 1\n"
                     + base64.b64encode(b"\0\0\0\7ssh-rsa\0\0\0\1\3\0\0\0\x80" + b"\xff" * 128),
                     [KeyFormat("ppk", "rsa", 1024)], id="PuTTY with an unknown cipher"),
    ],
)  # fmt: skip
def test_every_key_in_a_file_is_recognised(content: bytes, expected: list[KeyFormat]) -> None:
    found = read_keys(content)
    assert (list(found.value), found.gaps) == (expected, ())


AGE = b"# created: 2026\nAGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33\n"


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        (AGE, ["age"]),
        (AGE + AGE, ["age", "age"]),
        (b"[wireguard]\nprivate-key=yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n", ["wireguard"]),
        (b"config interface w\n\toption private_key 'yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk='\n", ["wireguard"]),
        (b"client-key-data: " + base64.b64encode(key_pem(ED)) + b"\n", ["pkcs8"]),
        (b"client-certificate-data: " + base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMAA=\n") + b"\n", []),
        (b"private_key = /etc/ssl/private/x.key\n", []),
    ],
)
def test_keys_in_files_of_other_programs(text: bytes, formats: list[str]) -> None:
    found = read_keys(text).value
    assert [key.format for key in found] == formats
    assert all(key.protected is False for key in found)
