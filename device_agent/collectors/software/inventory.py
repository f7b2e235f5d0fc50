"""Lists the installed packages with version and source package, streamed from the package manager's database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import run
from device_agent.host.system import System

MAX_PACKAGES: Final = 20_000
_MAX_LINE: Final = 8192  # characters; the rest of a longer line is read as another line
_SECONDS: Final = 30.0
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


def packages(system: System, scheme: str) -> list[InventoryPackage]:
    """Returns all installed packages, sorted.

    Raises:
        FactsUnavailableError: there are too many, or rpm's database is not that of the running system.
        OSError, ExecuteError: the database cannot be read.
    """
    if scheme == "deb":
        entries = read_dpkg(system.path("/var/lib/dpkg/status"))
    elif scheme == "apk":
        entries = read_apk(system.path("/lib/apk/db/installed"))
    elif scheme == "opkg":
        entries = read_opkg(system.path("/usr/lib/opkg/status"))
    else:
        if not system.is_live:
            raise FactsUnavailableError("rpm's database can be read on the running system only")
        entries = rpm_lines(run(["rpm", "-qa", "--queryformat", _RPM_FORMAT], seconds=_SECONDS).stdout)
    unique = set()
    for package in entries:
        unique.add(package)
        if len(unique) > MAX_PACKAGES:
            raise FactsUnavailableError(f"more than {MAX_PACKAGES} packages")
    return sorted(unique)


def stanzas(path: Path, keys: frozenset[str]) -> Iterator[Mapping[str, str]]:
    """Yields the fields `keys` of each stanza of a control file (`Key: value`) or of apk's database (`K:value`)."""
    fields: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in iter(lambda: file.readline(_MAX_LINE), ""):
            if line == "\n":
                if fields:
                    yield fields
                fields = {}
                continue
            key, colon, value = line.partition(":")
            if colon and key in keys:
                fields.setdefault(key, value.strip())
    if fields:
        yield fields


def _make_package(name: str, version: str, source: str, source_version: str) -> InventoryPackage | None:
    if not name or not version or any(c.isspace() for c in name + version):
        return None
    differs = source_version not in ("", version)
    has_source = bool(source) and (source != name or differs)
    return InventoryPackage(
        name, version, source if has_source else "", source_version if has_source and differs else ""
    )


def read_dpkg(path: Path) -> Iterator[InventoryPackage]:
    """Reads dpkg's `status` file."""
    for fields in stanzas(path, frozenset({"Package", "Status", "Version", "Source"})):
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        source, _, version = fields.get("Source", "").partition(" (")
        package = _make_package(fields.get("Package", ""), fields.get("Version", ""), source, version.rstrip(")"))
        if package is not None:
            yield package


def read_apk(path: Path) -> Iterator[InventoryPackage]:
    """Reads apk's `installed` file."""
    for fields in stanzas(path, frozenset({"P", "V", "o"})):
        package = _make_package(fields.get("P", ""), fields.get("V", ""), fields.get("o", ""), "")
        if package is not None:
            yield package


def read_opkg(path: Path) -> Iterator[InventoryPackage]:
    """Reads opkg's `status` file."""
    for fields in stanzas(path, frozenset({"Package", "Version", "Status"})):
        state = fields.get("Status", "installed").split()[-1:]
        package = _make_package(fields.get("Package", ""), fields.get("Version", ""), "", "")
        if package is not None and state == ["installed"]:
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
