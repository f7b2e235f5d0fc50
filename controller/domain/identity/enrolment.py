"""Enrolment tokens: limited in uses and time, optionally bound to one device. Pure."""

import re
from dataclasses import dataclass, replace
from typing import Final

from controller.domain.identity.certificates import Certificate

MAX_USES: Final = 10_000  # devices of one token
MAX_LIFE: Final = 30 * 86_400.0  # seconds
ANY_LOWER_CASE: Final = ""  # no pattern: any id without capital letters, so that none looks like another one's
MAX_STARS: Final = 4  # `*` in a pattern
IDS_PATTERN: Final = r"^[A-Za-z0-9._:*?-]{0,64}$"  # device ids, with `*` for any characters and `?` for one


def matches_ids(pattern: str, device_id: str) -> bool:
    """Whether a token with this pattern may enrol the id; case counts."""
    if pattern == ANY_LOWER_CASE:
        return device_id == device_id.lower()
    parts = (".*" if one == "*" else "." if one == "?" else re.escape(one) for one in re.sub(r"\*+", "*", pattern))
    return re.fullmatch("".join(parts), device_id) is not None


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """A token as it is stored: the digest, never the token.

    `device_id` binds the token to one device, `ids` to device ids of a pattern (`matches_ids`). `replaces`: the
    operator approves a further certificate for a known device.
    """

    token_id: str
    digest: str  # SHA-256 in hex
    uses_left: int
    created_at: float
    expires_at: float
    by: str
    device_class: str = ""
    device_id: str = ""
    replaces: bool = False
    ids: str = ANY_LOWER_CASE

    def is_over(self, now: float) -> bool:
        """Whether it is used up or expired."""
        return self.uses_left <= 0 or now >= self.expires_at

    def with_use(self) -> "EnrolmentToken":
        """Returns the token after one more use."""
        return replace(self, uses_left=self.uses_left - 1)


@dataclass(frozen=True, slots=True)
class EnrolmentRefusal:
    """Why an enrolment is refused; `is_alert`: somebody may be trying to take over an identity."""

    code: str
    message: str
    is_alert: bool = False


TOKEN_REFUSED: Final = EnrolmentRefusal("token_refused", "this token is unknown, used up or expired: ask for a new one")


def check_token(token: EnrolmentToken | None, now: float) -> EnrolmentRefusal | None:
    """Returns the refusal of an invalid token; it does not show whether the token ever existed."""
    if token is None or token.is_over(now):
        return TOKEN_REFUSED
    return None


def check_enrolment(
    token: EnrolmentToken | None, name: str, held: tuple[Certificate, ...], now: float, *, is_known: bool
) -> EnrolmentRefusal | None:
    """Returns why the token does not let a device enrol as `name`, `None` if it does.

    `held`: all certificates that were ever issued for the name. `is_known`: a device of that id has reported.
    """
    refused = check_token(token, now)
    if refused is not None or token is None:
        return refused or TOKEN_REFUSED
    if token.device_id and token.device_id != name:
        text = f"this token is for the device {token.device_id}"
        return EnrolmentRefusal("wrong_device", text, is_alert=True)
    if not token.device_id and not matches_ids(token.ids, name):
        what = f"ids like {token.ids}" if token.ids else "ids without capital letters"
        return EnrolmentRefusal("id_not_allowed", f"this token is for {what}", is_alert=True)
    if (held or is_known) and not token.replaces:
        text = (
            f"the id {name} belongs to a device already; if it is this one, an operator approves it with: "
            f"cordon enrol token --device {name} --replace"
        )
        return EnrolmentRefusal("id_taken", text, is_alert=True)
    return None
