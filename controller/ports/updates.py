"""The repository of signed updates as the running controller sees it: what is published, and whether it stays valid."""

from dataclasses import dataclass
from typing import Protocol

from controller.ports.errors import ControllerError
from schemas.updates import UpdateTarget


class UpdatesError(ControllerError):
    """The repository of updates cannot be read, written or signed; the text says what to do."""


class NoRepositoryError(UpdatesError):
    """There is none at the configured place."""


@dataclass(frozen=True, slots=True)
class PublishedUpdate:
    """A target that devices may install: where it lies, its content, and what is signed about it."""

    path: str
    sha256: str
    length: int  # bytes
    target: UpdateTarget


@dataclass(frozen=True, slots=True)
class MetadataRoleState:
    """One role of the metadata; `expires` in Unix seconds, `keys` of which `threshold` have to sign."""

    role: str
    version: int
    expires: float
    keys: int
    threshold: int


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What a look at the online roles did: the roles signed anew, and what offline keys have to do soon."""

    signed: tuple[str, ...]
    warnings: tuple[str, ...]


class UpdateRepository(Protocol):
    """The published targets.

    Raises:
        UpdatesError: from every method.
    """

    def published(self) -> tuple[PublishedUpdate, ...]:
        """Every target that the newest signed metadata lists, by name and version."""
        ...

    def roles(self) -> tuple[MetadataRoleState, ...]:
        """How the four roles stand."""
        ...

    def root(self) -> bytes:
        """The newest root, for a device that trusts none yet."""
        ...

    def refresh(self, now: float) -> RefreshResult:
        """Take in what offline keys signed, and renew what the online keys sign before it ends; blocking."""
        ...
