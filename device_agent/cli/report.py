"""`cordon-agent report`: one full report of this machine, or of an image below a folder."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from device_agent.errors import SettingsError

if TYPE_CHECKING:
    from device_agent.collectors.base import Collector
    from device_agent.host.system import System

_UNNAMED: Final = "image"
_MAX_NAME_BYTES: Final = 1024  # of /etc/hostname


def add_parser(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the noun `report`."""
    parser = nouns.add_parser(
        "report",
        help="print one full report as JSON",
        description="Scan once, print one full report as JSON, and exit; needs no broker and no configuration.",
        epilog="Whether an image would pass: cordon-agent report --root DIR | cordon policy explain --report -",
    )
    scanned = parser.add_mutually_exclusive_group()
    scanned.add_argument("--config", type=Path, help="use its device id and paths; default: the host name")
    scanned.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="examine the image, container root or backup in DIR instead of this machine: read only what is below DIR,"
        " run nothing of it, and say which sections need a living system",
    )


def report(arguments: argparse.Namespace) -> None:
    """Prints the report.

    Raises:
        AgentError: the configuration is wrong, or the root is not the folder of an image.
    """
    from device_agent.collectors.registry import COLLECTORS, collectors_for, collectors_for_image
    from device_agent.host.system import System, boot_id
    from device_agent.identity.store import load_active
    from device_agent.settings import default_device_id

    if arguments.root is not None:
        image = _open_image(arguments.root)
        _print(image, collectors_for_image(), _name_of(image), "")  # it has no boot
        return
    settings = load_active(arguments.config) if arguments.config else None
    device_id = settings.device_id if settings else default_device_id()
    system = System(is_root_user=os.geteuid() == 0)
    _print(system, collectors_for(settings) if settings else COLLECTORS, device_id, boot_id())


def _open_image(folder: Path) -> "System":
    from device_agent.host.system import System

    try:
        return System.image(folder)
    except ValueError as e:
        raise SettingsError(f"--root: {e}: leave --root out to examine it") from e
    except OSError as e:
        raise SettingsError(f"--root {folder}: {e.strerror}") from e


def _name_of(image: "System") -> str:
    """Returns the host name that an image gives itself, as a device id."""
    from device_agent.host.files import read_text
    from device_agent.settings import device_id_of

    try:
        name = read_text(image.path("/etc/hostname"), _MAX_NAME_BYTES).strip().partition("\n")[0]
    except OSError:
        name = ""
    return device_id_of(name, _UNNAMED)


def _print(system: "System", collectors: "Mapping[str, Collector]", device_id: str, boot: str) -> None:
    from device_agent import __version__
    from device_agent.collectors.scan import Scanner
    from device_agent.domain.report import ReportSender, full_report
    from device_agent.domain.report_limits import normalise_findings, truncate_to_size

    findings = normalise_findings(Scanner(system, collectors).scan())
    sender = ReportSender(device_id=device_id, boot_id=boot, agent=__version__)
    payload = full_report(sender, 0, datetime.now(UTC), truncate_to_size(findings))
    sys.stdout.write(json.dumps(json.loads(payload), indent=2) + "\n")
