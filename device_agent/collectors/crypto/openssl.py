"""The OpenSSL in use (section `openssl`): version, package, configuration, outdated libraries in memory, TLS errors."""

import os
import re
from typing import Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.crypto import openssl_config
from device_agent.collectors.crypto.tls_errors import WINDOW_HOURS, tls_errors
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.packages import InstalledPackage, installed
from device_agent.host.system import System
from schemas.safe_files import open_for_reading

# The command-line package first, then the libraries, as Debian, Fedora, Alpine, OpenWrt and openSUSE name them.
_PACKAGES: Final = (
    *("openssl", "libssl3t64", "libssl3", "libssl1.1", "openssl-libs", "libopenssl3", "libopenssl1.1"),
    *("libopenssl1_1", "libcrypto3", "openssl-3", "openssl-1_1"),
)
_VERSION: Final = re.compile(r"^OpenSSL (\d+\.\d+\.\d+[a-z]*)")
_LIBRARY: Final = re.compile(r"\(Library: OpenSSL (\d+\.\d+\.\d+[a-z]*)")
# What `OpenSSL_version` of a library returns.
_IN_LIBRARY: Final = re.compile(rb"OpenSSL (\d{1,3}\.\d{1,3}\.\d{1,3}[a-z]{0,2}) {1,4}\d{1,2} [A-Z][a-z]{2} \d{4}")
_LIBRARY_FOLDERS: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_MAX_LIBRARY_BYTES: Final = 16 * 1024 * 1024
_OPENSSLDIR: Final = re.compile(r'^OPENSSLDIR: "(/[^"\n]*)"', re.MULTILINE)

MAX_PROCESSES: Final = 4096
MAX_MAP_BYTES: Final = 4 * 1024 * 1024  # of the memory map of one process
_DELETED_LIBRARY: Final = re.compile(rb"/lib(?:ssl|crypto)[^/\n]*\.so[^/\n]* \(deleted\)$", re.MULTILINE)
_MAX_PROCESS_NAME: Final = 64


def collect(system: System) -> Section:
    """Collects the `openssl` section."""
    package = next(filter(None, (installed(system, name) for name in _PACKAGES)), None)
    output = _version_output() if system.is_live else ""
    version = _first(_VERSION, output)
    if not version and package is not None:
        version = _upstream(package)
    if not version and system.is_live:
        version = _linked_version()
    if not version and system.is_image:
        version = _library_version(system)
    if not version:
        raise FactsUnavailableError("neither an openssl program nor a package of it was found")
    # Before OpenSSL 3 the output names the library only where it differs from the program.
    section = SectionBuilder(version=version, library=_first(_LIBRARY, output) or _first(_VERSION, output))
    if package is not None:
        section.set(package={"name": package.name, "version": package.version, "scheme": package.scheme})
    _add_optional(section, system, _first(_OPENSSLDIR, output), _first(_LIBRARY, output) or version)
    return section.build()


def _add_optional(section: SectionBuilder, system: System, openssl_dir: str, version: str) -> None:
    with section.capture("stale_processes"):
        processes, is_hidden = stale_processes(system)
        section.set(stale_processes=processes, stale_hidden=is_hidden)
        if is_hidden:
            reason = "some processes cannot be read" if system.is_root_user else "needs root for those of other users"
            section.gap("stale_processes", reason=reason)
    with section.capture("config"):
        file = openssl_config.config_path(system, openssl_dir)
        if file is None:
            raise FactsUnavailableError("there is no openssl.cnf")
        reading = openssl_config.read_policy(system, file, version)
        policy = reading.value
        section.set(config=policy)
        section.add_gaps(reading.gaps, "min_protocol")
        if policy["security_level"] is None:
            section.gap("security_level", reason="openssl.cnf sets none; the library's default applies")
    with section.capture("tls_errors"):
        section.set(tls_errors=tls_errors(system), tls_error_hours=WINDOW_HOURS)


def _version_output() -> str:
    try:
        return run(["openssl", "version", "-v", "-d"]).stdout
    except ExecuteError:
        return ""


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _linked_version() -> str:
    import ssl  # last resort: the library that this Python is linked with

    return _first(_VERSION, ssl.OPENSSL_VERSION)


def _library_version(system: System) -> str:
    """Returns the version in libcrypto itself, of the newest where there are several; empty without one."""
    versions = []
    for path in (path for folder in _LIBRARY_FOLDERS for path in system.path(folder).glob("libcrypto.so*")):
        if path.is_file():
            with open_for_reading(path) as file:
                versions += [match[1].decode() for match in _IN_LIBRARY.finditer(file.read(_MAX_LIBRARY_BYTES))]
    return max(versions, key=lambda version: [int(part) for part in re.findall(r"\d+", version)], default="")


def _upstream(package: InstalledPackage) -> str:
    match = re.match(r"^(?:\d+:)?(\d+\.\d+\.\d+[a-z]*)", package.version)
    return match[1] if match else ""


def stale_processes(system: System) -> tuple[list[str], bool]:
    """Returns the programs that still map a replaced libssl or libcrypto, and whether some processes were unreadable.

    Raises:
        FactsUnavailableError: the processes cannot be listed.
    """
    system.require_living("the memory of processes")
    try:
        pids = [name for name in os.listdir(system.path("/proc")) if name.isdigit()]  # noqa: PTH208 - names are enough
    except OSError as e:
        raise FactsUnavailableError("no list of processes") from e
    if not pids:
        raise FactsUnavailableError("no list of processes")
    names: set[str] = set()
    is_hidden = len(pids) > MAX_PROCESSES
    for pid in pids[:MAX_PROCESSES]:
        folder = system.path(f"/proc/{pid}")
        try:
            with (folder / "maps").open("rb") as file:
                mapped = file.read(MAX_MAP_BYTES)
                is_hidden |= len(mapped) == MAX_MAP_BYTES
            if _DELETED_LIBRARY.search(mapped):
                names.add((folder / "comm").read_text(errors="replace").strip()[:_MAX_PROCESS_NAME] or "?")
        except PermissionError:
            is_hidden = True
        except OSError:
            continue  # the process ended meanwhile, or is a kernel thread
    return sorted(names), is_hidden
