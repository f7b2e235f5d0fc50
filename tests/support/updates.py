"""A repository of signed updates in a folder, with its offline keys."""

import io
import tarfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from controller.adapters.tuf_repository.ceremony import RoleKeyPlan, init
from controller.adapters.tuf_repository.folder import RepositoryFolder
from controller.adapters.tuf_repository.publishing import publish, unpacked_bytes
from controller.ports.updates import PublishedUpdate
from schemas.updates import InstallParams, UpdateTarget

PASSPHRASE: Final = "mizzen-Quark7-otter_Blue-84"
FILE_SET: Final[dict[str, Any]] = {"kind": "file", "installer": "fileset", "classes": ["*"]}


def ask(_path: Path, _is_new: bool) -> str:
    """The passphrase of all test keys."""
    return PASSPHRASE


def utc_now() -> datetime:
    """Now, in whole seconds, as TUF writes it."""
    return datetime.now(UTC).replace(microsecond=0)


def archive(files: dict[str, str], *, executable: tuple[str, ...] = ()) -> bytes:
    """A tar.gz of text files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            info.mode = 0o755 if name in executable else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@dataclass(slots=True)
class Repository:
    """One repository below `base`; `served` is the folder for a web server."""

    base: Path
    at: datetime = field(default_factory=utc_now)

    @property
    def folder(self) -> RepositoryFolder:
        return RepositoryFolder(self.base / "updates")

    @property
    def keys(self) -> Path:
        return self.base / "keys"

    @property
    def served(self) -> Path:
        return self.folder.served

    @property
    def first_root(self) -> bytes:
        """The root that devices are installed with."""
        return self.folder.read_root(1)

    def publish(
        self, name: str, version: str, content: bytes, *, file: str = "content.tar.gz", **parts: Any
    ) -> PublishedUpdate:
        """Publishes a version, a file set unless `parts` say otherwise."""
        path = self.base / "incoming" / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        known = {**FILE_SET, **parts}
        if "installed_bytes" not in parts:
            known["installed_bytes"] = unpacked_bytes(path)
        target = UpdateTarget.model_validate({**known, "name": name, "version": version})
        return publish(self.folder, path, target, self.keys, ask, self.at)


_TWO_KEYS: Final = RoleKeyPlan(2, 2)
_ONE_KEY: Final = RoleKeyPlan(1, 1)


def repository(base: Path, *, root: RoleKeyPlan = _TWO_KEYS, targets: RoleKeyPlan = _ONE_KEY) -> Repository:
    """Makes a repository."""
    made = Repository(base)
    init(made.folder, made.keys, {"root": root, "targets": targets}, ask, made.at)
    return made


def order(found: PublishedUpdate, *, seconds: float = 600.0, **parts: Any) -> InstallParams:
    """The parameters that install a published update, which has to be confirmed within so many seconds."""
    return InstallParams.model_validate(
        {
            "target": found.path,
            "version": found.target.version,
            "sha256": found.sha256,
            "length": found.length,
            "deadline": datetime.now(UTC) + timedelta(seconds=seconds),
            **parts,
        }
    )
