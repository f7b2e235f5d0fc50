"""The file beside the store with what an older store must not undo: revoked certificates and numbers of lists.

One JSON object a line, appended and synced; a line that a power loss cut short is dropped when the file is opened.
When the file is twice as large as what it says, it is written anew: the highest number of each list, and each revoked
certificate until long after its end, or only until its end where there is no more room.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from controller.adapters.files import SECRET_MODE, write_file
from controller.domain.identity.certificates import Certificate
from controller.ports.certificates import RevocationMarks
from controller.ports.errors import StoreError

SUFFIX: Final = ".revocations"
MAX_FILE: Final = 256 * 1024 * 1024  # bytes; about 150,000 revoked certificates
KEEP: Final = 400 * 86_400.0  # seconds after its end that a certificate stays in the file, as in the registry
SLACK: Final = 64 * 1024  # bytes that the file may have beyond twice what it says
_CERTIFICATE: Final = TypeAdapter(Certificate)


def marks_path(store: Path) -> Path:
    """Returns the file that belongs to the store at `store`."""
    return store.with_name(f"{store.name}{SUFFIX}")


class RevocationMarkFile(RevocationMarks):
    """`controller.ports.certificates.RevocationMarks` in a file; used by the one controller of the store."""

    def __init__(self, path: Path, now: float, clock: Callable[[], float] | None = None) -> None:
        """Reads the file, or starts an empty one; `now` and `clock` in Unix seconds.

        Raises:
            StoreError: it cannot be read or written, or is damaged.
        """
        self._path = path
        self._clock = clock or (lambda: now)
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._revoked: dict[str, Certificate] = {}
        for line in _lines(path):
            self._take(line)
        self._rewrite(self._revoked, self._numbers)

    @property
    def numbers(self) -> Mapping[str, int]:
        return self._numbers

    @property
    def revoked(self) -> Mapping[str, Certificate]:
        return self._revoked

    def add(self, revoked: Sequence[Certificate], numbers: Mapping[str, int]) -> None:
        with self._lock:
            kept_from = self._clock() - KEEP
            fresh = {one.serial: one for one in revoked if one.serial not in self._revoked and one.end > kept_from}
            higher = {name: number for name, number in numbers.items() if number > self._numbers.get(name, 0)}
            if not fresh and not higher:
                return
            content = _content(fresh, higher)
            if self._size + len(content) > min(2 * self._written + SLACK, MAX_FILE):
                self._rewrite({**self._revoked, **fresh}, {**self._numbers, **higher})
                return
            try:
                _append(self._path, content)
            except OSError as e:
                raise StoreError(f"{self._path}: cannot be written: {e.strerror}") from e
            self._size += len(content)
            self._revoked.update(fresh)
            self._numbers.update(higher)

    def _rewrite(self, revoked: Mapping[str, Certificate], numbers: Mapping[str, int]) -> None:
        """Replaces the file by one that says the same; what ended long ago is left out."""
        now = self._clock()
        for kept_from in (now - KEEP, now):  # a certificate that has ended admits nobody: it goes where room is needed
            kept = {serial: one for serial, one in revoked.items() if one.end > kept_from}
            content = _content(kept, numbers)
            if len(content) <= MAX_FILE:
                break
        else:
            raise StoreError(
                f"{self._path}: {len(kept)} revoked certificates that are valid need over {MAX_FILE} bytes"
            )
        try:
            write_file(self._path, content, SECRET_MODE, replace=True)
        except OSError as e:
            raise StoreError(f"{self._path}: cannot be written: {e.strerror}") from e
        self._revoked, self._numbers = kept, dict(numbers)
        self._size = self._written = len(content)

    def _take(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            if "number" in found:
                name, number = str(found["list"]), int(found["number"])
                self._numbers[name] = max(number, self._numbers.get(name, 0))
            else:
                one = _CERTIFICATE.validate_python(found)
                self._revoked[one.serial] = one
        except (ValueError, KeyError, TypeError, ValidationError) as e:
            raise StoreError(
                f"{self._path} is damaged: put a copy of it back; without it the revocations since the last backup of "
                "the store are unknown"
            ) from e


def _lines(path: Path) -> list[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as e:
        raise StoreError(f"{path}: cannot be read: {e.strerror}") from e
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise StoreError(f"{path} is larger than {MAX_FILE} bytes")
    return content.split(b"\n")[:-1]  # what follows the last line end was cut short


def _append(path: Path, content: bytes) -> None:
    """Appends whole lines; after a failed write the part that was written is removed."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, SECRET_MODE)
    try:
        size = os.fstat(descriptor).st_size
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(content)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _content(revoked: Mapping[str, Certificate], numbers: Mapping[str, int]) -> bytes:
    return b"".join([*map(_line, revoked.values()), *(_number_line(*item) for item in numbers.items())])


def _line(one: Certificate) -> bytes:
    fields: dict[str, Any] = asdict(one)
    return json.dumps(fields).encode() + b"\n"


def _number_line(name: str, number: int) -> bytes:
    return json.dumps({"list": name, "number": number}).encode() + b"\n"
