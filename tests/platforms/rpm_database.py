"""Writes rpm's database (SQLite) with the headers of a few packages, as far as queries need them."""

import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

_STRING, _I18N, _INT32, _BINARY, _STRINGS = 6, 9, 4, 7, 8  # types of values in a header
_NAME, _VERSION, _RELEASE, _EPOCH, _SOURCE, _ARCH, _OS = 1000, 1001, 1002, 1003, 1044, 1022, 1021
_TABLES: Final = (
    *("Name", "Basenames", "Group", "Requirename", "Providename", "Conflictname", "Obsoletename", "Triggername"),
    *("Dirnames", "Installtid", "Sigmd5", "Sha1header", "Filetriggername", "Transfiletriggername", "Recommendname"),
    *("Suggestname", "Supplementname", "Enhancename"),
)


def write_rpm_database(folder: Path, packages: Sequence[str]) -> None:
    """Writes `rpmdb.sqlite` with packages such as `openssl-libs 1:3.2.2-6.el9 openssl`: name, version, source."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "rpmdb.sqlite")) as database:
        database.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        for table in _TABLES:
            kind = "BLOB" if table in {"Installtid", "Sigmd5"} else "TEXT"
            database.execute(
                f"CREATE TABLE '{table}' (key '{kind}' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL)"
            )
        for number, package in enumerate(packages, start=1):
            name, version, *source = package.split()
            database.execute("INSERT INTO Packages VALUES (?, ?)", (number, _header(name, version, *source)))
            database.execute("INSERT INTO Name VALUES (?, ?, 0)", (name, number))
        database.commit()


def _header(name: str, evr: str, source: str = "") -> bytes:
    epoch, _, version_release = evr.rpartition(":")
    version, _, release = version_release.rpartition("-")
    entries: list[tuple[int, int, bytes]] = [
        (_NAME, _STRING, name.encode() + b"\0"),
        (_VERSION, _STRING, version.encode() + b"\0"),
        (_RELEASE, _STRING, release.encode() + b"\0"),
        (_OS, _STRING, b"linux\0"),
        (_ARCH, _STRING, b"x86_64\0"),
        (_SOURCE, _STRING, f"{source or name}-{version_release}.src.rpm\0".encode()),
    ]
    if epoch:
        entries.insert(3, (_EPOCH, _INT32, struct.pack(">I", int(epoch))))
    index, data = b"", b""
    for tag, kind, value in sorted(entries):
        if kind == _INT32:
            data += bytes(-len(data) % 4)
        index += struct.pack(">IIII", tag, kind, len(data), 1)
        data += value
    return struct.pack(">II", len(entries), len(data)) + index + data
