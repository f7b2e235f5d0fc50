"""`keys.introduce` and `keys.revoke`: change the keys whose commands this device accepts."""

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
    reject_unknown_params,
)
from device_agent.keyring import Keyring, KeyringError
from schemas.actions import KEYS_INTRODUCE, KEYS_REVOKE, MAX_OVERLAP, MIN_OVERLAP
from schemas.key_text import key_id_from_text

DEFAULT_OVERLAP: Final = 30 * 86_400  # seconds
T = TypeVar("T")
_KEY_ID: Final = re.compile(r"^[0-9a-f]{16}$")


class TrustKey:
    """Trusts `key` from now on, and the key id `retire` for `overlap` more seconds only."""

    is_repeatable = True

    def __init__(self, keyring: Keyring, now: Callable[[], float] = time.time) -> None:
        self._keyring = keyring
        self._now = now

    def check(self, params: Params) -> None:
        reject_unknown_params(params, "key", "retire", "overlap")
        key, retire, overlap = params.get("key"), params.get("retire", ""), params.get("overlap", DEFAULT_OVERLAP)
        if not isinstance(key, str):
            raise InvalidParamsError("key: missing")
        try:
            key_id_from_text(key)
        except ValueError as e:
            raise InvalidParamsError(f"key: {e}") from e
        if not isinstance(retire, str) or (retire and _KEY_ID.fullmatch(retire) is None):
            raise InvalidParamsError("retire: a key id has 16 hex digits")
        if not isinstance(overlap, int) or isinstance(overlap, bool) or not MIN_OVERLAP <= overlap <= MAX_OVERLAP:
            raise InvalidParamsError(f"overlap: from {MIN_OVERLAP} to {MAX_OVERLAP} seconds")

    def plan(self, params: Params) -> ActionPlan:
        """Returns the trusted keys. Repeating the action is harmless: it never extends the expiry of a key."""
        trusted = _with_action_errors(lambda: self._keyring.trusted(self._now()))
        keyid = key_id_from_text(str(params["key"]))
        return ActionPlan(before={"trusted": " ".join(sorted(trusted))}, changes=f"trust {keyid}")

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        del before
        now, overlap = self._now(), int(params.get("overlap", DEFAULT_OVERLAP))
        key, retire = str(params["key"]), str(params.get("retire", ""))
        _with_action_errors(lambda: self._keyring.trust(key, retire=retire, until=now + overlap, now=now))

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del before
        trusted = _with_action_errors(lambda: self._keyring.trusted(self._now()))
        return Verification(key_id_from_text(str(params["key"])) in trusted, {"trusted": " ".join(sorted(trusted))})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Returns at once: a failed change wrote nothing."""
        del params, before
        return "nothing was changed"


class RevokeKey:
    """Revokes the key `keyid` permanently."""

    is_repeatable = True

    def __init__(self, keyring: Keyring, now: Callable[[], float] = time.time) -> None:
        self._keyring = keyring
        self._now = now

    def check(self, params: Params) -> None:
        keyid = params.get("keyid")
        if set(params) != {"keyid"} or not isinstance(keyid, str) or _KEY_ID.fullmatch(keyid) is None:
            raise InvalidParamsError("keyid: a key id of 16 hex digits, and no other parameter")

    def plan(self, params: Params) -> ActionPlan:
        """Reads whether the key was revoked already."""
        keyid = str(params["keyid"])
        is_revoked = _with_action_errors(lambda: self._keyring.is_revoked(keyid))
        return ActionPlan(
            before={"revoked": str(is_revoked).lower()}, changes=f"revoke {keyid}", is_needed=not is_revoked
        )

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        del before
        _with_action_errors(lambda: self._keyring.revoke(str(params["keyid"]), self._now()))

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del before
        return Verification(_with_action_errors(lambda: self._keyring.is_revoked(str(params["keyid"]))))

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        """Returns at once: a revocation is permanent."""
        del params, before
        return "a revocation is not undone"


def key_actions(keyring: Keyring) -> Mapping[str, RemediationAction]:
    """Returns both actions by name."""
    return {KEYS_INTRODUCE: TrustKey(keyring), KEYS_REVOKE: RevokeKey(keyring)}


def _with_action_errors(operation: Callable[[], T]) -> T:
    try:
        return operation()
    except KeyringError as e:
        raise ActionError(str(e)) from e
