"""Package databases of an image, where the package manager's own program would follow links out of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_lines
from schemas.safe_files import open_for_reading

# Of SQLite, of the format of SUSE, and of Berkeley DB.
_RPM_FILES: Final = ("rpmdb.sqlite", "rpmdb.sqlite-wal", "Packages.db", "Packages")
_MAX_RPM_BYTES: Final = 512 * 1024 * 1024  # of a database that is copied
_CHUNK: Final = 1024 * 1024
MAX_DATABASE_BYTES: Final = 64 * 1024 * 1024  # of a database in text, of dpkg, apk or opkg
MAX_DATABASE_LINE: Final = 256 * 1024  # bytes: one line may name all that a package depends on
_FIELDS: Final = frozenset({"Package", "Status", "Version"})


@contextmanager
def rpm_database_copy(database: Path) -> Iterator[str]:
    """Gives a temporary folder with rpm's database, which rpm itself opens, locks and may write beside.

    Raises:
        FactsUnavailableError: it is too large, or has no known file.
        OSError: it cannot be read.
    """
    left = _MAX_RPM_BYTES
    with tempfile.TemporaryDirectory(prefix="cordon-rpm-") as folder:
        for name in _RPM_FILES:
            source = database / name
            if left > 0 and source.is_file():
                with open_for_reading(source) as opened, (Path(folder) / name).open("wb") as copy:
                    while left > 0 and (chunk := opened.read(min(left, _CHUNK))):
                        left -= copy.write(chunk)
        if left <= 0:
            raise FactsUnavailableError(f"rpm's database is larger than {_MAX_RPM_BYTES} bytes")
        if not any(Path(folder).iterdir()):
            raise FactsUnavailableError("rpm's database has no known file")
        yield folder


def dpkg_version(status: Path, name: str) -> str:
    """Returns the version of an installed package in dpkg's `status` file; empty without one.

    Raises:
        FactsUnavailableError: it is too large.
        OSError: it cannot be read.
    """
    fields: dict[str, str] = {}
    for line in chain(read_lines(status, MAX_DATABASE_BYTES, MAX_DATABASE_LINE), "\n"):
        key, colon, value = line.partition(": ")
        if colon and key in _FIELDS:
            fields.setdefault(key, value.strip())
        elif line == "\n":
            if fields.get("Package") == name and fields.get("Status", "").endswith(" installed"):
                return fields.get("Version", "")
            fields = {}
    return ""
