"""Lists the pending updates of dnf and zypper, and the security updates where the repositories have errata."""

import html
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from device_agent.collectors.software.pending_model import PendingUpdate, PendingUpdates
from device_agent.collectors.software.sources_rpm import enabled_repositories
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import run
from device_agent.host.files import list_files, read_text
from device_agent.host.system import System

_SECONDS: Final = 50.0
_UPDATES_PENDING: Final = 100  # exit status of `dnf check-update`
# Packages that the configuration excludes wait all the same; dnf 4 has the word `all`, dnf 5 a star.
_DNF: Final = ("dnf", "-q", "-C", "--setopt=disable_excludes=all,*")
_ZYPPER: Final = ("zypper", "--non-interactive", "--no-refresh", "--xmlout")
_NEVRA: Final = re.compile(r"^(?P<name>[^\s:]{1,200})-(?P<evr>(?:\d+:)?[^-\s:]+-[^-\s]+)\.(?P<arch>[a-z0-9_]+)$")
_DATE: Final = re.compile(r"^\d{4}-\d\d-\d\d$")
_UPDATED: Final = re.compile(r"^[ \t]*(?:Updated|Issued)[ \t]*:[ \t]*(\d{4}-\d\d-\d\d)", re.MULTILINE)
_XML_UPDATE: Final = re.compile(r"<update\b([^<>]*)>")
_XML_ATTRIBUTE: Final = re.compile(r'([a-z-]{1,32})="([^"<>]*)"')
_XML_ISSUED: Final = re.compile(r'<issue-date time_t="(\d{1,12})"')
_CACHES: Final = ("/var/cache/dnf", "/var/cache/libdnf5")
_ZYPP_CACHE: Final = "/var/cache/zypp/raw"
_NO_ERRATA: Final = "no enabled repository has errata, which tell security updates"


def repository_metadata(system: System, manager: str) -> dict[str, Path | None]:
    """Returns the cached repomd.xml of each enabled repository by its id; None where it was never fetched.

    Raises:
        FactsUnavailableError: the repositories are not known completely, or none is enabled.
    """
    reading = enabled_repositories(system, manager)
    if reading.gaps:
        raise FactsUnavailableError(f"the repositories are not known: {reading.gaps[0].reason}")
    if not reading.value:
        raise FactsUnavailableError("no repository is enabled")
    if manager == "zypper":
        paths = {name: system.path(f"{_ZYPP_CACHE}/{name}/repodata/repomd.xml") for name in reading.value}
        return {name: path if path.is_file() else None for name, path in paths.items()}
    folders = [path for cache in _CACHES for path in _subfolders(system.path(cache))]
    found: dict[str, Path | None] = {}
    for name in reading.value:
        owned = [path for path in folders if re.fullmatch(re.escape(name) + "-[0-9a-f]+", path.name)]
        files = [file for path in owned for file in list_files(path / "repodata", "repomd.xml")]
        found[name] = max(files, key=lambda file: file.stat().st_mtime, default=None)
    return found


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if path.is_dir()] if folder.is_dir() else []


def _with_errata(system: System, manager: str) -> set[str]:
    metadata = repository_metadata(system, manager)
    return {name for name, path in metadata.items() if path is not None and 'type="updateinfo' in read_text(path)}


def list_dnf(system: System, installed: Mapping[str, str]) -> PendingUpdates:
    """Asks dnf 4 or 5 (ExecuteError); a repository without errata tells nothing about security."""
    updates = run([*_DNF, "check-update"], seconds=_SECONDS, ok_statuses=frozenset({0, _UPDATES_PENDING})).stdout
    every = dnf_updates(updates, installed)
    telling = _with_errata(system, "dnf")
    if not telling:
        return PendingUpdates(every, None, reason=_NO_ERRATA)
    advisories = run([*_DNF, "updateinfo", "list", "--security", "--updates"], seconds=_SECONDS).stdout
    security, oldest = dnf_security(advisories, installed)
    silent = sorted(_update_repositories(updates) - telling)
    if silent and not security:
        return PendingUpdates(every, None, reason=f"updates wait in repository {silent[0]}, which has no errata")
    if security and oldest is None:
        details = run([*_DNF, "updateinfo", "info", "--security", "--updates"], seconds=_SECONDS).stdout
        oldest = _oldest_advisory(_UPDATED.findall(details))
    return PendingUpdates(every, security, oldest)


def dnf_security(text: str, installed: Mapping[str, str]) -> tuple[tuple[PendingUpdate, ...], datetime | None]:
    """Parses `updateinfo list --security --updates`; only dnf 5 prints dates.

    Raises:
        FactsUnavailableError: a line is neither an advisory nor a heading.
    """
    updates: dict[str, PendingUpdate] = {}
    dates = []
    for fields in map(str.split, text.splitlines()):
        match = next((match for field in fields[1:] if (match := _NEVRA.match(field))), None)
        if match is not None:
            name = match["name"]
            updates[name] = PendingUpdate(name, installed.get(name, ""), match["evr"])
            dates += [field for field in fields if _DATE.match(field)]
        elif fields and fields[:1] != ["Name"] and fields[:2] != ["Last", "metadata"]:
            raise FactsUnavailableError("an advisory that dnf lists is not understood")
    return tuple(sorted(updates.values())), _oldest_advisory(dates)


def _oldest_advisory(dates: Iterable[str]) -> datetime | None:
    parsed = []
    for text in dates:
        try:
            parsed.append(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC))
        except ValueError:
            continue
    return min(parsed, default=None)


def dnf_updates(text: str, installed: Mapping[str, str]) -> tuple[PendingUpdate, ...]:
    """Parses `check-update` (name.arch, version, repository) up to the list of obsoleted packages."""
    rows = _update_rows(text)
    return tuple(sorted({PendingUpdate(name, installed.get(name, ""), version) for name, version, _ in rows}))


def _update_repositories(text: str) -> set[str]:
    return {repository for _, _, repository in _update_rows(text)}


def _update_rows(text: str) -> list[tuple[str, str, str]]:
    rows = []
    for line in text.splitlines():
        if line.startswith("Obsoleting"):
            break
        fields = line.split()
        name, dot, _ = fields[0].rpartition(".") if fields else ("", "", "")
        if len(fields) == 3 and dot and "-" in fields[1]:
            rows.append((name, fields[1], fields[2]))
    return rows


def list_zypper(system: System) -> PendingUpdates:
    """Asks zypper (ExecuteError); its security updates are patches, which may contain several packages."""
    every = zypper_updates(run([*_ZYPPER, "list-updates"], seconds=_SECONDS).stdout)
    if not _with_errata(system, "zypper"):
        return PendingUpdates(every, None, reason=_NO_ERRATA)
    patches = run([*_ZYPPER, "list-patches", "--category", "security"], seconds=_SECONDS).stdout
    issued = [datetime.fromtimestamp(int(seconds), UTC) for seconds in _XML_ISSUED.findall(patches)]
    return PendingUpdates(every, zypper_updates(patches), min(issued, default=None))


def zypper_updates(text: str) -> tuple[PendingUpdate, ...]:
    """Parses the `<update>` elements that zypper prints, of packages or of patches that are needed."""
    updates = set()
    for match in _XML_UPDATE.finditer(text):
        fields = {key: html.unescape(value) for key, value in _XML_ATTRIBUTE.findall(match[1])}
        if fields.get("name") and fields.get("edition") and fields.get("status", "needed") == "needed":
            updates.add(PendingUpdate(fields["name"], fields.get("edition-old", ""), fields["edition"]))
    return tuple(sorted(updates))
