"""The downloaded files: `downloads/NAME/VERSION/FILE`, and `FILE.part` while it is incomplete."""

from collections.abc import Collection
from pathlib import Path

from schemas.updates import InstallParams


class DownloadFolder:
    """The downloads below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, order: InstallParams) -> Path:
        """Returns the file of an order."""
        return self._folder / order.name / order.version / order.target.rsplit("/", 1)[-1]

    def present_bytes(self, order: InstallParams) -> int:
        """Returns how many bytes of an order's file are on the disk."""
        path = self.path(order)
        files = (path, path.with_name(f"{path.name}.part"))
        return min(order.length, max((file.stat().st_size for file in files if file.is_file()), default=0))

    def prune(self, name: str, keep: Collection[str]) -> None:
        """Removes the files of all other versions of a name."""
        folder = self._folder / name
        for path in sorted(folder.glob("*/*")) if folder.is_dir() else ():
            if path.parent.name not in keep:
                path.unlink(missing_ok=True)
