"""Changes whose commands this device obeys: a new key beside the old one, or a key never again."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from device_agent.actions.base import (
    ActionError,
    ActionPlan,
    InvalidParamsError,
    Params,
    RemediationAction,
    Verification,
)
from device_agent.keyring import Keyring, KeyringError
from schemas.actions import KEYS_INTRODUCE, KEYS_REVOKE, MAX_OVERLAP, MIN_OVERLAP
from schemas.key_text import key_name

DEFAULT_OVERLAP: Final = 30 * 86_400  # seconds
T = TypeVar("T")
_NAME: Final = re.compile(r"^[0-9a-f]{16}$")


class TrustKey:
    """Trusts `key` from now on, and `retire` for `overlap` seconds more."""

    is_repeatable = True

    def __init__(self, ring: Keyring, now: Callable[[], float] = time.time) -> None:
        self._ring = ring
        self._now = now

    def check(self, params: Params) -> None:
        """Key, and what becomes of the old one."""
        for name in params:
            if name not in ("key", "retire", "overlap"):
                raise InvalidParamsError(f"{name}: no such parameter")
        key, retire, overlap = params.get("key"), params.get("retire", ""), params.get("overlap", DEFAULT_OVERLAP)
        if not isinstance(key, str):
            raise InvalidParamsError("key: which one?")
        try:
            key_name(key)
        except ValueError as e:
            raise InvalidParamsError(f"key: {e}") from e
        if not isinstance(retire, str) or (retire and _NAME.fullmatch(retire) is None):
            raise InvalidParamsError("retire: a key's name has 16 hex digits")
        if not isinstance(overlap, int) or isinstance(overlap, bool) or not MIN_OVERLAP <= overlap <= MAX_OVERLAP:
            raise InvalidParamsError(f"overlap: from {MIN_OVERLAP} to {MAX_OVERLAP} seconds")

    def plan(self, params: Params) -> ActionPlan:
        """What is trusted now; an end that is set moves only forward, so doing it again changes nothing."""
        trusted = _asked(lambda: self._ring.trusted(self._now()))
        name = key_name(str(params["key"]))
        return ActionPlan(was={"trusted": " ".join(sorted(trusted))}, would=f"trust {name}")

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Write it down."""
        del was
        now, overlap = self._now(), int(params.get("overlap", DEFAULT_OVERLAP))
        key, retire = str(params["key"]), str(params.get("retire", ""))
        _asked(lambda: self._ring.introduce(key, retire=retire, until=now + overlap, now=now))

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """It is trusted."""
        del was
        trusted = _asked(lambda: self._ring.trusted(self._now()))
        return Verification(key_name(str(params["key"])) in trusted, {"trusted": " ".join(sorted(trusted))})

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """Nothing was changed where it failed."""
        del params, was
        return "nothing was changed"


class RevokeKey:
    """Trusts the key of the name `keyid` never again."""

    is_repeatable = True

    def __init__(self, ring: Keyring, now: Callable[[], float] = time.time) -> None:
        self._ring = ring
        self._now = now

    def check(self, params: Params) -> None:
        """A key's name."""
        keyid = params.get("keyid")
        if set(params) != {"keyid"} or not isinstance(keyid, str) or _NAME.fullmatch(keyid) is None:
            raise InvalidParamsError("keyid: a key's name, 16 hex digits, and nothing else")

    def plan(self, params: Params) -> ActionPlan:
        """Whether it was revoked already."""
        keyid = str(params["keyid"])
        is_revoked = _asked(lambda: self._ring.is_revoked(keyid))
        return ActionPlan(was={"revoked": str(is_revoked).lower()}, would=f"revoke {keyid}", is_needed=not is_revoked)

    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        """Write it down."""
        del was
        _asked(lambda: self._ring.revoke(str(params["keyid"]), self._now()))

    def verify(self, params: Params, was: Mapping[str, str]) -> Verification:
        """It is revoked."""
        del was
        return Verification(_asked(lambda: self._ring.is_revoked(str(params["keyid"]))))

    def undo(self, params: Params, was: Mapping[str, str]) -> str:
        """A revocation stays."""
        del params, was
        return "a revocation is not undone"


def trust(ring: Keyring) -> Mapping[str, RemediationAction]:
    """Both actions by name."""
    return {KEYS_INTRODUCE: TrustKey(ring), KEYS_REVOKE: RevokeKey(ring)}


def _asked(act: Callable[[], T]) -> T:
    try:
        return act()
    except KeyringError as e:
        raise ActionError(str(e)) from e
