"""Package sources (section `sources`) of apt, dnf, apk or opkg: address, transport, signature checks, keys."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.software import sources_apt
from device_agent.host.files import list_files, read_text
from device_agent.host.packages import package_manager, require_package_scheme
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]{0,31}):")
_DNF_MAIN: Final = (
    "/usr/share/dnf5/libdnf.conf.d/*.conf",
    "/etc/yum.conf",
    "/etc/dnf/dnf.conf",
    "/etc/dnf/libdnf5.conf.d/*.conf",
)
_DNF_REPOS: Final = ("/usr/share/dnf5/repos.d/*.repo", "/etc/yum.repos.d/*.repo", "/etc/distro.repos.d/*.repo")
_YES: Final = frozenset({"1", "yes", "true", "on"})
_NO: Final = frozenset({"0", "no", "false", "off"})


def collect(system: System) -> Section:
    """Collects the `sources` section; credentials in URLs are removed."""
    scheme = require_package_scheme(system)
    gaps = GapRecorder()
    read, keys = _READERS[scheme]
    entries = read(system, gaps)
    for entry in entries:
        entry["url"] = _CREDENTIALS.sub("//", entry["url"])
        entry["transport"] = transport_of(entry["url"])
    if not entries:
        gaps.add("no package source was found")
    section = SectionBuilder(
        manager=package_manager(system, scheme),
        entries=sorted(entries, key=lambda entry: (entry["file"], entry["name"], entry["url"])),
        keyrings=sorted(keys(system)),
    )
    section.add_gaps(gaps.gaps, "entries")
    return section.build()


def transport_of(url: str) -> str:
    """Returns the scheme of a URL; `file` for a path."""
    match = _SCHEME.match(url)
    if match is None:
        return "file" if url.startswith("/") else "unknown"
    return match[1].lower()


def _matching(system: System, patterns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yields path and text of each file, in the order of the patterns and sorted by name."""
    for pattern in patterns:
        folder, _, names = pattern.rpartition("/")
        for path in list_files(system.path(folder), names):
            yield "/" + str(path.relative_to(system.root)), read_text(path)


def parse_repos(text: str) -> dict[str, dict[str, str]]:
    """Returns the sections of a `.repo` file, keys in lower case; continued values are joined with a space."""
    sections: dict[str, dict[str, str]] = {}
    section, last = "", ""
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare[0] in "#;":
            continue
        if line[0] in " \t" and last:
            sections[section][last] += " " + bare
        elif bare.startswith("[") and bare.endswith("]"):
            section, last = bare[1:-1].strip(), ""
            sections.setdefault(section, {})
        elif "=" in bare and section:
            key, _, value = bare.partition("=")
            last = key.strip().lower()
            sections[section][last] = value.strip()
    return sections


def _dnf(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    main: dict[str, str] = {}
    with gaps.capture("dnf.conf"):
        for _, text in _matching(system, _DNF_MAIN):
            main.update(parse_repos(text).get("main", {}))
    entries = []
    with gaps.capture("repos"):
        for file, text in _matching(system, _DNF_REPOS):
            for name, repo in parse_repos(text).items():
                if name and name != "main":
                    entries.append(_dnf_entry(name, file, repo, main))
    return entries


def _dnf_entry(name: str, file: str, repo: Mapping[str, str], main: Mapping[str, str]) -> dict[str, Any]:
    urls = [value for key in ("baseurl", "metalink", "mirrorlist") for value in repo.get(key, "").split()]
    check = _setting("pkg_gpgcheck", repo, main) or _setting("gpgcheck", repo, main)
    flags = []
    if not check:
        flags.append("gpgcheck is not set")
    elif check in _NO:
        flags.append("gpgcheck=0")
    if _setting("sslverify", repo, main) in _NO:
        flags.append("sslverify=0")
    return {
        "name": name[:128],
        "file": file,
        "url": urls[0].rstrip(",") if urls else "",
        "enabled": repo.get("enabled", "1").lower() not in _NO,
        "signed": check in _YES,
        "key": repo.get("gpgkey", "")[:512],
        "flags": flags,
    }


def _setting(key: str, repo: Mapping[str, str], main: Mapping[str, str]) -> str:
    return repo.get(key, main.get(key, "")).strip().lower()


def _apk(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    # apk 3 reads options for every call from this file.
    options = read_text(system.path("/etc/apk/config")).split()
    flags = ["allow-untrusted"] if {"allow-untrusted", "--allow-untrusted"} & set(options) else []
    entries = []
    with gaps.capture("repositories"):
        for file, text in _matching(system, ("/etc/apk/repositories", "/etc/apk/repositories.d/*.list")):
            for number, line in enumerate(text.splitlines(), start=1):
                fields = line.split()
                if not fields or fields[0].startswith("#"):
                    continue
                url = fields[1] if fields[0].startswith("@") and len(fields) > 1 else fields[0]
                name = f"{file.rpartition('/')[2]}:{number}"
                entries.append(_enabled_entry(name, file, url, flags, is_signed=not flags))
    return entries


def _opkg(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    feeds, is_checked = [], False
    with gaps.capture("opkg.conf"):
        for file, text in _matching(system, ("/etc/opkg.conf", "/etc/opkg/*.conf")):
            for fields in map(str.split, text.splitlines()):
                if fields[:2] == ["option", "check_signature"]:
                    is_checked = len(fields) < 3 or fields[2] not in _NO
                elif len(fields) > 2 and fields[0] in ("src", "src/gz", "arch_src", "dist", "dist/gz"):
                    feeds.append((fields[1], file, fields[2]))
    flags = [] if is_checked else ["check_signature is not set"]
    return [_enabled_entry(name[:128], file, url, flags, is_signed=is_checked) for name, file, url in feeds]


def _enabled_entry(name: str, file: str, url: str, flags: list[str], *, is_signed: bool) -> dict[str, Any]:
    source = {"name": name, "file": file, "url": url, "enabled": True}
    return {**source, "signed": is_signed, "key": "", "flags": list(flags)}


def _files_of(folder: str) -> Any:
    def find_files(system: System) -> list[str]:
        return ["/" + str(path.relative_to(system.root)) for path in list_files(system.path(folder))]

    return find_files


_READERS: Final[Mapping[str, tuple[Any, Any]]] = {
    "deb": (sources_apt.entries, sources_apt.keyrings),
    "rpm": (_dnf, _files_of("/etc/pki/rpm-gpg")),
    "apk": (_apk, _files_of("/etc/apk/keys")),
    "opkg": (_opkg, _files_of("/etc/opkg/keys")),
}
