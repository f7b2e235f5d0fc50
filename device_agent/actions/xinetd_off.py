"""Disables a service of xinetd: `disable = yes` in its block, then a reload. Used by `service.disable`."""

import contextlib
import os
import signal

from device_agent.actions.base import ActionError
from device_agent.actions.edit import FileContents, read
from device_agent.errors import FactsUnavailableError
from device_agent.host import xinetd
from device_agent.host.system import System


def matching_services(system: System, name: str) -> dict[str, str]:
    """Returns the enabled services that match `name`, each with the absolute path of its file.

    Raises:
        ActionError: a file of xinetd cannot be read.
    """
    if name.startswith("inetd:"):
        return {}
    service = name.removeprefix("xinetd:")
    try:
        entries = xinetd.entries(system)
    except FactsUnavailableError as e:
        raise ActionError(str(e)) from e
    except OSError as e:
        raise ActionError(f"{e.filename}: {e.strerror}") from e
    return {
        entry.service: "/" + str(entry.file.relative_to(system.root))
        for entry in entries
        if service in {entry.service, entry.program, entry.program.removeprefix("in.")}
    }


def desired_files(system: System, services: dict[str, str]) -> FileContents:
    """Returns the files with these services (paths by service) disabled."""
    files: dict[str, str | None] = {}
    for service, path in services.items():
        text = files.get(path) or read(system, path)
        if text is not None:
            files[path] = disable_service(text, service)
    return files


def disable_service(text: str, service: str) -> str:
    """Returns the text with every block of the service disabled."""
    lines: list[str] = []
    is_match, is_disabled = False, False
    for line in text.splitlines(keepends=True):
        words = line.partition("#")[0].replace("{", " { ").replace("=", " = ").split()
        if [word.lower() for word in words[:1]] == ["service"]:
            is_match, is_disabled = words[1:2] == [service], False
        if is_match and [word.lower() for word in words[:2]] == ["disable", "="]:
            continue
        lines.append(line)
        if is_match and not is_disabled and "{" in words:
            lines.append("\tdisable = yes\n")
            is_disabled = True
        if words[:1] == ["}"]:
            is_match = False
    return "".join(lines)


def reload(system: System) -> None:
    """Makes a running xinetd read its configuration again."""
    if not system.is_live:
        return
    for pid in xinetd.processes(system):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGHUP)
