"""A folder with the published revocation lists, for another web server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from controller.adapters.files import write_file
from controller.ports.certificates import PublishedCrl
from controller.ports.errors import SettingsError

_MODE: Final = 0o644  # lists are public and signed


class CrlFolder:
    """Writes each list as `ISSUER.pem` and `ISSUER.crl`, the names of `/crl/` at the listener."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsError where there is no such folder."""
        if not folder.is_dir():
            raise SettingsError(f"authority.crl_folder: {folder} is not a folder")
        self._folder = folder
        self._written: dict[str, PublishedCrl] = {}

    def write(self, lists: Sequence[PublishedCrl]) -> None:
        """Replaces the files of lists that changed, each as a whole.

        Raises:
            OSError: one cannot be written; it is tried again with the next call.
        """
        for each in lists:
            if self._written.get(each.name) != each:
                write_file(self._folder / f"{each.name}.crl", each.der, _MODE, replace=True)
                write_file(self._folder / f"{each.name}.pem", each.pem, _MODE, replace=True)
                self._written[each.name] = each
