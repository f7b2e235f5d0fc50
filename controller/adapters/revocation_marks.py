"""The file beside the store with what an older store must not undo: revoked certificates and numbers of lists.

One JSON object a line, appended and synced; a line that a power loss cut short is dropped when the file is opened.
"""

import json
import os
from collections.abc import Mapping, Sequence
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
_CERTIFICATE: Final = TypeAdapter(Certificate)


def marks_path(store: Path) -> Path:
    """Returns the file that belongs to the store at `store`."""
    return store.with_name(f"{store.name}{SUFFIX}")


class RevocationMarkFile(RevocationMarks):
    """`controller.ports.certificates.RevocationMarks` in a file; used by the one controller of the store."""

    def __init__(self, path: Path, now: float) -> None:
        """Reads the file, or starts an empty one; drops certificates that ended long before `now` (Unix seconds).

        Raises:
            StoreError: it cannot be read or written, or is damaged.
        """
        self._path = path
        self._numbers: dict[str, int] = {}
        self._revoked: dict[str, Certificate] = {}
        for line in _lines(path):
            self._take(line)
        self._revoked = {serial: one for serial, one in self._revoked.items() if one.end > now - KEEP}
        content = b"".join(
            [*(_number_line(*item) for item in self._numbers.items()), *map(_line, self._revoked.values())]
        )
        try:
            write_file(path, content, SECRET_MODE, replace=True)
        except OSError as e:
            raise StoreError(f"{path}: cannot be written: {e.strerror}") from e

    @property
    def numbers(self) -> Mapping[str, int]:
        return self._numbers

    @property
    def revoked(self) -> Mapping[str, Certificate]:
        return self._revoked

    def add(self, revoked: Sequence[Certificate], numbers: Mapping[str, int]) -> None:
        fresh = [one for one in revoked if one.serial not in self._revoked]
        higher = {name: number for name, number in numbers.items() if number > self._numbers.get(name, 0)}
        if not fresh and not higher:
            return
        try:
            _append(self._path, b"".join([*map(_line, fresh), *(_number_line(*item) for item in higher.items())]))
        except OSError as e:
            raise StoreError(f"{self._path}: cannot be written: {e.strerror}") from e
        self._revoked.update((one.serial, one) for one in fresh)
        self._numbers.update(higher)

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


def _line(one: Certificate) -> bytes:
    fields: dict[str, Any] = asdict(one)
    return json.dumps(fields).encode() + b"\n"


def _number_line(name: str, number: int) -> bytes:
    return json.dumps({"list": name, "number": number}).encode() + b"\n"
