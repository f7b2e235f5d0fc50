"""The signed envelope around a command: DSSE with Ed25519.

The signature covers the raw payload bytes (DSSE v1, pre-authentication encoding), so no canonical JSON is needed.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Annotated, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, StringConstraints, ValidationError

from schemas.base import MAX_COMMAND_BYTES, StrictWireModel
from schemas.key_text import KEY_PREFIX, raw_public_key

MAX_SIGNATURES: Final = 4
_Base64 = Annotated[str, StringConstraints(max_length=MAX_COMMAND_BYTES, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class SignatureError(Exception):
    """The envelope is malformed or has no valid signature of a trusted key; the text states the reason."""


class Signature(StrictWireModel):
    keyid: Annotated[str, StringConstraints(max_length=64)]
    sig: _Base64


class Envelope(StrictWireModel):
    """A DSSE envelope; field names are those of the DSSE specification."""

    payloadType: Annotated[str, StringConstraints(max_length=128)]  # noqa: N815 - the specification's name
    payload: _Base64
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=MAX_SIGNATURES, fail_fast=True)]


def public_key_text(key: Ed25519PublicKey) -> str:
    """Returns a public key as configurations contain it: `ed25519:` and 32 bytes in base64."""
    return KEY_PREFIX + base64.b64encode(key.public_bytes_raw()).decode()


def parse_public_key(text: str) -> Ed25519PublicKey:
    """Parses the text of `public_key_text`.

    Raises:
        ValueError: another kind of key, or not 32 bytes of base64.
    """
    return Ed25519PublicKey.from_public_bytes(raw_public_key(text))


def key_id(key: Ed25519PublicKey) -> str:
    """Returns the first 16 hex digits of the SHA-256 of the raw key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def to_be_signed(payload_type: str, payload: bytes) -> bytes:
    """Returns DSSE's pre-authentication encoding, which the signature covers. [DSSE v1, PAE]"""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, key: Ed25519PrivateKey) -> bytes:
    """Signs `payload` and returns the envelope as JSON."""
    signature = Signature(
        keyid=key_id(key.public_key()),
        sig=base64.b64encode(key.sign(to_be_signed(payload_type, payload))).decode(),
    )
    envelope = Envelope(payloadType=payload_type, payload=base64.b64encode(payload).decode(), signatures=(signature,))
    return envelope.model_dump_json().encode()


def verify(raw: bytes, payload_type: str, keys: Mapping[str, Ed25519PublicKey]) -> bytes:
    """Returns the payload of an envelope that one of `keys` (by `key_id`) signed for `payload_type`.

    Raises:
        SignatureError: too large, malformed, of another payload type, or without a valid signature of the keys.
    """
    if len(raw) > MAX_COMMAND_BYTES:
        raise SignatureError(f"envelope too large: {len(raw)} > {MAX_COMMAND_BYTES} bytes")
    try:
        envelope = Envelope.model_validate_json(raw)
        payload = base64.b64decode(envelope.payload, validate=True)
    except (ValidationError, binascii.Error) as e:
        raise SignatureError("not a signed envelope") from e
    if envelope.payloadType != payload_type:
        raise SignatureError("signed for another purpose")
    for signature in envelope.signatures:
        key = keys.get(signature.keyid)
        if key is not None and _is_valid(key, signature.sig, to_be_signed(payload_type, payload)):
            return payload
    raise SignatureError("no valid signature by a trusted key")


def signers(raw: bytes, payload_type: str, keys: Mapping[str, Ed25519PublicKey]) -> tuple[bytes, frozenset[str]]:
    """Returns the payload as `verify` does, and the ids of all `keys` that signed it.

    Raises:
        SignatureError: as `verify`.
    """
    payload = verify(raw, payload_type, keys)
    message = to_be_signed(payload_type, payload)
    key_ids = {
        signature.keyid
        for signature in Envelope.model_validate_json(raw).signatures
        if signature.keyid in keys and _is_valid(keys[signature.keyid], signature.sig, message)
    }
    return payload, frozenset(key_ids)


def countersign(raw: bytes, signatures: Mapping[str, bytes]) -> bytes:
    """Adds signatures, by key id, to an envelope.

    Raises:
        SignatureError: not an envelope, or too many signatures.
    """
    try:
        envelope = Envelope.model_validate_json(raw)
        added = tuple(Signature(keyid=keyid, sig=base64.b64encode(sig).decode()) for keyid, sig in signatures.items())
        countersigned = Envelope(
            payloadType=envelope.payloadType, payload=envelope.payload, signatures=(*envelope.signatures, *added)
        )
    except ValidationError as e:
        raise SignatureError("not a signed envelope, or too many signatures") from e
    return countersigned.model_dump_json().encode()


def _is_valid(key: Ed25519PublicKey, sig: str, message: bytes) -> bool:
    try:
        key.verify(base64.b64decode(sig, validate=True), message)
    except (InvalidSignature, binascii.Error):
        return False
    return True
