"""The corpus: one message of each kind with what became of it, written by `python -m tests.attack.fuzz.corpus`.

It holds the verdicts still: a change of a library or of ours that judges one of them otherwise shows as a difference.
"""

import base64
import json
from pathlib import Path
from typing import Any, Final

from controller.ports.messages import IncomingMessage
from controller.service.ingest.decoding import RejectedMessage, decode
from tests.attack.fuzz.messages import hostile

FILE: Final = Path(__file__).with_name("corpus.jsonl")
_SEED: Final = 7
_LOOKED_AT: Final = 8000  # messages
_EACH: Final = 1  # of one kind and verdict
_LARGEST: Final = 2000  # bytes of topic and payload


def verdict(topic: str, payload: bytes, retain: bool) -> str:
    """`accepted`, or the reason why not."""
    content = decode(IncomingMessage(topic, payload, 1, retain, False, 1, 0.0))
    return content.reason.value if isinstance(content, RejectedMessage) else "accepted"


def lines() -> list[dict[str, Any]]:
    """The corpus as it is generated now."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    messages = hostile(_SEED, _LOOKED_AT)
    for _ in range(_LOOKED_AT):
        one = next(messages)
        if len(one.topic) + len(one.payload) > _LARGEST:
            continue
        said = verdict(one.topic, one.payload, one.retain)
        group = found.setdefault((one.kind, said), [])
        if len(group) < _EACH:
            payload = base64.b64encode(one.payload).decode()
            group.append(
                {"kind": one.kind, "verdict": said, "topic": one.topic, "retain": one.retain, "payload": payload}
            )
    return [line for key in sorted(found) for line in found[key]]


def read() -> list[dict[str, Any]]:
    """The corpus as it is committed."""
    return [json.loads(line) for line in FILE.read_text().splitlines()]


def main() -> None:
    """Write it."""
    FILE.write_text("".join(json.dumps(line) + "\n" for line in lines()))


if __name__ == "__main__":
    main()
