"""The controllers that work with one store: what each tells the others of itself."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Page = Sequence[tuple[str, bool | None]]  # device ids, with what is known of their connection
PresencePages = Callable[[str, int], Awaitable[Page]]
"""Returns at most so many devices after an id, in the order of ids."""


@dataclass(frozen=True, slots=True)
class ControllerRecord:
    """One controller; `seen_at` (Unix seconds) is renewed while it runs.

    `client_id` and `username` are its own at the broker. `keys`: a fingerprint for each key on its host, by what the
    key is for; never a key. `policy_files`: the version of the policies in its files.
    """

    name: str
    client_id: str
    seen_at: float
    username: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    policy_files: str = ""


class ControllerBook(Protocol):
    """The records in the store."""

    async def put(self, record: ControllerRecord, forget_before: float) -> None:
        """Replaces the record of this name, and deletes those that were not seen since `forget_before`."""
        ...

    async def records(self) -> Sequence[ControllerRecord]:
        """Every record, by name."""
        ...
