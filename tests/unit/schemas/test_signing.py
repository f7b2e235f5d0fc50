"""Signed envelopes: one byte, one key, one purpose off, and nothing comes out."""

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


def refused(raw: bytes, match: str, kind: str = COMMAND_PAYLOAD_TYPE) -> None:
    with pytest.raises(SignatureError, match=match):
        verify(raw, kind, TRUSTED)


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(RAW), **values}).encode()


@given(st.binary(max_size=2000))
def test_what_was_signed_comes_out(payload: bytes) -> None:
    assert verify(sign(payload, COMMAND_PAYLOAD_TYPE, KEY), COMMAND_PAYLOAD_TYPE, TRUSTED) == payload


def test_the_signature_is_the_one_of_the_specification() -> None:
    envelope = json.loads(RAW)
    kind = COMMAND_PAYLOAD_TYPE.encode()
    signed = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(PAYLOAD)).encode(), PAYLOAD])
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    assert base64.b64decode(envelope["payload"]) == PAYLOAD


@given(st.integers(0, len(PAYLOAD) - 1), st.integers(1, 255))
def test_one_byte_of_the_payload(position: int, difference: int) -> None:
    forged = bytearray(PAYLOAD)
    forged[position] ^= difference
    refused(changed(payload=base64.b64encode(bytes(forged)).decode()), "no valid signature")


@given(st.integers(0, 63), st.integers(1, 255))
def test_one_byte_of_the_signature(position: int, difference: int) -> None:
    signature = json.loads(RAW)["signatures"][0]
    forged = bytearray(base64.b64decode(signature["sig"]))
    forged[position] ^= difference
    refused(changed(signatures=[{**signature, "sig": base64.b64encode(bytes(forged)).decode()}]), "no valid signature")


def test_another_purpose() -> None:
    refused(RAW, "another purpose", kind="application/other")
    refused(changed(payloadType="application/other"), "another purpose")
    refused(changed(payloadType="application/other"), "no valid signature", kind="application/other")


def test_another_key_even_under_our_keys_name() -> None:
    forged = sign(PAYLOAD, COMMAND_PAYLOAD_TYPE, OTHER)
    refused(forged, "no valid signature")
    envelope = json.loads(forged)
    envelope["signatures"][0]["keyid"] = key_id(KEY.public_key())
    refused(json.dumps(envelope).encode(), "no valid signature")


def test_one_good_signature_among_several_is_enough_and_their_number_is_bounded() -> None:
    good = json.loads(RAW)["signatures"][0]
    bad = {"keyid": "unknown", "sig": "AAAA"}
    assert verify(changed(signatures=[bad, good]), COMMAND_PAYLOAD_TYPE, TRUSTED) == PAYLOAD
    refused(changed(signatures=[bad] * MAX_SIGNATURES + [good]), "not a signed envelope")
    refused(changed(signatures=[]), "not a signed envelope")


@pytest.mark.parametrize("sig", ["", "A", "AAA", "AAAA", "====", "A" * 88])
def test_signatures_that_are_none(sig: str) -> None:
    signature = json.loads(RAW)["signatures"][0]
    refused(changed(signatures=[{**signature, "sig": sig}]), "no valid signature|not a signed envelope")


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
def test_what_is_no_envelope(raw: bytes) -> None:
    refused(raw, "not a signed envelope")


def test_a_large_envelope_is_not_even_read() -> None:
    refused(b" " * (MAX_COMMAND_BYTES + 1), f"envelope too large: {MAX_COMMAND_BYTES + 1} > {MAX_COMMAND_BYTES}")


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    with pytest.raises(SignatureError):
        verify(raw, COMMAND_PAYLOAD_TYPE, TRUSTED)


def test_nothing_is_trusted_by_an_empty_list_of_keys() -> None:
    with pytest.raises(SignatureError, match="no valid signature"):
        verify(RAW, COMMAND_PAYLOAD_TYPE, {})


def test_a_public_key_as_text() -> None:
    text = public_key_text(KEY.public_key())
    assert parse_public_key(text).public_bytes_raw() == KEY.public_key().public_bytes_raw()
    for bad, message in (
        (text.removeprefix("ed25519:"), "starts with"),
        ("ed25519:not base64!", "base64"),
        ("ed25519:AAAA", "has 32 bytes, this one has 3"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_public_key(bad)
