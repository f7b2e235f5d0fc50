"""Puts the systemd unit and a starter configuration in place; nothing that is there is overwritten unasked."""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from device_agent.errors import AgentError, ExitCode
from device_agent.host.files import write_whole
from device_agent.settings import default_device_id

UNIT: Final = "etc/systemd/system/cordon-agent.service"
CONFIG: Final = "etc/cordon/agent.toml"
STATE: Final = "var/lib/cordon-agent"
_SYSTEMD: Final = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
_PROGRAM_IN_UNIT: Final = "/opt/cordon/bin/cordon-agent"
_SAFE_PATH: Final = re.compile(r"^/[A-Za-z0-9._/+-]+$")
_STARTER: Final = """\
# Cordon's agent on this device. Every key: docs/configuration.md
device_id = "{device_id}"

[mqtt]
# The broker. With mqtts the device needs its own certificate, whose common name is device_id.
servers = ["{server}"]
# ca = "/etc/cordon/ca.pem"
# certificate = "/etc/cordon/device.pem"
# key = "/etc/cordon/device.key"

[commands]
# Nothing is ever changed on this device unless both of these say so.
# controller_keys = ["ed25519:..."]
# allow = ["rescan"]
controller_keys = []
allow = []
"""


class InstallError(AgentError):
    """Something is in the way; the text says what, and what to do."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """What to install, and below which root; `program` is what the unit starts."""

    root: Path
    program: str
    server: str
    device_id: str
    is_forced: bool


def wish(root: Path, program: str | None, server: str, device_id: str | None, *, is_forced: bool) -> InstallOptions:
    """Fill in what was not said: this very program, and the host name.

    Raises:
        InstallError: the program's path cannot stand in a unit.
    """
    chosen = program or _this_program()
    if _SAFE_PATH.match(chosen) is None:
        raise InstallError(f"{chosen}: a program in a unit needs an absolute path of plain characters; use --exec")
    return InstallOptions(root, chosen, server, device_id or default_device_id(), is_forced)


def install(wanted: InstallOptions) -> list[str]:
    """Write the files; returns what was done and what is left to do, a line each.

    Raises:
        InstallError: a file is there already, or cannot be written.
    """
    has_systemd = any((wanted.root / place).exists() for place in _SYSTEMD)
    files = {CONFIG: (_STARTER.format(device_id=wanted.device_id, server=wanted.server), 0o600)}
    if has_systemd:
        files[UNIT] = (unit_text().replace(_PROGRAM_IN_UNIT, wanted.program), 0o644)
    there = [f"/{place}" for place in sorted(files) if (wanted.root / place).exists()]
    if there and not wanted.is_forced:
        raise InstallError(f"{', '.join(there)}: already there, nothing was changed; --force overwrites")
    said = []
    try:
        (wanted.root / STATE).mkdir(mode=0o700, parents=True, exist_ok=True)
        for place, (text, mode) in sorted(files.items()):
            path = wanted.root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, path.with_name(f".{path.name}.new"), text.encode(), mode)
            said.append(f"wrote /{place}")
    except OSError as e:
        raise InstallError(f"{e.filename}: {e.strerror}") from e
    if has_systemd:
        return [*said, f"now edit /{CONFIG}, then: systemctl daemon-reload; systemctl enable --now cordon-agent"]
    return [
        *said,
        "there is no systemd here, so no unit was written",
        f"now edit /{CONFIG}, then have your init system start: {wanted.program} run",
    ]


def unit_text() -> str:
    """The unit as it is shipped."""
    return resources.files("device_agent").joinpath("cordon-agent.service").read_text()


def _this_program() -> str:
    name = sys.argv[0]
    found = name if os.sep in name else shutil.which(name)
    return str(Path(found or name).absolute())
