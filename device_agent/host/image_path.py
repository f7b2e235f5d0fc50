"""Paths of a mounted image, container root or backup: resolved below its root as chroot would, and only for reading.

A `System` whose root is such a path reads nothing else: every path derived from the root is of the same class.
"""

import errno
import fnmatch
import io
import itertools
import os
import stat
from collections.abc import Generator
from pathlib import Path, PosixPath
from typing import IO, Any, ClassVar, Final, NoReturn, Self

from schemas.safe_files import UnsafePathError, open_for_reading

# The kernel and the running programs make these, so that an image has none: what is there belongs to another machine.
NOT_IN_AN_IMAGE: Final = frozenset({"dev", "proc", "run", "sys"})
MAX_ENTRIES: Final = 65_536  # of one folder
_MAX_BYTES: Final = 64 * 1024 * 1024  # of a file that is read whole
_MAX_LINKS: Final = 40  # as Linux
_MAX_DEPTH: Final = 128  # folders
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READING_MODES: Final = frozenset({"r", "rt", "rb"})


class ImagePath(PosixPath):
    """A path below the root of an image; `image_root` makes the first.

    Links, absolute ones and `..` too, stay below the root, even while others swap parts of the path. Devices, pipes and
    sockets are never opened. What would change something, and every use of the path outside of this class, such as
    `os.open(path)`, raises UnsafePathError.
    """

    __slots__ = ()
    image_top: ClassVar[str]

    def look_at(self, *, follow: bool = True) -> int:
        """Returns a descriptor without access (`O_PATH`) of what the path leads to.

        Raises:
            OSError: there is no such file, or too many links or folders.
        """
        return self._walk(follow=follow)[0]

    def _walk(self, *, follow: bool) -> tuple[int, list[str]]:
        top = os.open(self.image_top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened, names = [top], list[str]()
        pending = list(reversed(self.parts[len(PosixPath(self.image_top).parts) :]))
        links = 0
        try:
            while pending:
                name = pending.pop()
                if not stat.S_ISDIR(os.fstat(opened[-1]).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                if name == ".." and names:
                    os.close(opened.pop())
                    names.pop()
                if name in {"", ".", ".."}:
                    continue
                if not names and name in NOT_IN_AN_IMAGE:
                    raise FileNotFoundError(errno.ENOENT, "not part of an image")
                found = os.open(name, _LOOK, dir_fd=opened[-1])
                if not stat.S_ISLNK(os.fstat(found).st_mode) or not (pending or follow):
                    opened.append(found)
                    names.append(name)
                else:
                    target = _target_of(found)
                    links += 1
                    while target.startswith("/") and names:
                        os.close(opened.pop())
                        names.pop()
                    pending += reversed(target.split("/"))
                if links > _MAX_LINKS or len(names) > _MAX_DEPTH:
                    raise OSError(errno.ELOOP, "too many links or folders")  # noqa: TRY301 - gets its path below
            return os.dup(opened[-1]), names
        except OSError as e:
            raise type(e)(e.errno, e.strerror, str(self)) from e
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def __fspath__(self) -> str:
        raise UnsafePathError(errno.EPERM, "a path of an image is not used outside of it", str(self))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        seen = self.look_at(follow=follow_symlinks)
        try:
            return os.fstat(seen)
        finally:
            os.close(seen)

    def lstat(self) -> os.stat_result:
        return self.stat(follow_symlinks=False)

    def _mode(self, *, follow: bool = True) -> int:
        try:
            return self.stat(follow_symlinks=follow).st_mode
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return 0
        except OSError as e:
            if e.errno == errno.ELOOP:
                return 0
            raise

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self._mode(follow=follow_symlinks) != 0

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISDIR(self._mode(follow=follow_symlinks))

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISREG(self._mode(follow=follow_symlinks))

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._mode(follow=False))

    def readlink(self) -> Self:
        seen = self.look_at(follow=False)
        try:
            return type(self)(os.readlink("", dir_fd=seen))
        finally:
            os.close(seen)

    def resolve(self, strict: bool = False) -> Self:
        path, absent = self, list[str]()
        for _ in range(_MAX_LINKS + _MAX_DEPTH):
            try:
                seen, names = path._walk(follow=True)
            except OSError as e:
                if strict:
                    raise
                if e.errno != errno.ENOENT:
                    break
            else:
                os.close(seen)
                return type(self)(self.image_top, *names, *reversed(absent))
            if path.is_symlink():  # to what is absent
                target = str(path.readlink())
                path = (type(self)(self.image_top) if target.startswith("/") else path.parent) / target.lstrip("/")
            else:
                path, absent = path.parent, [*absent, path.name]
        return self

    def iterdir(self) -> Generator[Self, None, None]:
        yield from [self / name for name in self._names()]

    def _names(self) -> list[str]:
        seen = self.look_at()
        try:
            folder = os.open(".", _LIST, dir_fd=seen)
        except OSError as e:
            raise type(e)(e.errno, e.strerror, str(self)) from e
        finally:
            os.close(seen)
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in itertools.islice(entries, MAX_ENTRIES + 1)]
        finally:
            os.close(folder)
        if len(names) > MAX_ENTRIES:
            raise OSError(errno.EFBIG, f"more than {MAX_ENTRIES} entries", str(self))
        return sorted(names)

    def glob(self, pattern: str) -> Generator[Self, None, None]:
        if "**" in pattern:
            raise UnsafePathError(errno.EPERM, "** is not used in an image", str(self))
        found = [self]
        for part in filter(None, pattern.split("/")):
            if part == ".." or not any(sign in part for sign in "*?["):
                found = [path / part for path in found]
            else:
                found = [path / name for path in found if path.is_dir() for name in _matching(path, part)]
        yield from [path for path in found if path.exists(follow_symlinks=False)]

    def open(  # type: ignore[override] # one signature for text and bytes
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        if mode not in _READING_MODES:
            self._refuse()
        binary = open_for_reading(self, buffering)
        if mode == "rb":
            return binary
        return io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)

    def read_bytes(self) -> bytes:
        with open_for_reading(self) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"larger than {_MAX_BYTES} bytes", str(self))
        return content

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        del newline
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def _refuse(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise UnsafePathError(errno.EPERM, "an image is only read, by its paths", str(self))


# What changes files, asks the examining machine, or passes the text of the path to the kernel. Newer versions of Python
# have some of them only.
REFUSED: Final = (
    *("chmod", "copy", "copy_into", "expanduser", "group", "hardlink_to", "info", "is_block_device", "is_char_device"),
    *("is_fifo", "is_junction", "is_mount", "is_socket", "lchmod", "link_to", "mkdir", "move", "move_into", "owner"),
    *("rename", "replace", "rglob", "rmdir", "samefile", "symlink_to", "touch", "unlink", "walk", "write_bytes"),
    "write_text",
)
for _name in REFUSED:
    setattr(ImagePath, _name, ImagePath._refuse)  # noqa: SLF001 - of the class above


def image_root(folder: Path) -> ImagePath:
    """Returns the root of an image.

    Raises:
        NotADirectoryError: it is no folder.
        ValueError: it is the root of the running machine.
        OSError: there is no such folder, or it may not be opened.
    """
    top = folder.absolute()
    seen = os.stat(top)  # noqa: PTH116 - beside the next call
    if not stat.S_ISDIR(seen.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if os.path.samestat(seen, os.stat("/")):  # noqa: PTH116 - of the running machine
        raise ValueError(f"{folder} is the root of this machine")
    of_this_image = type("ImagePath", (ImagePath,), {"__slots__": (), "image_top": str(top)})
    root: ImagePath = of_this_image(top)
    return root


def _matching(folder: ImagePath, pattern: str) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern)]
    except PermissionError:
        return []  # as pathlib


def _target_of(link: int) -> str:
    try:
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)
