"""The repository of signed updates: published targets, and the validity of its metadata."""

from dataclasses import dataclass
from typing import Protocol

from controller.ports.errors import ControllerError
from schemas.updates import UpdateTarget


class UpdatesError(ControllerError):
    """The update repository cannot be read, written or signed; the text says what to do."""


class NoRepositoryError(UpdatesError):
    """There is no repository at the configured path."""


@dataclass(frozen=True, slots=True)
class PublishedUpdate:
    """A target that devices may install: its path, its content, and its signed metadata."""

    path: str
    sha256: str
    length: int  # bytes
    target: UpdateTarget


@dataclass(frozen=True, slots=True)
class MetadataRoleState:
    """A role of the metadata; `expires` in Unix seconds, `keys` of which `threshold` have to sign."""

    role: str
    version: int
    expires: float
    keys: int
    threshold: int


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """The roles that were signed again, and warnings about roles that offline keys have to sign soon."""

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
        """The state of the four roles."""
        ...

    def root(self) -> bytes:
        """The newest root metadata, for a device that has none yet."""
        ...

    def refresh(self, now: float) -> RefreshResult:
        """Takes over metadata that offline keys signed, and renews the online roles before they expire; blocking."""
        ...
