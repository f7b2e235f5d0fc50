"""Removes what updates leave on the disk: staged files, downloads, and versions that no rollback needs."""

import logging
from collections.abc import Mapping
from typing import Final

from device_agent.errors import JournalError
from device_agent.updates.download_folder import DownloadFolder
from device_agent.updates.installers.base import TargetInstaller
from device_agent.updates.ledger import UpdateLedger
from device_agent.updates.records import UpdateRecord
from schemas.updates import InstallerKind, InstallParams, UpdateRefusalCode

# After these the same update may be ordered again, and its download continues.
_KEEPS_DOWNLOAD: Final = frozenset(
    {UpdateRefusalCode.UNREACHABLE, UpdateRefusalCode.DEADLINE, UpdateRefusalCode.INTERRUPTED}
)
_log = logging.getLogger(__name__)


class UpdateLeftovers:
    """The files below the folder of updates that no record needs."""

    def __init__(
        self, ledger: UpdateLedger, downloads: DownloadFolder, installers: Mapping[InstallerKind, TargetInstaller]
    ) -> None:
        self._ledger = ledger
        self._downloads = downloads
        self._installers = installers

    def remove(self, order: InstallParams | None = None) -> None:
        """Removes what ended and interrupted updates of all names left.

        Where a record cannot be read, everything of its name stays. With an `order` everything but its own download
        goes; without one also those stay that the next order continues.
        """
        for name in self._ledger.names():
            try:
                record = self._ledger.load(name)
            except JournalError as e:
                _log.error("what updates of %s left stays: %s", name, e)
                continue
            if order is not None and order.name == name:
                self._prune(record, order.version)
            elif record.transaction is None:
                is_continued = order is None and record.code in _KEEPS_DOWNLOAD
                self._prune(record, record.attempted if is_continued else "")

    def prune(self, record: UpdateRecord) -> None:
        """Removes what the releases of a record do not need."""
        self._prune(record, "")

    def _prune(self, record: UpdateRecord, downloading: str) -> None:
        without = {kind for kind, one in self._installers.items() if not one.needs_download_for_rollback}
        keep = {release.version for release in record.releases if release.installer not in without}
        self._downloads.prune(record.name, keep | {downloading})
        for installer in self._installers.values():
            installer.prune(record.name, record.releases)
