"""Files that name further files: one bound for the readers of all formats."""

import contextlib
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import MAX_FILE_BYTES, MAX_FILES, names_in, read_beginning
from device_agent.host.system import System

MAX_INCLUDED: Final = 512  # files, each time that one is read
MAX_INCLUDED_BYTES: Final = 4 * MAX_FILE_BYTES  # of all of them
MAX_NAMES: Final = 20_000  # of folders, each time that a pattern is compared with one
_WILD: Final = re.compile(r"[*?\[]")
_TOO_MUCH: Final = "too many files or bytes are included"


class IncludeBudget:
    """What is left for one reader: without it, files that include each other by patterns are read without end.

    Args:
        system: whose files they are.
        depth: how many files deep the format's own program goes.
        most_bytes: of all files.
    """

    def __init__(self, system: System, depth: int, most_bytes: int = MAX_INCLUDED_BYTES) -> None:
        self._system, self._depth = system, depth
        self._files, self._bytes, self._names = MAX_INCLUDED, most_bytes, MAX_NAMES

    def beginning(self, path: Path, depth: int = 0) -> tuple[str, bool]:
        """Returns what `read_beginning` does.

        Raises:
            FactsUnavailableError: nothing is left, or the file is included too deeply.
            OSError: it exists and cannot be read.
        """
        self._files -= 1
        if depth > self._depth or self._files < 0 or self._bytes < 0:
            raise FactsUnavailableError(_TOO_MUCH)
        text, is_whole = read_beginning(path)
        self._bytes -= len(text)
        if self._bytes < 0:
            raise FactsUnavailableError(_TOO_MUCH)
        return text, is_whole

    def text(self, path: Path, depth: int = 0) -> str:
        """Returns a whole file (FactsUnavailableError: also where it is too large; OSError: as `beginning`)."""
        text, is_whole = self.beginning(path, depth)
        if not is_whole:
            raise FactsUnavailableError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        return text

    def files_in(self, folder: Path, pattern: str = "*") -> list[Path]:
        """Returns the files of a folder whose names match, sorted; none where there is no such folder.

        Raises:
            FactsUnavailableError: more than `MAX_FILES` match, or nothing is left.
            OSError: the folder cannot be listed.
        """
        found = sorted(name for name in self._list(folder) if fnmatch.fnmatchcase(name, pattern))
        if len(found) > MAX_FILES:
            raise FactsUnavailableError(f"{folder}: more than {MAX_FILES} files")
        return [path for name in found if (path := folder / name).is_file()]

    def matching(self, pattern: str) -> list[str]:
        """Returns the files that an absolute pattern names, sorted, as glob(3): `**` is `*`, and no `*` is a first dot.

        Raises:
            FactsUnavailableError: more than `MAX_FILES` match, or nothing is left.
            OSError: a folder cannot be listed.
        """
        found = [""]
        for part in filter(None, pattern.split("/")):
            names = ([part] if not _WILD.search(part) else self._matching(path, part) for path in found)
            found = [f"{path}/{name}" for path, matches in zip(found, names, strict=True) for name in matches]
        self._names -= len(found)
        if self._names < 0:
            raise FactsUnavailableError(_TOO_MUCH)
        files = sorted(path for path in found if self._system.path(path).is_file())
        if len(files) > MAX_FILES:
            raise FactsUnavailableError(f"{pattern}: more than {MAX_FILES} files")
        return files

    def _matching(self, folder: str, part: str) -> list[str]:
        names = self._list(self._system.path(folder or "/"))
        matching = (name for name in names if fnmatch.fnmatchcase(name, part))
        return [name for name in matching if part.startswith(".") or not name.startswith(".")]

    def _list(self, folder: Path) -> Iterator[str]:
        self._names -= 1
        if self._names < 0 or self._files < 0 or self._bytes < 0:
            raise FactsUnavailableError(_TOO_MUCH)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in names_in(folder):
                self._names -= 1
                if self._names < 0:
                    raise FactsUnavailableError(_TOO_MUCH)
                yield name
