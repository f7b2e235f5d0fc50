"""The machine as a value: the running one, or a prepared folder; its boot id and its processes."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from device_agent.errors import FactsUnavailableError
from device_agent.host.image_path import ImagePath, image_root

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class System:
    """The machine that collectors read and actions change.

    Files are read below `root`; programs run only when `root` is the running machine. A prepared folder, as in tests,
    stands for a running machine; an image does not, and is read as `ImagePath` says.
    """

    root: Path = Path("/")
    is_root_user: bool = False

    @property
    def is_live(self) -> bool:
        """Whether `root` is the running machine and not a prepared folder or a mounted image."""
        return self.root == Path("/")

    @classmethod
    def image(cls, folder: Path) -> Self:
        """Returns the image, container root or backup below a folder (errors as `image_root`)."""
        return cls(image_root(folder), is_root_user=os.geteuid() == 0)

    @property
    def is_image(self) -> bool:
        """Whether `root` is an image, in which nothing runs and no time passes."""
        return isinstance(self.root, ImagePath)

    def require_living(self, facts: str) -> None:
        """Refuses facts that only a running machine has.

        Raises:
            FactsUnavailableError: this is an image.
        """
        if self.is_image:
            raise FactsUnavailableError(f"needs a living system: {facts}")

    def path(self, absolute: str) -> Path:
        """Returns an absolute path below `root`."""
        return self.root / absolute.lstrip("/")


def boot_id() -> str:
    """Returns the kernel's id of the present boot, empty where it has none."""
    try:
        return _BOOT_ID.read_text().strip()[:64]
    except OSError:
        return ""


def process_names(system: System) -> dict[int, str]:
    """Returns the names of the running processes by process id, truncated to 15 characters by the kernel.

    Raises:
        OSError: the processes cannot be listed.
    """
    names = {}
    for process in system.path("/proc").iterdir():
        if process.name.isdigit():
            try:
                names[int(process.name)] = (process / "comm").read_text(errors="replace").strip()
            except OSError:
                continue  # the process has ended
    return names
