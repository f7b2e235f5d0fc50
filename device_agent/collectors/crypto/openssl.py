"""The OpenSSL in use: its own word on its version, the distribution's package, whose version decides, its settings."""

import re
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.crypto import openssl_config
from device_agent.collectors.crypto.stale_libraries import stale_processes
from device_agent.collectors.crypto.tls_errors import WINDOW_HOURS, tls_errors
from device_agent.collectors.reading import GapRecorder
from device_agent.errors import FactsUnavailableError
from device_agent.host.execute import ExecuteError, run
from device_agent.host.packages import InstalledPackage, installed
from device_agent.host.system import System

# The command-line package first, then the libraries, by the names of Debian, Fedora, Alpine and OpenWrt.
_PACKAGES: Final = ("openssl", "libssl3t64", "libssl3", "libssl1.1", "openssl-libs", "libopenssl3", "libopenssl1.1")
_VERSION: Final = re.compile(r"^OpenSSL (\d+\.\d+\.\d+[a-z]*)")
_LIBRARY: Final = re.compile(r"\(Library: OpenSSL (\d+\.\d+\.\d+[a-z]*)")
_FOLDER: Final = re.compile(r'^OPENSSLDIR: "(/[^"\n]*)"', re.MULTILINE)


def collect(system: System) -> Section:
    """The `openssl` section."""
    package = next(filter(None, (installed(system, name) for name in _PACKAGES)), None)
    told = _cli() if system.is_live else ""
    version = _first(_VERSION, told)
    if not version and package is not None:
        version = _upstream(package)
    if not version and system.is_live:
        version = _linked_version()
    if not version:
        raise FactsUnavailableError("neither an openssl program nor a package of it was found")
    section: dict[str, Any] = {"state": "ok", "version": version}
    if package is not None:
        section["package"] = {"name": package.name, "version": package.version, "scheme": package.scheme}
    # Before OpenSSL 3 the library was named only where it differs from the program.
    section["library"] = _first(_LIBRARY, told) or _first(_VERSION, told)
    gaps = GapRecorder()
    _add_rest(section, system, _first(_FOLDER, told), gaps)
    section["problems"] = gaps.listed()
    return section


def _add_rest(section: dict[str, Any], system: System, folder: str, gaps: GapRecorder) -> None:
    with gaps.told("stale_processes"):
        section["stale_processes"], section["stale_hidden"] = stale_processes(system)
        if section["stale_hidden"]:
            why = "some processes cannot be looked at" if system.is_root_user else "needs root for those of other users"
            gaps.add("stale_processes", why)
    with gaps.told("config"):
        file = openssl_config.file_of(system, folder)
        if file is None:
            gaps.add("config", "there is no openssl.cnf")
        else:
            section["config"] = openssl_config.read(system, file)
            if section["config"]["security_level"] is None:
                gaps.add("security_level", "openssl.cnf sets none, so that the library's own default holds")
    with gaps.told("tls_errors"):
        section["tls_errors"] = tls_errors(system)
        section["tls_error_hours"] = WINDOW_HOURS


def _cli() -> str:
    try:
        return run(["openssl", "version", "-v", "-d"]).out
    except ExecuteError:
        return ""


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def _linked_version() -> str:
    import ssl  # the last resort: the library this program itself is linked with

    return _first(_VERSION, ssl.OPENSSL_VERSION)


def _upstream(package: InstalledPackage) -> str:
    match = re.match(r"^(?:\d+:)?(\d+\.\d+\.\d+[a-z]*)", package.version)
    return match[1] if match else ""
