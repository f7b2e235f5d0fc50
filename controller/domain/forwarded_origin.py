"""Who sent a request that one controller forwards to another: sealed with a key that only controllers know. Pure."""

import base64
import binascii
import hmac
import ipaddress
import json
from dataclasses import dataclass
from typing import Final

MAX_AGE: Final = 30.0  # seconds between sealing and arrival, by two clocks
MAX_SEAL: Final = 512  # characters
_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of the client, and the scheme that it used. `sealed_at`: Unix seconds; `nonce`: of this request."""

    address: str
    scheme: str
    sealed_at: float
    nonce: str


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What a seal is for: no other request has it. Bytes as they were received; empty where there is none."""

    method: str
    target: bytes
    host: bytes
    authorization: bytes
    cookie: bytes


def seal(origin: Origin, facts: RequestFacts, key: bytes) -> str:
    """Returns the text that `open_seal` takes."""
    front = json.dumps([origin.address, origin.scheme, origin.sealed_at, origin.nonce]).encode()
    return f"{base64.urlsafe_b64encode(front).decode()}.{_mac(front, facts, key)}"


def open_seal(text: str, facts: RequestFacts, now: float, key: bytes) -> Origin | None:
    """Returns who sent a request; `None` if the seal is not of this key and request, or too old at `now`."""
    if len(text) > MAX_SEAL or not text.isascii():
        return None
    front_text, _, mac = text.partition(".")
    try:
        front = base64.b64decode(front_text, altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    if not hmac.compare_digest(mac, _mac(front, facts, key)):
        return None
    origin = Origin(*json.loads(front))
    return origin if abs(now - origin.sealed_at) <= MAX_AGE and _is_possible(origin) else None


def _is_possible(origin: Origin) -> bool:
    try:
        ipaddress.ip_address(origin.address)
    except ValueError:
        return False
    return origin.scheme in _SCHEMES


def _mac(front: bytes, facts: RequestFacts, key: bytes) -> str:
    parts = (front, facts.method.encode(), facts.target, facts.host, facts.authorization, facts.cookie)
    # Lengths first: no two requests are the same bytes.
    text = b"".join(len(part).to_bytes(4) + part for part in parts)
    return hmac.digest(key, text, "sha256").hex()
