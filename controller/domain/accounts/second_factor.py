"""Second factors: what kinds there are, which codes are right, and when a session has to give one. Pure."""

import base64
import hashlib
import hmac
from typing import Final

import pyotp

from controller.domain.accounts.caller import STEP_UP
from controller.domain.accounts.factors import FactorGate

TOTP_STEP: Final = 30  # seconds
TOTP_DIGITS: Final = 6
TOTP_SECRET_BYTES: Final = 20  # the size of SHA-1, which every authenticator app knows
RECOVERY_BYTES: Final = 10  # random ones of a recovery code: 16 letters and digits
_GROUP: Final = 4  # letters of a recovery code between two hyphens
_BLANKS: Final = str.maketrans("", "", " -\t\u00a0")


def gate_of(*, has_factor: bool, factor_at: float, required: bool) -> FactorGate:
    """Returns what a session has to do; `factor_at` is when it gave a factor (Unix seconds), 0 never."""
    if factor_at > 0:
        return FactorGate.OPEN
    if has_factor:
        return FactorGate.GIVE
    return FactorGate.REGISTER if required else FactorGate.OPEN


def may_change_factors(*, has_factor: bool, factor_at: float, begun_at: float, now: float) -> bool:
    """Whether a session may add and remove factors: after a fresh one, or, without any, a fresh login at `begun_at`.

    Otherwise whoever finds an open session would stay in the account with a factor of their own.
    """
    since = factor_at if has_factor else max(factor_at, begun_at)
    return since > 0 and 0 <= now - since < STEP_UP


def totp_step(secret: bytes, code: str, now: float, last: int) -> int | None:
    """Returns the time step whose code this is, or None: at most one step from `now`, and after the `last` one used.

    A step counts once: a code that somebody else saw is worth nothing after its owner used it.
    """
    digits = code.translate(_BLANKS)
    if len(digits) != TOTP_DIGITS or not digits.isascii() or not digits.isdigit():
        return None
    codes = pyotp.HOTP(base64.b32encode(secret).decode(), digits=TOTP_DIGITS)
    current, found = int(now // TOTP_STEP), None
    for step in (current + 1, current, current - 1):
        if hmac.compare_digest(codes.at(step), digits) and step > last:
            found = step
    return found


def totp_text(secret: bytes) -> str:
    """Returns the secret in base32, as people type it into an app."""
    return base64.b32encode(secret).decode()


def totp_uri(secret: bytes, account: str, issuer: str) -> str:
    """Returns the `otpauth://` address that an authenticator app reads from a QR code."""
    return pyotp.TOTP(totp_text(secret), interval=TOTP_STEP).provisioning_uri(name=account, issuer_name=issuer)


def recovery_code(random: bytes) -> str:
    """Returns `RECOVERY_BYTES` random bytes as a code in groups: ABCD-EFGH-IJKL-MNOP."""
    text = base64.b32encode(random).decode()
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def recovery_digest(account_id: str, code: str) -> str:
    """Returns the SHA-256 in hex under which an account's code is stored, however its letters were typed.

    A slow hash adds nothing to 80 random bits.
    """
    plain = code.translate(_BLANKS).upper()
    return hashlib.sha256(f"{account_id}\n{plain}".encode("utf-8", "surrogatepass")).hexdigest()
