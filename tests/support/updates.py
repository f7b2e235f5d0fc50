"""A repository of signed updates in a folder, with its keys, as whoever runs one would make it."""

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
    """The one passphrase of all test keys."""
    return PASSPHRASE


def utc_now() -> datetime:
    """Now, in whole seconds as TUF writes it."""
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
    """One repository below `base`; `served` is what a web server would hand out."""

    base: Path
    at: datetime = field(default_factory=utc_now)

    @property
    def folder(self) -> RepositoryFolder:
        """As the product opens it."""
        return RepositoryFolder(self.base / "updates")

    @property
    def keys(self) -> Path:
        """The offline keys."""
        return self.base / "keys"

    @property
    def served(self) -> Path:
        """What devices see."""
        return self.folder.served

    @property
    def first_root(self) -> bytes:
        """What is installed on devices."""
        return self.folder.read_root(1)

    def publish(
        self, name: str, version: str, content: bytes, *, file: str = "content.tar.gz", **parts: Any
    ) -> PublishedUpdate:
        """Publish one version, a file set unless `parts` say otherwise."""
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
    """A fresh repository."""
    made = Repository(base)
    init(made.folder, made.keys, {"root": root, "targets": targets}, ask, made.at)
    return made


def order(found: PublishedUpdate, *, seconds: float = 600.0, **parts: Any) -> InstallParams:
    """The order to install what was published, confirmed within so many seconds."""
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
