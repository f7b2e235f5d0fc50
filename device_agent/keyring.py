"""The keys whose commands this device obeys: those of its configuration, and what commands have changed about them.

Written down as a whole file before it counts, and read for each command: commands are rare, and a restart or a kill
changes nothing about who is trusted.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from device_agent.errors import AgentError
from device_agent.host.files import write_whole
from schemas.key_text import key_name

MAX_INTRODUCED: Final = 16  # keys that commands brought
MAX_REVOKED: Final = 256
_MAX_FILE_BYTES: Final = 64 * 1024
_KeyText = Annotated[str, StringConstraints(max_length=128)]
_KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class KeyringError(AgentError):
    """The change cannot be made, or what was written down cannot be read; the text says why."""


class _Kept(BaseModel):
    """`ends`: Unix seconds by the device's clock after which a key counts no more."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    v: Literal[1] = 1
    introduced: Annotated[tuple[_KeyText, ...], Field(max_length=MAX_INTRODUCED)] = ()
    ends: Annotated[dict[_KeyId, float], Field(max_length=64)] = {}
    revoked: Annotated[tuple[_KeyId, ...], Field(max_length=MAX_REVOKED)] = ()


@dataclass(frozen=True, slots=True)
class Keyring:
    """`configured` are the controller's keys as written in configurations; the folder is the agent's own."""

    folder: Path
    configured: tuple[str, ...]

    def trusted(self, now: float) -> Mapping[str, str]:
        """Keys by their names, of those that count at `now` (Unix seconds).

        Raises:
            KeyringError: what was written down is damaged: without it a revoked key would count again.
        """
        kept = self._read()
        keys = {key_name(text): text for text in (*self.configured, *kept.introduced)}
        return {
            name: text for name, text in keys.items() if name not in kept.revoked and kept.ends.get(name, now + 1) > now
        }

    def is_revoked(self, name: str) -> bool:
        """Whether a key was revoked."""
        return name in self._read().revoked

    def introduce(self, key: str, *, retire: str, until: float, now: float) -> None:
        """Trust another key from now on, and `retire` (a key's name, or empty) only until `until` (Unix seconds).

        Raises:
            KeyringError: it was revoked, or nothing more can be kept.
        """
        kept, name = self._read(), key_name(key)
        if name in kept.revoked:
            raise KeyringError(f"key {name} was revoked: it does not come back")
        introduced = kept.introduced if key in (*self.configured, *kept.introduced) else (*kept.introduced, key)
        # What has ended makes room.
        introduced = tuple(one for one in introduced if kept.ends.get(key_name(one), now + 1) > now or one == key)
        if len(introduced) > MAX_INTRODUCED:
            raise KeyringError(f"{MAX_INTRODUCED} keys were introduced already: revoke one first")
        ends = {other: at for other, at in kept.ends.items() if other != name}
        if retire and retire != name:
            ends[retire] = min(until, ends.get(retire, until))
        self._write(kept.model_copy(update={"introduced": introduced, "ends": ends}))

    def revoke(self, name: str, now: float) -> None:
        """Trust a key never again.

        Raises:
            KeyringError: it is the last one: nobody could give the device an order any more.
        """
        if set(self.trusted(now)) <= {name}:
            raise KeyringError(f"{name} is the last key: introduce another first")
        kept = self._read()
        if name in kept.revoked:
            return
        if len(kept.revoked) >= MAX_REVOKED:
            raise KeyringError(f"{MAX_REVOKED} keys were revoked already")
        introduced = tuple(text for text in kept.introduced if key_name(text) != name)
        self._write(kept.model_copy(update={"introduced": introduced, "revoked": (*kept.revoked, name)}))

    @property
    def _path(self) -> Path:
        return self.folder / "keys.json"

    def _read(self) -> _Kept:
        path = self._path
        try:
            with path.open("rb") as file:
                return _Kept.model_validate_json(file.read(_MAX_FILE_BYTES))
        except FileNotFoundError:
            return _Kept()
        except OSError as e:
            raise KeyringError(f"{path}: {e.strerror}") from e
        except ValidationError as e:
            text = f"{path} is damaged; without it a revoked key would count again: look at it, then move it away"
            raise KeyringError(text) from e

    def _write(self, kept: _Kept) -> None:
        try:
            write_whole(self._path, self._path.with_name(".keys.json.new"), kept.model_dump_json().encode())
        except OSError as e:
            raise KeyringError(f"{self._path}: {e.strerror}") from e


def names_of(keys: Collection[str]) -> frozenset[str]:
    """The names of keys as written in configurations."""
    return frozenset(key_name(text) for text in keys)
