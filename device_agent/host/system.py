"""The machine that collectors look at and actions change, as a value: the running one, or a prepared folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class System:
    """The machine to look at: everything is read below `root`, programs run only when it is the machine itself."""

    root: Path = Path("/")
    is_root_user: bool = False

    @property
    def is_live(self) -> bool:
        """Whether `root` is the running machine and not a prepared folder or a mounted image."""
        return self.root == Path("/")

    def path(self, absolute: str) -> Path:
        """The place of an absolute path below `root`."""
        return self.root / absolute.lstrip("/")
