"""An authenticator in software: answers to WebAuthn requests as browsers send them, also wrong ones."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, encode_cbor

_PRESENT: Final = 0x01
_VERIFIED: Final = 0x04
_HAS_CREDENTIAL: Final = 0x40


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(slots=True)
class SoftAuthenticator:
    """One passkey. `origin` and `rp_id` are what it claims, whatever it was asked for; empty: what is right."""

    origin: str
    rp_id: str = ""
    credential_id: bytes = b"credential-of-a-test"
    sign_count: int = 0
    counts: bool = True
    verifies: bool = True
    attestation: dict[str, Any] = field(default_factory=dict)
    fmt: str = "none"
    key: ec.EllipticCurvePrivateKey = field(default_factory=_new_key)

    def register(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answers `navigator.credentials.create`."""
        numbers = self.key.public_key().public_numbers()
        cose = encode_cbor({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)})
        size = len(self.credential_id).to_bytes(2)
        data = self._data(options["rp"]["id"], _HAS_CREDENTIAL) + bytes(16) + size + self.credential_id + cose
        attestation = encode_cbor({"fmt": self.fmt, "attStmt": self.attestation, "authData": data})
        return self._answer(
            {
                "clientDataJSON": bytes_to_base64url(self._client_data("webauthn.create", options)),
                "attestationObject": bytes_to_base64url(attestation),
            }
        )

    def use(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answers `navigator.credentials.get`; each use counts by one."""
        self.sign_count += self.counts
        data, client = self._data(options["rpId"], 0), self._client_data("webauthn.get", options)
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(
            {
                "clientDataJSON": bytes_to_base64url(client),
                "authenticatorData": bytes_to_base64url(data),
                "signature": bytes_to_base64url(signature),
            }
        )

    def _data(self, asked: str, more: int) -> bytes:
        flags = _PRESENT | more | (_VERIFIED if self.verifies else 0)
        party = hashlib.sha256((self.rp_id or asked).encode()).digest()
        return party + bytes([flags]) + self.sign_count.to_bytes(4)

    def _client_data(self, kind: str, options: dict[str, Any]) -> bytes:
        challenge = bytes_to_base64url(base64url_to_bytes(options["challenge"]))
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin}).encode()

    def _answer(self, response: dict[str, str]) -> dict[str, Any]:
        name = bytes_to_base64url(self.credential_id)
        return {"id": name, "rawId": name, "type": "public-key", "response": response}
