"""Package sources (section `sources`) of apt, dnf, zypper, apk or opkg: address, transport, signature checks, keys."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.software import sources_apt, sources_rpm
from device_agent.collectors.software.config_files import matching_files
from device_agent.host.files import list_files
from device_agent.host.packages import package_manager, require_package_scheme, why_updates_are_hidden
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]{0,31}):")
_APK_LISTS: Final = (*("/etc/apk/repositories", "/etc/apk/repositories.d/*.list", "/lib/apk/repositories.d/*.list"),)
_APK_OPTION: Final = re.compile(r"[a-z][a-z0-9-]*(=.*)?", re.ASCII)
_URL_OR_PATH: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|/")
_OPKG_FEEDS: Final = frozenset({"src", "src/gz", "arch_src", "dist", "dist/gz"})
_OPKG_WORD: Final = re.compile(r'"([^"]*)"?|[^\s"]+')
_OPKG_WEAK: Final = ("no_check_certificate", "ssl_dont_verify_peer")
_NO: Final = frozenset({"0", "no", "false", "off"})


def collect(system: System) -> Section:
    """Collects the `sources` section; credentials in URLs are removed."""
    scheme = require_package_scheme(system)
    manager = package_manager(system, scheme)
    reading = source_entries(system, scheme)
    entries = reading.value
    for entry in entries:
        entry["url"] = _CREDENTIALS.sub("//", entry["url"])
        entry.setdefault("transport", transport_of(entry["url"]))
    section = SectionBuilder(
        manager=manager,
        entries=sorted(entries, key=lambda entry: (entry["file"], entry["name"], entry["url"])),
        keyrings=sorted(_KEYS[_kind(system, scheme)](system)),
    )
    section.add_gaps(reading.gaps, "entries")
    if not entries:
        section.gap("entries", reason=why_updates_are_hidden(system, scheme) or "no package source was found")
    return section.build()


def source_entries(system: System, scheme: str) -> Reading[list[dict[str, Any]]]:
    """Returns every configured source of packages, without its transport unless that differs from its URL's."""
    gaps = GapRecorder()
    return gaps.complete(_READERS[_kind(system, scheme)](system, gaps))


def _kind(system: System, scheme: str) -> str:
    return "zypper" if package_manager(system, scheme) == "zypper" else scheme


def transport_of(url: str) -> str:
    """Returns the scheme of a URL; `file` for a path."""
    match = _SCHEME.match(url)
    if match is None:
        return "file" if url.startswith("/") else "unknown"
    return match[1].lower()


def _apk(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    flags = []
    # apk 3 reads options for every call from this file.
    for file, text in matching_files(system, ("/etc/apk/config",), gaps):
        words = [word.removeprefix("--") for line in text.splitlines() for word in line.partition("#")[0].split()]
        flags = ["allow-untrusted"] if "allow-untrusted" in words else []
        for word in words:
            if _APK_OPTION.fullmatch(word) is None:
                gaps.add(f"not an option of apk: {word[:64]}", file)
    entries = []
    for file, text in matching_files(system, _APK_LISTS, gaps):
        for number, line in enumerate(text.split("\n"), start=1):
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            if fields[0].startswith("@"):
                del fields[0]
            name = f"{file.rpartition('/')[2]}:{number}"
            if len(fields) != 1 or not _URL_OR_PATH.match(fields[0]):
                # apk 3 also has variables, and lines with a version and components.
                gaps.add("not a repository of one address", f"{file}, line {number}")
            url = next((field for field in fields if _URL_OR_PATH.match(field)), "")
            if url:
                entries.append(_enabled_entry(name, file, url, flags, is_signed=not flags))
    return entries


def _opkg(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    feeds, options = [], {"check_signature": "0"}
    for file, text in matching_files(system, ("/etc/opkg.conf", "/etc/opkg/opkg.conf", "/etc/opkg/*.conf"), gaps):
        for number, line in enumerate(text.split("\n"), start=1):
            fields = [match[1] if match[1] is not None else match[0] for match in _OPKG_WORD.finditer(line)]
            if not fields or fields[0].startswith("#"):
                continue
            if fields[0] == "option" and len(fields) > 1:
                options[fields[1]] = fields[2] if len(fields) > 2 else "1"
            elif fields[0] in _OPKG_FEEDS and len(fields) > 2:
                feeds.append((fields[1][:128], file, fields[2]))
            elif fields[0] not in {"dest", "arch", "lists_dir"}:
                gaps.add("not a line of opkg.conf", f"{file}, line {number}")
    is_checked = options["check_signature"].lower() not in _NO
    flags = [] if is_checked else ["check_signature is not set"]
    flags += [name for name in _OPKG_WEAK if options.get(name, "0").lower() not in _NO]
    return [_enabled_entry(*feed, flags, is_signed=is_checked) for feed in dict.fromkeys(feeds)]


def _enabled_entry(name: str, file: str, url: str, flags: list[str], *, is_signed: bool) -> dict[str, Any]:
    source = {"name": name, "file": file, "url": url, "enabled": True}
    return {**source, "signed": is_signed, "key": "", "flags": list(flags)}


def _files_of(folder: str) -> Callable[[System], list[str]]:
    def find_files(system: System) -> list[str]:
        return ["/" + str(path.relative_to(system.root)) for path in list_files(system.path(folder))]

    return find_files


_READERS: Final[Mapping[str, Callable[[System, GapRecorder], list[dict[str, Any]]]]] = {
    "deb": sources_apt.entries,
    "rpm": sources_rpm.dnf_entries,
    "zypper": sources_rpm.zypper_entries,
    "apk": _apk,
    "opkg": _opkg,
}
_KEYS: Final[Mapping[str, Callable[[System], list[str]]]] = {
    "deb": sources_apt.keyrings,
    "rpm": _files_of("/etc/pki/rpm-gpg"),
    "zypper": _files_of("/usr/lib/rpm/gnupg/keys"),
    "apk": _files_of("/etc/apk/keys"),
    "opkg": _files_of("/etc/opkg/keys"),
}
