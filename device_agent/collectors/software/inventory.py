"""Lists the installed packages with version and source package, streamed from the package manager's database."""

import itertools
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import run
from device_agent.host.files import list_files
from device_agent.host.packages import package_database, query_rpm
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

MAX_PACKAGES: Final = 20_000
_MAX_LINE: Final = 8192  # characters; the rest of a longer line is left out
_SECONDS: Final = 30.0
_DPKG_FORMAT: Final = "${db:Status-Status}\t${Package}\t${Version}\t${source:Package}\t${source:Version}\n"
_DPKG_STATES: Final = frozenset(
    {
        *("not-installed", "config-files", "half-installed", "unpacked", "half-configured"),
        *("triggers-awaited", "triggers-pending", "installed"),
    }
)
_FIELD: Final = re.compile(r"^[A-Za-z][A-Za-z0-9-]*:", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9._+][A-Za-z0-9._+~@:-]*")
_VERSION: Final = re.compile(r"[A-Za-z0-9.+:~^_-]+")
_RPM_FORMAT: Final = "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{SOURCERPM}\n"


@dataclass(frozen=True, slots=True, order=True)
class InventoryPackage:
    """An installed package; source name and version are empty where they equal its own."""

    name: str
    version: str
    source: str = ""
    source_version: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.version, self.source, self.source_version)))


def packages(system: System, scheme: str) -> Reading[list[InventoryPackage]]:
    """Returns all installed packages, sorted.

    Raises:
        FactsUnavailableError: there are too many, or rpm's database is not that of the running system.
        OSError, ExecuteError: the database cannot be read.
    """
    gaps = GapRecorder()
    if scheme == "rpm":
        entries = rpm_lines(query_rpm(system, "-qa", "--queryformat", _RPM_FORMAT))
    elif scheme == "deb" and system.is_live and shutil.which("dpkg-query"):
        entries = dpkg_lines(run(["dpkg-query", "-W", "-f", _DPKG_FORMAT], seconds=_SECONDS).stdout)
    else:
        database = package_database(system, scheme)
        if database is None:
            raise FactsUnavailableError("there is no package database")
        read = {"deb": read_dpkg, "apk": read_apk, "opkg": read_opkg}[scheme]
        files = list_files(database) if database.is_dir() else [database]
        # Distroless images have the checksums of each package beside it.
        files = [file for file in files if not file.name.endswith(".md5sums")]
        entries = itertools.chain.from_iterable(read(file, gaps) for file in files)
    unique = set()
    for package in entries:
        unique.add(package)
        if len(unique) > MAX_PACKAGES:
            raise FactsUnavailableError(f"more than {MAX_PACKAGES} packages")
    return gaps.complete(sorted(unique))


def stanzas(path: Path, keys: frozenset[str], gaps: GapRecorder) -> Iterator[Mapping[str, str]]:
    """Yields the fields `keys` of each stanza of a control file (`Key: value`) or of apk's database (`K:value`).

    What is neither a field nor the continuation of one is a gap, and so is a second value of a field.
    """
    fields: dict[str, str] = {}
    is_begun, is_rest = False, False
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), ""), start=1):
            was_rest, is_rest = is_rest, not line.endswith("\n")
            if was_rest:
                continue
            if not line.strip():
                if fields:
                    yield fields
                fields, is_begun = {}, False
                continue
            key, colon, value = line.partition(":")
            if key in keys and colon and key in fields:
                gaps.add(f"a second {key} in one entry", f"{path.name}, line {number}")
            elif key in keys and colon:
                fields[key] = value.strip()
            elif not (_FIELD.match(line) or (is_begun and line[0].isspace())):
                gaps.add("not a field of a package", f"{path.name}, line {number}")
            is_begun = True
    if fields:
        yield fields


def _make_package(name: str, version: str, source: str, source_version: str) -> InventoryPackage | None:
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        return None
    differs = source_version not in ("", version)
    has_source = bool(source) and (source != name or differs)
    return InventoryPackage(
        name, version, source if has_source else "", source_version if has_source and differs else ""
    )


def read_dpkg(path: Path, gaps: GapRecorder) -> Iterator[InventoryPackage]:
    """Reads dpkg's `status` file, or the file of one package of a distroless image, where `Status` may be absent."""
    is_alone = path.parent.name == "status.d"
    for fields in stanzas(path, frozenset({"Package", "Status", "Version", "Source"}), gaps):
        states = fields.get("Status", "install ok installed" if is_alone else "").split()
        if len(states) != 3 or states[2] not in _DPKG_STATES:
            gaps.add("an entry without a known status", f"{path.name}: {fields.get('Package', '?')}")
        elif states[2] == "installed":
            source, _, version = fields.get("Source", "").partition(" (")
            yield from _checked(fields, ("Package", "Version"), source, version.rstrip(")"), path, gaps)


def read_apk(path: Path, gaps: GapRecorder) -> Iterator[InventoryPackage]:
    """Reads apk's `installed` file."""
    for fields in stanzas(path, frozenset({"P", "V", "o"}), gaps):
        yield from _checked(fields, ("P", "V"), fields.get("o", ""), "", path, gaps)


def read_opkg(path: Path, gaps: GapRecorder) -> Iterator[InventoryPackage]:
    """Reads opkg's `status` file."""
    for fields in stanzas(path, frozenset({"Package", "Version", "Status"}), gaps):
        states = fields.get("Status", "").split()
        if len(states) != 3:
            gaps.add("an entry without a known status", f"{path.name}: {fields.get('Package', '?')}")
        elif states[2] == "installed":
            yield from _checked(fields, ("Package", "Version"), "", "", path, gaps)


def _checked(
    fields: Mapping[str, str],
    keys: tuple[str, str],
    source: str,
    source_version: str,
    path: Path,
    gaps: GapRecorder,
) -> Iterator[InventoryPackage]:
    name, version = (fields.get(key, "") for key in keys)
    package = _make_package(name, version, source, source_version)
    if package is None:
        gaps.add("an entry without a valid name and version", f"{path.name}: {name or '?'}")
    else:
        yield package


def dpkg_lines(text: str) -> Iterator[InventoryPackage]:
    """Parses the lines of `_DPKG_FORMAT`."""
    for fields in (line.split("\t") for line in text.splitlines()):
        if len(fields) == 5 and fields[0] == "installed":
            package = _make_package(*fields[1:])
            if package is not None:
                yield package


def rpm_lines(text: str) -> Iterator[InventoryPackage]:
    """Parses the lines of `_RPM_FORMAT`."""
    for fields in (line.split("\t") for line in text.splitlines()):
        if len(fields) != 3 or fields[0] == "gpg-pubkey":
            continue
        name, version, built_from = fields
        source = built_from.removesuffix(".src.rpm").rsplit("-", 2)
        is_known = len(source) == 3
        # The file name of a source package has no epoch, so only version and release are compared.
        source_version = f"{source[1]}-{source[2]}" if is_known else ""
        is_same = version.partition(":")[2] == source_version
        package = _make_package(name, version, source[0] if is_known else "", "" if is_same else source_version)
        if package is not None:
            yield package
