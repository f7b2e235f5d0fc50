"""The commands for whoever sets a device up: `doctor`, `install`, `passphrase`."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from device_agent.errors import AgentError, ExitCode


class SetupError(AgentError):
    """What was asked for cannot be done; the text says why."""

    exit_code = ExitCode.USAGE


def add_arguments(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The arguments of all three."""
    doctor = nouns.add_parser(
        "doctor",
        help="say what can be seen on this device, and why the rest cannot",
        description="Look once, and say of every section whether it was found, why not, and how long it took.",
    )
    doctor.add_argument("--config", type=Path, help="look as this configuration says; default: as without one")
    doctor.add_argument("--output", choices=("text", "json"), default="text")
    install = nouns.add_parser(
        "install",
        help="write the systemd unit and a starter configuration",
        description="Write the systemd unit and a starter configuration; nothing that is there is overwritten unasked.",
    )
    install.add_argument("--root", type=Path, default=Path("/"), help="write below this folder; default: %(default)s")
    install.add_argument("--exec", dest="program", help="what the unit starts; default: this program")
    install.add_argument("--server", default="mqtts://broker.example:8883", help="default: %(default)s")
    install.add_argument("--device-id", help="default: the host name")
    install.add_argument("--force", action="store_true", help="overwrite what is there")
    words = nouns.add_parser(
        "passphrase",
        help="make a strong random passphrase",
        description="Print a random passphrase, and on standard error how many bits of entropy it has.",
    )
    words.add_argument("--bits", type=int, default=128, help="at least so many bits, 80 to 1024; default: %(default)s")


def _doctor(arguments: argparse.Namespace) -> None:
    from device_agent.cli.doctor import as_json, as_text, diagnose
    from device_agent.collectors.registry import COLLECTORS, collectors_for
    from device_agent.host.system import System
    from device_agent.identity.store import load_active
    from device_agent.settings import warnings

    settings = load_active(arguments.config) if arguments.config else None
    collectors = collectors_for(settings) if settings else COLLECTORS
    system = System(is_root_user=os.geteuid() == 0)
    found = diagnose(system, collectors)
    said = warnings(settings) if settings else ()
    sys.stdout.write((as_json if arguments.output == "json" else as_text)(system, found, said))


def _install(arguments: argparse.Namespace) -> None:
    from device_agent.cli.install import install, wish
    from schemas.broker_address import BrokerAddress

    try:
        BrokerAddress.parse(arguments.server)
    except ValueError as e:
        raise SetupError(f"--server: {e}") from e
    wanted = wish(arguments.root, arguments.program, arguments.server, arguments.device_id, is_forced=arguments.force)
    sys.stdout.write("".join(f"{line}\n" for line in install(wanted)))


def _passphrase(arguments: argparse.Namespace) -> None:
    from device_agent.cli.passphrase import MAX_BITS, MIN_BITS, passphrase

    if not MIN_BITS <= arguments.bits <= MAX_BITS:
        raise SetupError(f"--bits: between {MIN_BITS} and {MAX_BITS}; fewer can be guessed")
    text, bits = passphrase(arguments.bits)
    sys.stdout.write(f"{text}\n")
    sys.stderr.write(f"{bits} bits of entropy\n")


HANDLERS: Final[Mapping[str, Callable[[argparse.Namespace], Any]]] = {
    "doctor": _doctor,
    "install": _install,
    "passphrase": _passphrase,
}
