"""A repository of signed updates, made and filled by the product's own ceremonies."""

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
INSTALLED: Final = "1.3.0"
GOOD: Final = "1.4.0"
BAD: Final = "1.5.0"
_CHECK: Final = "check.sh"
_PASSING_CHECK: Final = "#!/bin/sh\nexit 0\n"
_FAILING_CHECK: Final = "#!/bin/sh\necho 'the new version does not answer' >&2\nexit 1\n"
_PASSPHRASE_PARTS: Final = 4


class DemoUpdateRepository:
    """A repository below `base`, with its offline keys in `keys`; it has the good version."""

    def __init__(self, base: Path, keys: Path) -> None:
        self.folder = RepositoryFolder(base)
        self._keys = keys
        self._passphrase = "-".join(f"{secrets.token_hex(4)}Q7" for _ in range(_PASSPHRASE_PARTS))
        init(self.folder, keys, {"root": RoleKeyPlan(2, 2), "targets": RoleKeyPlan(1, 1)}, self._ask, _now())
        self._publish(GOOD, _PASSING_CHECK)

    def publish_bad(self) -> None:
        """Publishes, with all signatures, a version whose health check fails."""
        self._publish(BAD, _FAILING_CHECK)

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
            info.size, info.mode = len(text), 0o755 if name == _CHECK else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()
