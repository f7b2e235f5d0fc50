"""Writes the JSON Schemas and the AsyncAPI document that others build against, from the models themselves.

`python -m schemas.export` writes them beside the models; `--check` compares, so that CI sees a forgotten export.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

from schemas import topics
from schemas.actions import ACTIONS
from schemas.commands import Command, CommandResult
from schemas.enrolment import EnrolRequest, EnrolResponse, RenewRequest, RenewResponse
from schemas.events import DeviceEvent, ReportReceipt, Status
from schemas.posture import REPORT
from schemas.signing import Envelope
from schemas.updates import InstallParams, RollbackParams, UpdateProgress, UpdateTarget

_HERE: Final = Path(__file__).parent
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# Name, model, where it travels; a command travels only inside its envelope.
_ON_THE_WIRE: Final[tuple[tuple[str, type[BaseModel] | TypeAdapter[Any], str], ...]] = (
    ("posture", REPORT, topics.up("{device_id}", topics.UpChannel.POSTURE)),
    ("status", Status, topics.up("{device_id}", topics.UpChannel.STATUS)),
    ("event", DeviceEvent, topics.up("{device_id}", topics.UpChannel.EVENT)),
    ("result", CommandResult, topics.up("{device_id}", topics.UpChannel.RESULT)),
    ("command-envelope", Envelope, topics.down("{device_id}", topics.DownChannel.COMMAND)),
    ("receipt", ReportReceipt, topics.down("{device_id}", topics.DownChannel.RECEIPT)),
    ("renew", RenewRequest, topics.up("{device_id}", topics.UpChannel.RENEW)),
    ("certificate", RenewResponse, topics.down("{device_id}", topics.DownChannel.CERTIFICATE)),
)


# What travels inside others: a command in its envelope, an update's parts in a command, a result and TUF metadata.
_INSIDE: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("command", Command),
    ("update-target", UpdateTarget),
    ("update-install", InstallParams),
    ("update-rollback", RollbackParams),
    ("update-progress", UpdateProgress),
    ("enrol-request", EnrolRequest),
    ("enrol-answer", EnrolResponse),
)


def _json_schema(name: str, model: type[BaseModel] | TypeAdapter[Any]) -> dict[str, Any]:
    body = model.json_schema() if isinstance(model, TypeAdapter) else model.model_json_schema()
    return {"$schema": _DIALECT, "$id": f"urn:cordon:v1:{name}", **body}


def _asyncapi() -> dict[str, Any]:
    parameters = {"device_id": {"description": "MQTT client id and certificate common name of the device."}}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, _, address in _ON_THE_WIRE:
        channels[name] = {
            "address": address,
            "parameters": parameters,
            "messages": {name: {"contentType": "application/json", "payload": {"$ref": f"json/{name}.schema.json"}}},
        }
        # Written from the controller's side, which is the application this document describes.
        operations[name] = {
            "action": "receive" if name in set(topics.UpChannel) else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": {"mqtt": {"qos": 0 if name == "receipt" else 1, "retain": name == "status"}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Cordon wire protocol",
            "version": "1.0.0",
            "license": {"name": "Apache-2.0"},
            "description": "What devices and the Cordon controller say to each other over MQTT.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }


def documents() -> dict[str, str]:
    """Every generated file: its path below `schemas/` and its text."""
    import yaml  # only whoever changes the models needs it

    models = (*((name, model) for name, model, _ in _ON_THE_WIRE), *_INSIDE)
    files = {
        f"json/{name}.schema.json": json.dumps(_json_schema(name, model), indent=2) + "\n" for name, model in models
    }
    table = {name: action.schema() for name, action in ACTIONS.items()}
    whole = {"$schema": _DIALECT, "$id": "urn:cordon:v1:actions", "title": "Parameters of each action", "$defs": table}
    files["json/actions.schema.json"] = json.dumps(whole, indent=2) + "\n"
    files["asyncapi.yaml"] = yaml.safe_dump(_asyncapi(), sort_keys=False, width=120)
    return files


def main(argv: list[str] | None = None) -> int:
    """Write the files, or with `--check` name those that differ (exit 1)."""
    parser = argparse.ArgumentParser(prog="python -m schemas.export", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args(argv).check
    stale = []
    for name, text in documents().items():
        path = _HERE / name
        if check and (not path.is_file() or path.read_text() != text):
            stale.append(name)
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    for name in stale:
        sys.stderr.write(f"schemas/{name} is not what the models say: run `python -m schemas.export`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
