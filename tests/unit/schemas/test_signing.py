"""Signed envelopes are rejected when a byte, the key or the payload type differs."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import MAX_COMMAND_BYTES
from schemas.commands import COMMAND_PAYLOAD_TYPE
from schemas.signing import (
    MAX_SIGNATURES,
    SignatureError,
    key_id,
    parse_public_key,
    public_key_text,
    sign,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
TRUSTED = {key_id(KEY.public_key()): KEY.public_key()}
PAYLOAD = b'{"action":"rescan"}'
RAW = sign(PAYLOAD, COMMAND_PAYLOAD_TYPE, KEY)


def assert_rejected(raw: bytes, match: str, kind: str = COMMAND_PAYLOAD_TYPE) -> None:
    with pytest.raises(SignatureError, match=match):
        verify(raw, kind, TRUSTED)


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(RAW), **values}).encode()


@given(st.binary(max_size=2000))
def test_verify_returns_the_signed_payload(payload: bytes) -> None:
    assert verify(sign(payload, COMMAND_PAYLOAD_TYPE, KEY), COMMAND_PAYLOAD_TYPE, TRUSTED) == payload


def test_the_signature_covers_the_encoding_of_the_dsse_specification() -> None:
    envelope = json.loads(RAW)
    kind = COMMAND_PAYLOAD_TYPE.encode()
    signed = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(PAYLOAD)).encode(), PAYLOAD])
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    assert base64.b64decode(envelope["payload"]) == PAYLOAD


@given(st.integers(0, len(PAYLOAD) - 1), st.integers(1, 255))
def test_a_changed_payload_is_rejected(position: int, difference: int) -> None:
    forged = bytearray(PAYLOAD)
    forged[position] ^= difference
    assert_rejected(changed(payload=base64.b64encode(bytes(forged)).decode()), "no valid signature")


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_changed_signature_is_rejected(position: int, difference: int) -> None:
    signature = json.loads(RAW)["signatures"][0]
    forged = bytearray(base64.b64decode(signature["sig"]))
    forged[position] ^= difference
    assert_rejected(
        changed(signatures=[{**signature, "sig": base64.b64encode(bytes(forged)).decode()}]), "no valid signature"
    )


def test_another_payload_type_is_rejected() -> None:
    assert_rejected(RAW, "another purpose", kind="application/other")
    assert_rejected(changed(payloadType="application/other"), "another purpose")
    assert_rejected(changed(payloadType="application/other"), "no valid signature", kind="application/other")


def test_another_key_is_rejected_even_with_a_trusted_key_id() -> None:
    forged = sign(PAYLOAD, COMMAND_PAYLOAD_TYPE, OTHER)
    assert_rejected(forged, "no valid signature")
    envelope = json.loads(forged)
    envelope["signatures"][0]["keyid"] = key_id(KEY.public_key())
    assert_rejected(json.dumps(envelope).encode(), "no valid signature")


def test_one_valid_signature_of_several_is_enough_and_their_number_is_bounded() -> None:
    valid = json.loads(RAW)["signatures"][0]
    invalid = {"keyid": "unknown", "sig": "AAAA"}
    assert verify(changed(signatures=[invalid, valid]), COMMAND_PAYLOAD_TYPE, TRUSTED) == PAYLOAD
    assert_rejected(changed(signatures=[invalid] * MAX_SIGNATURES + [valid]), "not a signed envelope")
    assert_rejected(changed(signatures=[]), "not a signed envelope")


@pytest.mark.parametrize("sig", ["", "A", "AAA", "AAAA", "====", "A" * 88])
def test_malformed_signatures_are_rejected(sig: str) -> None:
    signature = json.loads(RAW)["signatures"][0]
    assert_rejected(changed(signatures=[{**signature, "sig": sig}]), "no valid signature|not a signed envelope")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 20_000,
        PAYLOAD,
        changed(extra=1),
        changed(payload="not base64!"),
        changed(payload="A"),
        changed(payload=None),
        changed(signatures="x"),
        changed(signatures=[{"keyid": "k" * 65, "sig": "AAAA"}]),
        changed(signatures=[{"keyid": "k", "sig": "AAAA", "alg": "none"}]),
    ],
)
def test_malformed_envelopes_are_rejected(raw: bytes) -> None:
    assert_rejected(raw, "not a signed envelope")


def test_an_envelope_above_the_limit_is_not_parsed() -> None:
    assert_rejected(
        b" " * (MAX_COMMAND_BYTES + 1), f"envelope too large: {MAX_COMMAND_BYTES + 1} > {MAX_COMMAND_BYTES}"
    )


@given(st.binary(max_size=300))
def test_any_bytes_are_rejected_without_another_error(raw: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(raw, COMMAND_PAYLOAD_TYPE, TRUSTED)


def test_without_trusted_keys_everything_is_rejected() -> None:
    with pytest.raises(SignatureError, match="no valid signature"):
        verify(RAW, COMMAND_PAYLOAD_TYPE, {})


def test_public_keys_are_formatted_and_parsed() -> None:
    text = public_key_text(KEY.public_key())
    assert parse_public_key(text).public_bytes_raw() == KEY.public_key().public_bytes_raw()
    for bad, message in (
        (text.removeprefix("ed25519:"), "starts with"),
        ("ed25519:not base64!", "base64"),
        ("ed25519:AAAA", "has 32 bytes, this one has 3"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_public_key(bad)
