"""What the agent knows of each name that was updated: written as a whole before and after each step."""

import re
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from device_agent.errors import JournalError
from device_agent.host.state_files import read_model, write_model
from schemas.updates import InstallerKind, InstallParams, UpdatePhase, UpdateRefusalCode, UpdateTarget

_MAX_RECORD_BYTES: Final = 256 * 1024
MAX_NAMES: Final = 48
_NAME: Final = re.compile(r"^[a-z0-9][a-z0-9+._-]{0,63}$")


class InstalledRelease(BaseModel):
    """A version that is, or was, in place; `tree` is the digest of a file set as it was unpacked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: str
    by: InstallerKind
    sha256: str = ""
    file: str = ""
    target: UpdateTarget | None = None
    """None: it was there before any update, so that only its version is known."""
    tree: str = ""


class UpdateTransaction(BaseModel):
    """An update under way. `changing`: something may have been changed; `going_back`: the old version comes again."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    command_id: str
    order: InstallParams | None = None
    """None: going back was ordered."""
    phase: UpdatePhase = UpdatePhase.OFFERED
    target: UpdateTarget | None = None
    tree: str = ""
    changing: bool = False
    going_back: bool = False
    code: UpdateRefusalCode | None = None
    reason: str = ""
    run_id: str = ""
    """Of the run in which a restart was asked for."""
    tries: int = 0

    @property
    def wanted(self) -> str:
        """The version that it is about."""
        if self.order is not None:
            return self.order.version
        return "" if self.target is None else self.target.version

    @property
    def release(self) -> InstalledRelease | None:
        """What it puts in place, once that is known."""
        if self.target is None:
            return None
        order, target = self.order, self.target
        return InstalledRelease(
            version=target.version,
            by=target.installer,
            sha256="" if order is None else order.sha256,
            file="" if order is None else order.target.rsplit("/", 1)[-1],
            target=target,
            tree=self.tree,
        )


class UpdateRecord(BaseModel):
    """One name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
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
    at: datetime | None = None


class UpdateRecordStore:
    """The folder of records, one file for each name.

    Raises:
        JournalError: from every method, when a file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Every name with a record, in order."""
        if not self._folder.is_dir():
            return []
        return sorted(path.stem for path in self._folder.glob("*.json") if _NAME.fullmatch(path.stem))[:MAX_NAMES]

    def load(self, name: str) -> UpdateRecord:
        """The record of a name; an empty one where there is none."""
        record = read_model(self._folder / f"{name}.json", UpdateRecord, _MAX_RECORD_BYTES)
        return record or UpdateRecord(name=name)

    def save(self, record: UpdateRecord) -> None:
        """Write it; on the disk when this returns."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            raise JournalError(f"{self._folder}: {e.strerror}") from e
        write_model(self._folder / f"{record.name}.json", record)
