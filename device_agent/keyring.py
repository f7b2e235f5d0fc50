"""The keys whose commands this device accepts: those of the configuration, and the changes that commands made.

The changes are in `keys.json`, replaced atomically before they count and read for each command: commands are rare, and
a restart or a kill changes nothing about which keys are trusted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from device_agent.errors import AgentError
from device_agent.host.files import write_whole
from schemas.key_text import key_id_from_text

MAX_INTRODUCED: Final = 16  # keys added by commands
MAX_REVOKED: Final = 256
_MAX_FILE_BYTES: Final = 64 * 1024
_KeyText = Annotated[str, StringConstraints(max_length=128)]
_KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class KeyringError(AgentError):
    """The change is impossible, or the file cannot be read."""


class _KeyringState(BaseModel):
    """`expires_at`: Unix seconds of the device's clock after which a key is no longer trusted, by key id."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)
    v: Literal[1] = 1
    introduced: Annotated[tuple[_KeyText, ...], Field(max_length=MAX_INTRODUCED)] = ()
    expires_at: Annotated[dict[_KeyId, float], Field(max_length=64, alias="ends")] = {}
    revoked: Annotated[tuple[_KeyId, ...], Field(max_length=MAX_REVOKED)] = ()


@dataclass(frozen=True, slots=True)
class Keyring:
    """`configured` are the controller's keys in the configuration; `keys.json` is in `folder`."""

    folder: Path
    configured: tuple[str, ...]

    def trusted(self, now: float) -> Mapping[str, str]:
        """Returns the keys that are trusted at `now` (Unix seconds), by key id.

        Raises:
            KeyringError: the file is damaged; without it a revoked key would be trusted again.
        """
        state = self._read()
        keys = {key_id_from_text(text): text for text in (*self.configured, *state.introduced)}
        return {
            keyid: text
            for keyid, text in keys.items()
            if keyid not in state.revoked and state.expires_at.get(keyid, now + 1) > now
        }

    def is_revoked(self, keyid: str) -> bool:
        """Returns whether a key was revoked."""
        return keyid in self._read().revoked

    def trust(self, key: str, *, retire: str, until: float, now: float) -> None:
        """Trusts another key from now on, and the key id `retire` (or empty) only until `until` (Unix seconds).

        Raises:
            KeyringError: the key was revoked, or too many keys were added.
        """
        state, keyid = self._read(), key_id_from_text(key)
        if keyid in state.revoked:
            raise KeyringError(f"key {keyid} was revoked: it cannot be trusted again")
        introduced = state.introduced if key in (*self.configured, *state.introduced) else (*state.introduced, key)
        # Expired keys make room.
        introduced = tuple(
            text for text in introduced if state.expires_at.get(key_id_from_text(text), now + 1) > now or text == key
        )
        if len(introduced) > MAX_INTRODUCED:
            raise KeyringError(f"{MAX_INTRODUCED} keys were introduced already: revoke one first")
        expires_at = {other: at for other, at in state.expires_at.items() if other != keyid}
        if retire and retire != keyid:
            expires_at[retire] = min(until, expires_at.get(retire, until))
        self._write(state.model_copy(update={"introduced": introduced, "expires_at": expires_at}))

    def revoke(self, keyid: str, now: float) -> None:
        """Revokes a key permanently.

        Raises:
            KeyringError: it is the last trusted key: no command could reach the device any more.
        """
        if set(self.trusted(now)) <= {keyid}:
            raise KeyringError(f"{keyid} is the last key: introduce another first")
        state = self._read()
        if keyid in state.revoked:
            return
        if len(state.revoked) >= MAX_REVOKED:
            raise KeyringError(f"{MAX_REVOKED} keys were revoked already")
        introduced = tuple(text for text in state.introduced if key_id_from_text(text) != keyid)
        self._write(state.model_copy(update={"introduced": introduced, "revoked": (*state.revoked, keyid)}))

    @property
    def _path(self) -> Path:
        return self.folder / "keys.json"

    def _read(self) -> _KeyringState:
        path = self._path
        try:
            with path.open("rb") as file:
                return _KeyringState.model_validate_json(file.read(_MAX_FILE_BYTES))
        except FileNotFoundError:
            return _KeyringState()
        except OSError as e:
            raise KeyringError(f"{path}: {e.strerror}") from e
        except ValidationError as e:
            text = f"{path} is damaged; without it a revoked key would count again: look at it, then move it away"
            raise KeyringError(text) from e

    def _write(self, state: _KeyringState) -> None:
        try:
            write_whole(self._path, self._path.with_name(".keys.json.new"), state.model_dump_json().encode())
        except OSError as e:
            raise KeyringError(f"{self._path}: {e.strerror}") from e
