"""The update repository of a running controller."""

from pathlib import Path

from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.signing import at, published_targets, sign_online, verified_targets, warnings
from controller.ports.updates import MetadataRoleState, PublishedUpdate, RefreshResult


class TufUpdateRepository:
    """A folder of TUF metadata and targets; see `ports.updates.UpdateRepository`."""

    def __init__(self, base: Path) -> None:
        self.folder = RepositoryFolder(base)

    def published(self) -> tuple[PublishedUpdate, ...]:
        """Returns the targets of the latest targets role, without entries of other programs."""
        targets = verified_targets(self.folder, self.folder.root().signed).signed
        found = (
            PublishedUpdate(path, targets.targets[path].hashes.get("sha256", ""), targets.targets[path].length, target)
            for path, target in published_targets(targets).items()
        )
        return tuple(sorted(found, key=lambda one: (one.target.name, one.path)))

    def roles(self) -> tuple[MetadataRoleState, ...]:
        """Returns version, expiry, keys and threshold of each existing role."""
        root, folder = self.folder.root().signed, self.folder
        held = (("root", folder.root()), ("targets", folder.newest_targets()))
        online = (("snapshot", folder.snapshot()), ("timestamp", folder.timestamp()))
        return tuple(
            MetadataRoleState(
                role,
                metadata.signed.version,
                metadata.signed.expires.timestamp(),
                len(root.roles[role].keyids),
                root.roles[role].threshold,
            )
            for role, metadata in (*held, *online)
            if metadata is not None
        )

    def root(self) -> bytes:
        """Returns the latest root."""
        return self.folder.read_root(self.folder.root().signed.version)

    def refresh(self, now: float) -> RefreshResult:
        """Signs the online roles that need it."""
        with self.folder.locked():
            done = sign_online(self.folder, at(now))
        return RefreshResult(done, warnings(self.folder, at(now)))
