"""`cordon-agent updates`: prints installed updates and consent requests, and records the person's answer."""

import argparse
import json
import sys
from pathlib import Path

from device_agent.errors import AgentError


class NoPendingConsentError(AgentError):
    """There is no consent request to answer."""


def add_parser(nouns: "argparse._SubParsersAction[argparse.ArgumentParser]", default_config: Path) -> None:
    """Adds the noun `updates`."""
    parser = nouns.add_parser(
        "updates",
        help="installed updates, and updates that need your consent",
        description="List installed updates and those that need your consent; accept or decline one.",
    )
    parser.add_argument("what", choices=("list", "accept", "decline"), help="list, or answer a consent request")
    parser.add_argument("name", nargs="?", help="the name of the update")
    parser.add_argument("--config", type=Path, default=default_config, help="default: %(default)s")


def updates(arguments: argparse.Namespace) -> None:
    """Prints updates and consent requests as JSON, or records an answer.

    Raises:
        NoPendingConsentError: there is no request with this name.
    """
    from device_agent.settings import load
    from device_agent.updates.consent import ConsentStore
    from device_agent.updates.records import UpdateRecordStore

    folder = load(arguments.config).updates_folder
    consent = ConsentStore(folder / "consent")
    if arguments.what == "list":
        store = UpdateRecordStore(folder / "records")
        installed = [
            {
                "name": record.name,
                "version": record.current_version,
                "outcome": record.outcome.value,
                "attempted": record.attempted,
                "reason": record.reason,
            }
            for record in map(store.load, store.names())
        ]
        sys.stdout.write(json.dumps({"installed": installed, "waiting": consent.pending()}, indent=2) + "\n")
        return
    name = arguments.name or ""
    if not any(request["name"] == name for request in consent.pending()):
        raise NoPendingConsentError(f"no consent request for {name or 'any update'}: see cordon-agent updates list")
    consent.record_answer(name, agreed=arguments.what == "accept")
    sys.stdout.write(f"{name}: {'accepted' if arguments.what == 'accept' else 'declined'}\n")
