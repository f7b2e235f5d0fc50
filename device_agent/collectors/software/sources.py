"""Where packages may come from: every configured source of apt, dnf, apk or opkg, and what keeps it honest."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.reading import GapRecorder
from device_agent.collectors.software import sources_apt
from device_agent.errors import FactsUnavailableError
from device_agent.host.files import files_in, text_of
from device_agent.host.packages import manager_of, scheme_of
from device_agent.host.system import System

_MAX_PROBLEMS: Final = 16
_USER: Final = re.compile(r"//[^/@\s]*@")
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
    """The `sources` section."""
    scheme = scheme_of(system)
    if scheme is None:
        raise FactsUnavailableError("no known package manager")
    gaps = GapRecorder()
    read, keys = _READERS[scheme]
    entries = read(system, gaps)
    for entry in entries:
        entry["url"] = _USER.sub("//", entry["url"])
        entry["transport"] = transport_of(entry["url"])
    if not entries and not gaps.listed():
        gaps.add("sources", "none is configured")
    return {
        "state": "ok",
        "manager": manager_of(scheme),
        "entries": sorted(entries, key=lambda entry: (entry["file"], entry["name"], entry["url"])),
        "keyrings": sorted(keys(system)),
        "problems": gaps.listed()[:_MAX_PROBLEMS],
    }


def transport_of(url: str) -> str:
    """The scheme of an address; `file` for a path."""
    match = _SCHEME.match(url)
    if match is None:
        return "file" if url.startswith("/") else "unknown"
    return match[1].lower()


def _matching(system: System, patterns: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Name and text of each file, sorted by pattern and name."""
    for pattern in patterns:
        folder, _, names = pattern.rpartition("/")
        for path in files_in(system.path(folder), names):
            yield "/" + str(path.relative_to(system.root)), text_of(path)


def parse_repos(text: str) -> dict[str, dict[str, str]]:
    """Sections of a `.repo` file, keys in lower case; further lines of a value follow after a space."""
    found: dict[str, dict[str, str]] = {}
    section, last = "", ""
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare[0] in "#;":
            continue
        if line[0] in " \t" and last:
            found[section][last] += " " + bare
        elif bare.startswith("[") and bare.endswith("]"):
            section, last = bare[1:-1].strip(), ""
            found.setdefault(section, {})
        elif "=" in bare and section:
            key, _, value = bare.partition("=")
            last = key.strip().lower()
            found[section][last] = value.strip()
    return found


def _dnf(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    main: dict[str, str] = {}
    with gaps.told("dnf.conf"):
        for _, text in _matching(system, _DNF_MAIN):
            main.update(parse_repos(text).get("main", {}))
    found = []
    with gaps.told("repos"):
        for file, text in _matching(system, _DNF_REPOS):
            for name, repo in parse_repos(text).items():
                if name and name != "main":
                    found.append(_repo(name, file, repo, main))
    return found


def _repo(name: str, file: str, repo: Mapping[str, str], main: Mapping[str, str]) -> dict[str, Any]:
    places = [value for key in ("baseurl", "metalink", "mirrorlist") for value in repo.get(key, "").split()]
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
        "url": places[0].rstrip(",") if places else "",
        "enabled": repo.get("enabled", "1").lower() not in _NO,
        "signed": check in _YES,
        "key": repo.get("gpgkey", "")[:512],
        "flags": flags,
    }


def _setting(key: str, repo: Mapping[str, str], main: Mapping[str, str]) -> str:
    return repo.get(key, main.get(key, "")).strip().lower()


def _apk(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    # Version 3 reads options for every call from there.
    options = text_of(system.path("/etc/apk/config")).split()
    flags = ["allow-untrusted"] if {"allow-untrusted", "--allow-untrusted"} & set(options) else []
    found = []
    with gaps.told("repositories"):
        listed = _matching(system, ("/etc/apk/repositories", "/etc/apk/repositories.d/*.list"))
        for file, text in listed:
            for number, line in enumerate(text.splitlines(), start=1):
                words = line.split()
                if not words or words[0].startswith("#"):
                    continue
                url = words[1] if words[0].startswith("@") and len(words) > 1 else words[0]
                found.append(_plain(f"{file.rpartition('/')[2]}:{number}", file, url, flags, is_signed=not flags))
    return found


def _opkg(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    found, is_checked = [], False
    with gaps.told("opkg.conf"):
        for file, text in _matching(system, ("/etc/opkg.conf", "/etc/opkg/*.conf")):
            for words in map(str.split, text.splitlines()):
                if words[:2] == ["option", "check_signature"]:
                    is_checked = len(words) < 3 or words[2] not in _NO
                elif len(words) > 2 and words[0] in ("src", "src/gz", "arch_src", "dist", "dist/gz"):
                    found.append((words[1], file, words[2]))
    flags = [] if is_checked else ["check_signature is not set"]
    return [_plain(name[:128], file, url, flags, is_signed=is_checked) for name, file, url in found]


def _plain(name: str, file: str, url: str, flags: list[str], *, is_signed: bool) -> dict[str, Any]:
    known = {"name": name, "file": file, "url": url, "enabled": True}
    return {**known, "signed": is_signed, "key": "", "flags": list(flags)}


def _names(*folders: str) -> Any:
    def listed(system: System) -> list[str]:
        found = [path for folder in folders for path in files_in(system.path(folder))]
        return ["/" + str(path.relative_to(system.root)) for path in found]

    return listed


_READERS: Final[Mapping[str, tuple[Any, Any]]] = {
    "deb": (sources_apt.entries, sources_apt.keyrings),
    "rpm": (_dnf, _names("/etc/pki/rpm-gpg")),
    "apk": (_apk, _names("/etc/apk/keys")),
    "opkg": (_opkg, _names("/etc/opkg/keys")),
}
