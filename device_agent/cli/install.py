"""`cordon-agent install`: writes the systemd unit and a starter configuration; existing files need `--force`."""

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

UNIT_PATH: Final = "etc/systemd/system/cordon-agent.service"
CONFIG_PATH: Final = "etc/cordon/agent.toml"
STATE_PATH: Final = "var/lib/cordon-agent"
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
    """A file exists or cannot be written, or an option is wrong."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """The root to write below, the program that the unit starts, and the values of the configuration."""

    root: Path
    program: str
    server: str
    device_id: str
    overwrite: bool


def make_options(
    root: Path, program: str | None, server: str, device_id: str | None, *, overwrite: bool
) -> InstallOptions:
    """Returns the options with the defaults: this program, and the host name.

    Raises:
        InstallError: the path of the program is not valid in a unit.
    """
    path = program or _this_program()
    if _SAFE_PATH.match(path) is None:
        raise InstallError(f"{path}: a program in a unit needs an absolute path of plain characters; use --exec")
    return InstallOptions(root, path, server, device_id or default_device_id(), overwrite)


def install(options: InstallOptions) -> list[str]:
    """Writes the files; returns lines that say what was done and what is left to do.

    Raises:
        InstallError: a file exists already, or cannot be written.
    """
    has_systemd = any((options.root / path).exists() for path in _SYSTEMD)
    files = {CONFIG_PATH: (_STARTER.format(device_id=options.device_id, server=options.server), 0o600)}
    if has_systemd:
        files[UNIT_PATH] = (unit_text().replace(_PROGRAM_IN_UNIT, options.program), 0o644)
    existing = [f"/{name}" for name in sorted(files) if (options.root / name).exists()]
    if existing and not options.overwrite:
        raise InstallError(f"{', '.join(existing)}: already there, nothing was changed; --force overwrites")
    lines = []
    try:
        (options.root / STATE_PATH).mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, (text, mode) in sorted(files.items()):
            path = options.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, path.with_name(f".{path.name}.new"), text.encode(), mode)
            lines.append(f"wrote /{name}")
    except OSError as e:
        raise InstallError(f"{e.filename}: {e.strerror}") from e
    if has_systemd:
        return [*lines, f"now edit /{CONFIG_PATH}, then: systemctl daemon-reload; systemctl enable --now cordon-agent"]
    return [
        *lines,
        "there is no systemd here, so no unit was written",
        f"now edit /{CONFIG_PATH}, then have your init system start: {options.program} run",
    ]


def unit_text() -> str:
    """Returns the systemd unit in the package."""
    return resources.files("device_agent").joinpath("cordon-agent.service").read_text()


def _this_program() -> str:
    name = sys.argv[0]
    path = name if os.sep in name else shutil.which(name)
    return str(Path(path or name).absolute())
