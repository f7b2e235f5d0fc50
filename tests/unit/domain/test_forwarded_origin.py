"""A seal tells who sent a forwarded request; it is of one key, one request and one moment."""

import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from typing import Any

import pytest

from controller.domain.forwarded_origin import MAX_AGE, Origin, RequestFacts, open_seal, seal

KEY, NOW = b"k" * 32, 1_800_000_000.0
ORIGIN = Origin("192.0.2.7", "https", NOW, "n")
FACTS = RequestFacts("POST", b"/api/v1/users/contain?wait=5", b"cordon.example", b"Bearer x", b"")


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1"])
def test_who_sent_a_request_is_what_was_sealed(address: str) -> None:
    origin = replace(ORIGIN, address=address)
    assert open_seal(seal(origin, FACTS, KEY), FACTS, NOW + 1, KEY) == origin


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"target": b"/api/v1/users/contain"},
        {"host": b"other.example"},
        {"authorization": b"Bearer y"},
        {"cookie": b"a=b"},
        {"host": b"cordon.exampleBearer x", "authorization": b""},
    ],
)
def test_a_seal_of_another_request_is_none(change: dict[str, Any]) -> None:
    assert open_seal(seal(ORIGIN, FACTS, KEY), replace(FACTS, **change), NOW, KEY) is None


def test_a_seal_of_another_key_or_another_time_is_none() -> None:
    text = seal(ORIGIN, FACTS, KEY)
    assert open_seal(text, FACTS, NOW, b"j" * 32) is None
    assert open_seal(text, FACTS, NOW + MAX_AGE + 1, KEY) is None
    assert open_seal(text, FACTS, NOW - MAX_AGE - 1, KEY) is None


@pytest.mark.parametrize("text", ["", ".", "a.b", "é.x", "x" * 600, "W10=." + "0" * 64, "\x00.\xff"])
def test_what_is_no_seal_is_none(text: str) -> None:
    assert open_seal(text, FACTS, NOW, KEY) is None


def test_another_address_in_front_of_the_same_proof_is_none() -> None:
    _, _, proof = seal(ORIGIN, FACTS, KEY).partition(".")
    front = urlsafe_b64encode(json.dumps(["198.51.100.1", "https", NOW, "n"]).encode()).decode()
    assert open_seal(f"{front}.{proof}", FACTS, NOW, KEY) is None


@pytest.mark.parametrize("origin", [replace(ORIGIN, address="localhost"), replace(ORIGIN, scheme="file")])
def test_an_origin_that_no_controller_sees_is_none(origin: Origin) -> None:
    assert open_seal(seal(origin, FACTS, KEY), FACTS, NOW, KEY) is None
