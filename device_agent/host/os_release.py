"""The operating system: os-release and the running kernel."""

import platform
import shlex

from device_agent.errors import FactsUnavailableError
from device_agent.host.files import read_text
from device_agent.host.system import System

_FILES = ("/etc/os-release", "/usr/lib/os-release")


def describe_os(system: System) -> dict[str, str]:
    """Returns id and version of the distribution, kernel release and machine type."""
    release = read_os_release(system)
    kernel = platform.uname()
    return {
        "id": release.get("ID", "linux"),
        "version": release.get("VERSION_ID", ""),
        "kernel": kernel.release,
        "machine": kernel.machine,
    }


def read_os_release(system: System) -> dict[str, str]:
    """Returns the fields of os-release.

    Raises:
        FactsUnavailableError: there is no such file.
    """
    for name in _FILES:
        path = system.path(name)
        if path.is_file():
            return _parse(read_text(path))
    raise FactsUnavailableError("no os-release file")


def _parse(text: str) -> dict[str, str]:
    """Parses assignments as a shell does, which is the format of the file."""
    fields = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            try:
                fields[key] = "".join(shlex.split(value, comments=False))
            except ValueError:
                fields[key] = value.strip("\"'")  # a quote is missing
    return fields
