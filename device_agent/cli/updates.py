"""`cordon-agent updates`: what waits for the person at the device, and their answer."""

import argparse
import json
import sys
from pathlib import Path

from device_agent.errors import AgentError
from device_agent.settings import load
from device_agent.updates.consent import ConsentStore
from device_agent.updates.records import UpdateRecordStore


class NoPendingConsentError(AgentError):
    """There is no question to answer."""


def add_arguments(parser: argparse.ArgumentParser, default: Path) -> None:
    """What `updates` takes."""
    parser.add_argument("what", choices=("list", "accept", "decline"), help="look, or answer an update that waits")
    parser.add_argument("name", nargs="?", help="what is updated")
    parser.add_argument("--config", type=Path, default=default, help="default: %(default)s")


def updates(arguments: argparse.Namespace) -> None:
    """Print as JSON what is installed and what waits, or answer.

    Raises:
        NoPendingConsentError: nothing waits under this name.
    """
    folder = load(arguments.config).updates_folder
    consent = ConsentStore(folder / "consent")
    if arguments.what == "list":
        records = UpdateRecordStore(folder / "records")
        found = [records.load(name) for name in records.names()]
        installed = [
            {
                "name": one.name,
                "version": "" if one.current is None else one.current.version,
                "outcome": one.outcome.value,
                "attempted": one.attempted,
                "reason": one.reason,
            }
            for one in found
        ]
        sys.stdout.write(json.dumps({"installed": installed, "waiting": consent.pending()}, indent=2) + "\n")
        return
    name = arguments.name or ""
    if not any(one["name"] == name for one in consent.pending()):
        raise NoPendingConsentError(
            f"no update of {name or 'anything'} waits for an answer: see cordon-agent updates list"
        )
    consent.record_answer(name, agreed=arguments.what == "accept")
    sys.stdout.write(f"{name}: {arguments.what}ed\n".replace("declineed", "declined"))
