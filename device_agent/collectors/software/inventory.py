"""Every installed package with its version and its source package, read as a stream from the manager's own database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import run
from device_agent.host.system import System

MAX_PACKAGES: Final = 20_000
_MAX_LINE: Final = 8192  # characters; the rest of a longer one is taken for another line
_SECONDS: Final = 30.0
_RPM_FORMAT: Final = "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{SOURCERPM}\n"


@dataclass(frozen=True, slots=True, order=True)
class InventoryPackage:
    """An installed package; source name and version are empty where they are the same."""

    name: str
    version: str
    source: str = ""
    source_version: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.version, self.source, self.source_version)))


def packages(system: System, scheme: str) -> list[InventoryPackage]:
    """All of them, sorted.

    Raises:
        FactsUnavailableError: the database cannot be read here.
        OSError, ExecuteError: it cannot be read.
    """
    if scheme == "deb":
        found = _deb(system.path("/var/lib/dpkg/status"))
    elif scheme == "apk":
        found = _apk(system.path("/lib/apk/db/installed"))
    elif scheme == "opkg":
        found = _opkg(system.path("/usr/lib/opkg/status"))
    else:
        if not system.is_live:
            raise FactsUnavailableError("rpm's database can be read on the running system only")
        found = rpm_lines(run(["rpm", "-qa", "--queryformat", _RPM_FORMAT], seconds=_SECONDS).out)
    unique = set()
    for package in found:
        unique.add(package)
        if len(unique) > MAX_PACKAGES:
            raise FactsUnavailableError(f"more than {MAX_PACKAGES} packages")
    return sorted(unique)


def stanzas(path: Path, wanted: frozenset[str]) -> Iterator[Mapping[str, str]]:
    """The wanted fields of each stanza of a control file (`Key: value`) or of apk's database (`K:value`)."""
    fields: dict[str, str] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in iter(lambda: file.readline(_MAX_LINE), ""):
            if line == "\n":
                if fields:
                    yield fields
                fields = {}
                continue
            key, colon, value = line.partition(":")
            if colon and key in wanted:
                fields.setdefault(key, value.strip())
    if fields:
        yield fields


def _named(name: str, version: str, source: str, source_version: str) -> InventoryPackage | None:
    if not name or not version or any(c.isspace() for c in name + version):
        return None
    is_other = source_version not in ("", version)
    is_named = bool(source) and (source != name or is_other)
    return InventoryPackage(name, version, source if is_named else "", source_version if is_named and is_other else "")


def _deb(path: Path) -> Iterator[InventoryPackage]:
    for fields in stanzas(path, frozenset({"Package", "Status", "Version", "Source"})):
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        source, _, version = fields.get("Source", "").partition(" (")
        package = _named(fields.get("Package", ""), fields.get("Version", ""), source, version.rstrip(")"))
        if package is not None:
            yield package


def _apk(path: Path) -> Iterator[InventoryPackage]:
    for fields in stanzas(path, frozenset({"P", "V", "o"})):
        package = _named(fields.get("P", ""), fields.get("V", ""), fields.get("o", ""), "")
        if package is not None:
            yield package


def _opkg(path: Path) -> Iterator[InventoryPackage]:
    for fields in stanzas(path, frozenset({"Package", "Version", "Status"})):
        state = fields.get("Status", "installed").split()[-1:]
        package = _named(fields.get("Package", ""), fields.get("Version", ""), "", "")
        if package is not None and state == ["installed"]:
            yield package


def rpm_lines(text: str) -> Iterator[InventoryPackage]:
    """Read what rpm was asked to print."""
    for fields in (line.split("\t") for line in text.splitlines()):
        if len(fields) != 3 or fields[0] == "gpg-pubkey":
            continue
        name, version, built_from = fields
        source = built_from.removesuffix(".src.rpm").rsplit("-", 2)
        is_known = len(source) == 3
        # A source package has no epoch of its own in its file's name, so only another version or release differs.
        source_version = f"{source[1]}-{source[2]}" if is_known else ""
        is_same = version.partition(":")[2] == source_version
        package = _named(name, version, source[0] if is_known else "", "" if is_same else source_version)
        if package is not None:
            yield package
