"""The signed repository of the update demonstration, made and filled by the product's own ceremonies."""

import io
import secrets
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from controller.adapters.tuf_repository.ceremony import RoleKeyPlan, init
from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.publishing import publish
from schemas.updates import HealthCheck, InstallerKind, UpdateKind, UpdateTarget

NAME: Final = "edge-app"
BEFORE: Final = "1.3.0"
GOOD: Final = "1.4.0"
BAD: Final = "1.5.0"
_CHECK: Final = "check.sh"
_WELL: Final = "#!/bin/sh\nexit 0\n"
_SICK: Final = "#!/bin/sh\necho 'the new version does not answer' >&2\nexit 1\n"
_KEY_WORDS: Final = 4  # random parts of the passphrase


class DemoUpdateRepository:
    """A repository below `base`, whose offline keys lie in `keys` and go with it."""

    def __init__(self, base: Path, keys: Path) -> None:
        self.folder = RepositoryFolder(base)
        self._keys = keys
        self._passphrase = "-".join(f"{secrets.token_hex(4)}Q7" for _ in range(_KEY_WORDS))

    def make(self) -> None:
        """Make the four roles, and publish the good version."""
        plans = {"root": RoleKeyPlan(2, 2), "targets": RoleKeyPlan(1, 1)}
        init(self.folder, self._keys, plans, self._ask, _now())
        self._publish(GOOD, _WELL)

    def publish_bad(self) -> None:
        """Publish, with all signatures, a version whose health check fails."""
        self._publish(BAD, _SICK)

    def write_root(self, path: Path) -> None:
        """The first root, as it is installed with a device."""
        path.write_bytes(self.folder.read_root(1))

    def _publish(self, version: str, check: str) -> None:
        incoming = self._keys.parent / f"{NAME}-{version}.tar.gz"
        files = {"VERSION": f"{version}\n", _CHECK: check}
        incoming.write_bytes(_archive(files))
        target = UpdateTarget(
            name=NAME,
            version=version,
            kind=UpdateKind.FILE,
            installer=InstallerKind.FILESET,
            classes=("*",),
            health=HealthCheck(command=(_CHECK,), seconds=2),
            installed_bytes=sum(len(text) for text in files.values()),
        )
        publish(self.folder, incoming, target, self._keys, self._ask, _now())

    def _ask(self, _path: Path, _is_new: bool) -> str:
        return self._passphrase


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), 0o755 if name == _CHECK else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()
