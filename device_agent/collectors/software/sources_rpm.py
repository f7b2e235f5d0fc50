"""Repositories of dnf 4, dnf 5 and zypper, with the settings that each of them inherits or that overrides it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from device_agent.collectors.software.config_files import matching_files
from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import list_files, read_text
from device_agent.host.reading import GapRecorder, Reading
from device_agent.host.system import System

_SECONDS: Final = 30.0
_YES: Final = frozenset({"1", "yes", "true", "on"})
_NO: Final = frozenset({"0", "no", "false", "off"})
# In the order in which they are read: the last value of an option counts.
_DNF_MAIN: Final = (
    *("/usr/share/dnf5/libdnf.conf.d/*.conf", "/etc/dnf/libdnf5.conf.d/*.conf", "/etc/yum.conf", "/etc/dnf/dnf.conf"),
)
_DNF_REPOS: Final = ("/usr/share/dnf5/repos.d", "/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d")
_DNF_OVERRIDES: Final = ("/usr/share/dnf5/repos.override.d", "/etc/dnf/repos.override.d")
_DNF_VARIABLES: Final = ("/usr/share/dnf5/vars.d", "/etc/yum/vars", "/etc/dnf/vars")
_DNF5: Final = ("/usr/bin/dnf5", "/usr/share/dnf5")
_ZYPP_MAIN: Final = ("/usr/etc/zypp/zypp.conf", "/etc/zypp/zypp.conf", "/etc/zypp/zypp.conf.d/*.conf")
_ZYPP_REPOS: Final = ("/usr/etc/zypp/repos.d/*.repo", "/etc/zypp/repos.d/*.repo")
_ZYPP_UNVERIFIED: Final = re.compile(r"[?&]ssl_verify=(?!yes\b)", re.IGNORECASE)
_CLEAR_TEXT: Final = ("http:", "ftp:")
_DUMPS: Final = (("dnf5", "--dump-repo-config=*"), ("dnf", "-q", "-C", "config-manager", "--dump", "*"))


@dataclass(frozen=True, slots=True)
class _Repository:
    name: str
    file: str
    options: Mapping[str, str]


def dnf_entries(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    """Returns every repository of dnf as a source."""
    is_dnf5 = any(system.path(path).exists() for path in _DNF5)
    return [_dnf_entry(repository, is_dnf5, gaps) for repository in _dnf_repositories(system, gaps)]


def zypper_entries(system: System, gaps: GapRecorder) -> list[dict[str, Any]]:
    """Returns every repository of zypper as a source."""
    main = _main(system, _ZYPP_MAIN, gaps)
    repositories = _repositories(system, _ZYPP_REPOS, {}, gaps)
    return [_zypper_entry(repository, main, gaps) for repository in repositories]


def enabled_repositories(system: System, manager: str) -> Reading[tuple[str, ...]]:
    """Returns the ids of the enabled repositories."""
    gaps = GapRecorder()
    read = zypper_entries if manager == "zypper" else dnf_entries
    return gaps.complete(tuple(dict.fromkeys(entry["name"] for entry in read(system, gaps) if entry["enabled"])))


def parse_sections(text: str, gaps: GapRecorder, source: str) -> dict[str, dict[str, str]]:
    """Returns the sections of an INI file of dnf or zypper; continued values are joined with a space."""
    sections: dict[str, dict[str, str]] = {}
    section, last = "", ""
    for number, line in enumerate(text.split("\n"), start=1):
        bare = line.strip()
        if not bare or bare[0] in "#;":
            continue
        key, equals, value = bare.partition("=")
        if line[0] in " \t":
            if last:
                sections[section][last] = f"{sections[section][last]} {bare}".strip()
                continue
        elif (match := re.fullmatch(r"\[([^\[\]]+)\](?:\s*[#;].*)?", bare)) is not None:
            section, last = match[1].strip(), ""
            sections.setdefault(section, {})
            continue
        elif equals and section and key.strip():
            last = key.strip()
            sections[section][last] = value.strip()
            continue
        gaps.add("not a line of a configuration of repositories", f"{source}, line {number}")
    return sections


def _main(system: System, patterns: Sequence[str], gaps: GapRecorder) -> dict[str, str]:
    main: dict[str, str] = {}
    for file, text in matching_files(system, patterns, gaps):
        main.update(parse_sections(text, gaps, file).get("main", {}))
    return main


def _repositories(
    system: System, patterns: Sequence[str], main: Mapping[str, str], gaps: GapRecorder
) -> list[_Repository]:
    return [
        _Repository(name[:128], file, _overridden(main, options))
        for file, text in matching_files(system, patterns, gaps)
        for name, options in parse_sections(text, gaps, file).items()
        if name != "main"
    ]


def _dnf_repositories(system: System, gaps: GapRecorder) -> list[_Repository]:
    main = _main(system, _DNF_MAIN, gaps)
    folders = re.split(r"[\s,]+", main["reposdir"].strip()) if main.get("reposdir") else _DNF_REPOS
    inherited = {key: value for key, value in main.items() if key in {"gpgcheck", "pkg_gpgcheck", "sslverify"}}
    patterns = (*_DNF_MAIN[2:], *(f"{folder.rstrip('/')}/*.repo" for folder in folders))
    found = _repositories(system, patterns, inherited, gaps)
    overrides: dict[str, tuple[str, str]] = {}  # a file of /etc replaces the one of the same name
    for folder in _DNF_OVERRIDES:
        for file, text in matching_files(system, (f"{folder}/*.repo",), gaps):
            overrides[file.rpartition("/")[2]] = (file, text)
    for _, (file, text) in sorted(overrides.items()):
        for pattern, options in parse_sections(text, gaps, file).items():
            found = [
                _Repository(one.name, one.file, _overridden(one.options, options))
                if fnmatchcase(one.name, pattern)
                else one
                for one in found
            ]
    variables = {
        path.name: read_text(path, 1024).strip()
        for folder in _DNF_VARIABLES
        for path in list_files(system.path(folder))
    }
    found = [_Repository(one.name, one.file, _expand(one.options, variables)) for one in found]
    return _as_dnf_says(system, found)


def _overridden(options: Mapping[str, str], override: Mapping[str, str]) -> dict[str, str]:
    kept = dict(options)
    if {"gpgcheck", "pkg_gpgcheck"} & override.keys():  # two names of one option
        kept = {key: value for key, value in kept.items() if key not in {"gpgcheck", "pkg_gpgcheck"}}
    return {**kept, **override}


def _expand(options: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    def value_of(match: re.Match[str]) -> str:
        return variables.get(match[1] or match[2], match[0])

    return {key: re.sub(r"\$(?:\{(\w+)\}|(\w+))", value_of, value) for key, value in options.items()}


def _as_dnf_says(system: System, found: list[_Repository]) -> list[_Repository]:
    """Replaces options by those that dnf itself has for the running system, and adds repositories only dnf knows."""
    if not system.is_live:
        return found
    for command in _DUMPS:
        try:
            output = run(command, seconds=_SECONDS).stdout
        except ExecuteError:
            continue
        dumped = parse_dump(output)
        if dumped:
            known = {one.name for one in found}
            merged = [
                _Repository(one.name, one.file, {**one.options, **dumped[one.name]}) if one.name in dumped else one
                for one in found
            ]
            return [
                *merged,
                *(_Repository(name, command[0], dumped[name]) for name in sorted(dumped.keys() - known)),
            ]
    return found


def parse_dump(text: str) -> dict[str, dict[str, str]]:
    """Parses the settings of repositories as dnf 4 and dnf 5 print them; lines that are none are left out."""
    dumped: dict[str, dict[str, str]] = {}
    name = ""
    for line in text.splitlines():
        header = re.fullmatch(r"\[([^\[\]]+)\]", line.strip())
        key, equals, value = line.partition("=")
        if header is not None:
            name = header[1].strip()[:128]
            dumped[name] = {}
        elif line.startswith("="):
            name = ""
        elif name and equals and re.fullmatch(r"\w+ *", key):
            dumped[name][key.strip()] = value.strip()
    return {name: options for name, options in dumped.items() if name != "main" and options}


def _dnf_entry(repository: _Repository, is_dnf5: bool, gaps: GapRecorder) -> dict[str, Any]:
    options = repository.options
    keys = ("gpgcheck", "pkg_gpgcheck") if is_dnf5 else ("gpgcheck",)
    checks = [_bool(options[key], key, repository, gaps) for key in keys if options.get(key)]
    flags = []
    if not checks:
        flags.append("gpgcheck is not set")
    elif not all(checks):
        flags.append("gpgcheck=0")
    if not _bool(options.get("sslverify") or "1", "sslverify", repository, gaps):
        flags.append("sslverify=0")
    return _entry(repository, gaps, flags, is_signed=bool(checks) and all(checks))


def _zypper_entry(repository: _Repository, main: Mapping[str, str], gaps: GapRecorder) -> dict[str, Any]:
    settings: dict[str, bool | None] = {}
    for key in ("gpgcheck", "repo_gpgcheck", "pkg_gpgcheck"):
        text = repository.options.get(key) or main.get(key, "")
        settings[key] = _bool(text, key, repository, gaps) if text else None
    flags = [f"{key}=0" for key, value in settings.items() if value is False]
    is_general = settings["gpgcheck"] is not False
    checks_metadata = settings["repo_gpgcheck"] if settings["repo_gpgcheck"] is not None else is_general
    # Packages of checked metadata are checked by their checksums.
    checks_packages = settings["pkg_gpgcheck"] if settings["pkg_gpgcheck"] is not None else is_general
    if any(_ZYPP_UNVERIFIED.search(url) for url in _urls(repository)):
        flags.append("ssl_verify is limited")
    return _entry(repository, gaps, flags, is_signed=checks_metadata or checks_packages)


def _bool(text: str, key: str, repository: _Repository, gaps: GapRecorder) -> bool:
    word = text.strip().lower()
    if word not in _YES | _NO:
        gaps.add(f"{key} of {repository.name} is neither on nor off", repository.file)
    return word in _YES


def _urls(repository: _Repository) -> list[str]:
    keys = ("baseurl", "metalink", "mirrorlist")
    return [url for key in keys for url in re.split(r"[\s,]+", repository.options.get(key, "")) if url]


def _entry(repository: _Repository, gaps: GapRecorder, flags: list[str], *, is_signed: bool) -> dict[str, Any]:
    urls = _urls(repository)
    enabled = _bool(repository.options.get("enabled") or "1", "enabled", repository, gaps)
    if enabled and not urls:
        gaps.add(f"repository {repository.name} has no address", repository.file)
    if enabled and any("$" in url.partition(":")[0] for url in urls):
        gaps.add(f"the address of {repository.name} has a variable that is not known", repository.file)
    # The weakest of several addresses is the one that matters.
    url = next((url for url in urls if url.lower().startswith(_CLEAR_TEXT)), next(iter(urls), ""))
    return {
        "name": repository.name,
        "file": repository.file,
        "url": url,
        "enabled": enabled,
        "signed": is_signed,
        "key": repository.options.get("gpgkey", "")[:512],
        "flags": flags,
    }
