"""Writes the JSON Schemas and the AsyncAPI document from the models.

`python -m schemas.export` writes them below `schemas/`; `--check` compares them, so that CI detects a missing export.
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
# Name, model and topic.
_MESSAGES: Final[tuple[tuple[str, type[BaseModel] | TypeAdapter[Any], str], ...]] = (
    ("posture", REPORT, topics.up("{device_id}", topics.UpChannel.POSTURE)),
    ("status", Status, topics.up("{device_id}", topics.UpChannel.STATUS)),
    ("event", DeviceEvent, topics.up("{device_id}", topics.UpChannel.EVENT)),
    ("result", CommandResult, topics.up("{device_id}", topics.UpChannel.RESULT)),
    ("command-envelope", Envelope, topics.down("{device_id}", topics.DownChannel.COMMAND)),
    ("receipt", ReportReceipt, topics.down("{device_id}", topics.DownChannel.RECEIPT)),
    ("renew", RenewRequest, topics.up("{device_id}", topics.UpChannel.RENEW)),
    ("certificate", RenewResponse, topics.down("{device_id}", topics.DownChannel.CERTIFICATE)),
)


# Models inside of other messages (envelopes, parameters, results, TUF metadata) and of the HTTPS API.
_OTHER_MODELS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
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
    for name, _, address in _MESSAGES:
        channels[name] = {
            "address": address,
            "parameters": parameters,
            "messages": {name: {"contentType": "application/json", "payload": {"$ref": f"json/{name}.schema.json"}}},
        }
        # AsyncAPI describes one application: the controller.
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
            "description": "Messages between devices and the Cordon controller over MQTT.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }


def documents() -> dict[str, str]:
    """Returns the text of every generated file by its path below `schemas/`."""
    import yaml  # a development dependency

    models = (*((name, model) for name, model, _ in _MESSAGES), *_OTHER_MODELS)
    files = {
        f"json/{name}.schema.json": json.dumps(_json_schema(name, model), indent=2) + "\n" for name, model in models
    }
    actions = {
        "$schema": _DIALECT,
        "$id": "urn:cordon:v1:actions",
        "title": "Parameters of each action",
        "$defs": {name: action.schema() for name, action in ACTIONS.items()},
    }
    files["json/actions.schema.json"] = json.dumps(actions, indent=2) + "\n"
    files["asyncapi.yaml"] = yaml.safe_dump(_asyncapi(), sort_keys=False, width=120)
    return files


def main(argv: list[str] | None = None) -> int:
    """Writes the files, or with `--check` lists those that differ (exit status 1)."""
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
        sys.stderr.write(f"schemas/{name} differs from the models: run `python -m schemas.export`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
