"""The records of updates: one file for each name, written before and after each step of an update."""

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from device_agent.errors import JournalError
from device_agent.host.files import read_model, write_model
from schemas.updates import InstallerKind, InstallParams, UpdatePhase, UpdateRefusalCode, UpdateTarget

_MAX_RECORD_BYTES: Final = 256 * 1024
MAX_NAMES: Final = 48
_NAME: Final = re.compile(r"^[a-z0-9][a-z0-9+._-]{0,63}$")
_CONFIG: Final = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, serialize_by_alias=True)


class InstalledRelease(BaseModel):
    """A version that is, or was, installed; `tree_digest` is the digest of an unpacked file set."""

    model_config = _CONFIG
    version: str
    installer: Annotated[InstallerKind, Field(alias="by")]
    sha256: str = ""
    file: str = ""
    target: UpdateTarget | None = None
    """None: the version was installed before any update, so only its number is known."""
    tree_digest: Annotated[str, Field(alias="tree")] = ""


class UpdateTransaction(BaseModel):
    """A running update; from `system_modified` on a failure means a rollback, which `rolling_back` says has begun."""

    model_config = _CONFIG
    command_id: str
    order: InstallParams | None = None
    """None: a rollback was ordered."""
    phase: UpdatePhase = UpdatePhase.OFFERED
    target: UpdateTarget | None = None
    tree_digest: Annotated[str, Field(alias="tree")] = ""
    system_modified: Annotated[bool, Field(alias="changing")] = False
    rolling_back: Annotated[bool, Field(alias="going_back")] = False
    code: UpdateRefusalCode | None = None
    reason: str = ""
    restart_id: Annotated[str, Field(alias="run_id")] = ""
    """The `TargetInstaller.restart_id` when the restart was requested."""
    attempts: Annotated[int, Field(alias="tries")] = 0

    @property
    def version(self) -> str:
        """The version to install, or to leave in an ordered rollback."""
        if self.order is not None:
            return self.order.version
        return "" if self.target is None else self.target.version

    @property
    def release(self) -> InstalledRelease | None:
        """The release that the update installs, None before its target is verified."""
        if self.target is None:
            return None
        order, target = self.order, self.target
        return InstalledRelease(
            version=target.version,
            installer=target.installer,
            sha256="" if order is None else order.sha256,
            file="" if order is None else order.target.rsplit("/", 1)[-1],
            target=target,
            tree_digest=self.tree_digest,
        )


class UpdateRecord(BaseModel):
    """The releases of one name, the running update, and the outcome of the last one."""

    model_config = _CONFIG
    v: Literal[1] = 1
    name: str
    current: InstalledRelease | None = None
    previous: InstalledRelease | None = None
    transaction: UpdateTransaction | None = None
    outcome: UpdatePhase = UpdatePhase.UNKNOWN
    attempted: str = ""
    code: UpdateRefusalCode | None = None
    reason: str = ""
    command_id: str = ""
    updated_at: Annotated[datetime | None, Field(alias="at")] = None

    @property
    def current_version(self) -> str:
        """The current version, or empty."""
        return "" if self.current is None else self.current.version

    @property
    def previous_version(self) -> str:
        """The version that a rollback returns to, or empty."""
        return "" if self.previous is None else self.previous.version

    @property
    def releases(self) -> tuple[InstalledRelease, ...]:
        """The current and the previous release, where they exist."""
        return tuple(release for release in (self.current, self.previous) if release is not None)


class UpdateRecordStore:
    """The folder of records.

    Raises:
        JournalError: from every method, when a file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Returns every name with a record, sorted."""
        if not self._folder.is_dir():
            return []
        return sorted(path.stem for path in self._folder.glob("*.json") if _NAME.fullmatch(path.stem))[:MAX_NAMES]

    def load(self, name: str) -> UpdateRecord:
        """Returns the record of a name; an empty one where there is none."""
        record = read_model(self._path(name), UpdateRecord, _MAX_RECORD_BYTES) or UpdateRecord(name=name)
        if record.name != name:
            raise JournalError(f"{self._path(name)} is the record of {record.name}: look at it, then move it away")
        return record

    def save(self, record: UpdateRecord) -> None:
        """Writes a record; it is on the disk when this returns."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise JournalError(f"{self._folder}: {e.strerror}") from e
        write_model(self._path(record.name), record)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
