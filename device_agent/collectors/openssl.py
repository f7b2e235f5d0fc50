"""The OpenSSL in use: its own word on its version, and the distribution's package, whose version decides."""

import re
from typing import Final

from device_agent.collectors.base import CannotTellError, Section
from device_agent.collectors.packages import Installed, installed
from device_agent.execute import ExecuteError, run
from device_agent.system import System

# The command-line package first, then the libraries, by the names of Debian, Fedora, Alpine and OpenWrt.
_PACKAGES: Final = ("openssl", "libssl3t64", "libssl3", "libssl1.1", "openssl-libs", "libopenssl3", "libopenssl1.1")
_VERSION: Final = re.compile(r"^OpenSSL (\d+\.\d+\.\d+[a-z]*)")


def collect(system: System) -> Section:
    """The `openssl` section."""
    package = next(filter(None, (installed(system, name) for name in _PACKAGES)), None)
    version = _cli_version() if system.is_live else ""
    if not version and package is not None:
        version = _upstream(package)
    if not version and system.is_live:
        version = _linked_version()
    if not version:
        raise CannotTellError("neither an openssl program nor a package of it was found")
    section: dict[str, object] = {"state": "ok", "version": version}
    if package is not None:
        section["package"] = {"name": package.name, "version": package.version, "scheme": package.scheme}
    return section


def _cli_version() -> str:
    try:
        match = _VERSION.match(run(["openssl", "version"]).out)
    except ExecuteError:
        return ""
    return match[1] if match else ""


def _linked_version() -> str:
    import ssl  # the last resort: the library this program itself is linked with

    match = _VERSION.match(ssl.OPENSSL_VERSION)
    return match[1] if match else ""


def _upstream(package: Installed) -> str:
    match = re.match(r"^(?:\d+:)?(\d+\.\d+\.\d+[a-z]*)", package.version)
    return match[1] if match else ""
