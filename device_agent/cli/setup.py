"""The commands that set a device up: `doctor`, `install`, `passphrase`."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from device_agent.errors import AgentError, ExitCode

MIN_BITS: Final = 80
MAX_BITS: Final = 1024
# 32 characters, so 5 bits each; without i, l, o and u, which are misread or form words.
CHARACTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BITS_PER_CHARACTER: Final = 5
_GROUP: Final = 5  # characters between two dashes


class SetupError(AgentError):
    """A wrong option; the text says why."""

    exit_code = ExitCode.USAGE


def add_parsers(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the three nouns."""
    doctor = nouns.add_parser(
        "doctor",
        help="print which facts are available on this device, and why others are not",
        description="Scan once, and print the state, the reason and the duration of every section.",
    )
    doctor.add_argument("--config", type=Path, help="scan as this configuration says; default: without one")
    doctor.add_argument("--output", choices=("text", "json"), default="text")
    install = nouns.add_parser(
        "install",
        help="write the systemd unit and a starter configuration",
        description="Write the systemd unit and a starter configuration; existing files need --force.",
    )
    install.add_argument("--root", type=Path, default=Path("/"), help="write below this folder; default: %(default)s")
    install.add_argument("--exec", dest="program", help="the program of the unit; default: this program")
    install.add_argument("--server", default="mqtts://broker.example:8883", help="default: %(default)s")
    install.add_argument("--device-id", help="default: the host name")
    install.add_argument("--force", action="store_true", help="overwrite existing files")
    passphrase = nouns.add_parser(
        "passphrase",
        help="make a strong random passphrase",
        description="Print a random passphrase, and on standard error its entropy in bits.",
    )
    passphrase.add_argument("--bits", type=int, default=128, help="minimum, 80 to 1024; default: %(default)s")


def make_passphrase(bits: int) -> tuple[str, int]:
    """Returns a random passphrase in groups of characters, with at least `bits` bits, and its exact entropy."""
    import secrets  # needed only here

    count = math.ceil(bits / _BITS_PER_CHARACTER)
    characters = "".join(secrets.choice(CHARACTERS) for _ in range(count))
    groups = [characters[at : at + _GROUP] for at in range(0, count, _GROUP)]
    return "-".join(groups), count * _BITS_PER_CHARACTER


def _doctor(arguments: argparse.Namespace) -> None:
    from device_agent.cli.doctor import as_json, as_text, diagnose
    from device_agent.collectors.registry import COLLECTORS, collectors_for
    from device_agent.host.system import System
    from device_agent.identity.store import load_active
    from device_agent.settings import warnings

    settings = load_active(arguments.config) if arguments.config else None
    collectors = collectors_for(settings) if settings else COLLECTORS
    system = System(is_root_user=os.geteuid() == 0)
    diagnoses = diagnose(system, collectors)
    render = as_json if arguments.output == "json" else as_text
    sys.stdout.write(render(system, diagnoses, warnings(settings) if settings else ()))


def _install(arguments: argparse.Namespace) -> None:
    from device_agent.cli.install import install, make_options
    from schemas.broker_address import BrokerAddress

    try:
        BrokerAddress.parse(arguments.server)
    except ValueError as e:
        raise SetupError(f"--server: {e}") from e
    options = make_options(
        arguments.root, arguments.program, arguments.server, arguments.device_id, overwrite=arguments.force
    )
    sys.stdout.write("".join(f"{line}\n" for line in install(options)))


def _passphrase(arguments: argparse.Namespace) -> None:
    if not MIN_BITS <= arguments.bits <= MAX_BITS:
        raise SetupError(f"--bits: between {MIN_BITS} and {MAX_BITS}; fewer can be guessed")
    text, bits = make_passphrase(arguments.bits)
    sys.stdout.write(f"{text}\n")
    sys.stderr.write(f"{bits} bits of entropy\n")


HANDLERS: Final[Mapping[str, Callable[[argparse.Namespace], Any]]] = {
    "doctor": _doctor,
    "install": _install,
    "passphrase": _passphrase,
}
