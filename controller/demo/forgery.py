"""A command that is right in every way but one: a key that no device trusts has signed it."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.commands import COMMAND_PAYLOAD_TYPE, Command
from schemas.signing import sign

_LIFE: Final = timedelta(minutes=5)
_MILLISECONDS: Final = 1000


def forged_order(device_id: str, now: float) -> bytes:
    """An envelope that would disable the device's SSH, signed by a stranger; `now` in Unix seconds."""
    at = datetime.fromtimestamp(now, UTC)
    command = Command(
        command_id=f"forged-{secrets.token_hex(8)}",
        device_id=device_id,
        action="service.disable",
        params={"name": "ssh"},
        issued_at=at,
        expires_at=at + _LIFE,
        counter=int(now * _MILLISECONDS),
    )
    return sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, Ed25519PrivateKey.generate())
