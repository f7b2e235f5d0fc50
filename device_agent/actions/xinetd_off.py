"""Switches a service of xinetd off: `disable = yes` in its block, and xinetd told to read its files again."""

import contextlib
import os
import signal

from device_agent.actions.base import ActionError
from device_agent.actions.edit import FileContents, read
from device_agent.host import xinetd
from device_agent.host.system import System


def named(system: System, name: str) -> dict[str, str]:
    """The services that `name` means and that are switched on, each with the absolute path of its file.

    Raises:
        ActionError: a file of xinetd cannot be read.
    """
    if name.startswith("inetd:"):
        return {}
    bare = name.removeprefix("xinetd:")
    try:
        entries = xinetd.entries(system)
    except OSError as e:
        raise ActionError(f"{e.filename}: {e.strerror}") from e
    return {
        entry.service: "/" + str(entry.file.relative_to(system.root))
        for entry in entries
        if bare in {entry.service, entry.program, entry.program.removeprefix("in.")}
    }


def texts(system: System, services: dict[str, str]) -> FileContents:
    """The files as they should be."""
    after: dict[str, str | None] = {}
    for service, place in services.items():
        text = after.get(place) or read(system, place)
        if text is not None:
            after[place] = switched_off(text, service)
    return after


def switched_off(text: str, service: str) -> str:
    """The text with every block of the service switched off."""
    lines: list[str] = []
    is_ours, is_said = False, False
    for line in text.splitlines(keepends=True):
        words = line.partition("#")[0].replace("{", " { ").replace("=", " = ").split()
        if words[:1] == ["service"]:
            is_ours, is_said = words[1:2] == [service], False
        if is_ours and words[:2] == ["disable", "="]:
            continue
        lines.append(line)
        if is_ours and not is_said and "{" in words:
            lines.append("\tdisable = yes\n")
            is_said = True
        if words[:1] == ["}"]:
            is_ours = False
    return "".join(lines)


def reload(system: System) -> None:
    """Have a running xinetd read its configuration again."""
    if not system.is_live:
        return
    for folder in system.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() == "xinetd":
                os.kill(int(folder.name), signal.SIGHUP)
