"""Pending updates, as every package manager's reader returns them."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, order=True)
class PendingUpdate:
    """A package, or a patch of zypper, with its installed and its available version."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class PendingUpdates:
    """All pending updates and the security updates.

    `security` is None if they are not known, `oldest` the date of the oldest one; `reason` explains whichever of both
    is missing. `hidden` says why more updates may wait. `security_lists` are the names of the Release files of apt
    that the security updates were found by.
    """

    all: tuple[PendingUpdate, ...]
    security: tuple[PendingUpdate, ...] | None
    oldest: datetime | None = None
    reason: str = ""
    hidden: str = ""
    security_lists: tuple[str, ...] = ()
