"""One scan in a process of its own: what looking costs in memory is given back to the device when it ends.

`python -m device_agent.scanning.scan_child` reads one JSON object from standard input (see `scanning.ScanProcess`), and
writes one: the sections as they travel, their digest, and the memory for the next scan. Only scans read such a memory.
"""

import base64
import contextlib
import json
import logging
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent.collectors.registry import EVERY, collectors_for
from device_agent.collectors.scan import Scanner
from device_agent.collectors.tools.file_integrity import IntegrityCollector
from device_agent.collectors.tools.tool_runner import ToolRunner, ToolStatus
from device_agent.domain.report import MAX_HEAD_BYTES
from device_agent.domain.report_limits import findings_of, fit
from device_agent.host.clock import Clock
from device_agent.host.system import System
from device_agent.settings import Settings
from schemas.base import MAX_KEY_TEXT, MAX_POSTURE_BYTES, MAX_SIGNED_BYTES

if TYPE_CHECKING:
    from device_agent.updates.updater import Updater


def scan(request: dict[str, Any]) -> dict[str, str]:
    """What one scan found, and what the next one has to know."""
    settings = Settings.model_validate(request["settings"])
    state_dir = settings.agent.state_dir
    words = ToolStatus(ToolRunner.places_in(state_dir), request["tools"])
    integrity = IntegrityCollector(settings.integrity, state_dir, is_keeper=True)
    system = System(Path(request["root"]), is_root_user=request["is_root_user"])
    updater = _updater(settings, system)
    collectors = collectors_for(settings, runs=words, integrity=integrity, updater=updater)
    scanner = Scanner(system, collectors, every=EVERY)
    is_fresh = bool(request["is_fresh"])
    _recall(scanner, request["memory"], is_fresh=is_fresh)
    room = (MAX_SIGNED_BYTES - MAX_KEY_TEXT if settings.report.sign_reports else MAX_POSTURE_BYTES) - MAX_HEAD_BYTES
    found = fit(findings_of(scanner.scan(is_fresh=is_fresh)), room)
    memory = base64.b64encode(pickle.dumps(scanner.remembered())).decode("ascii")
    return {"sections": found.sections, "digest": found.digest, "memory": memory}


def _updater(settings: Settings, system: System) -> "Updater | None":
    if settings.updates.url is None:
        return None
    from device_agent.updates.factory import make_updater

    stopping = threading.Event()
    return make_updater(settings, system, Clock(), stopping, stopping.set)


def _recall(scanner: Scanner, memory: str, *, is_fresh: bool) -> None:
    if not memory:
        return
    # The memory of another version of the agent, replaced while it ran, is none.
    with contextlib.suppress(Exception):
        found = pickle.loads(base64.b64decode(memory))  # noqa: S301 - a scan of this same agent wrote it
        if is_fresh:
            found["collectors"].pop("integrity", None)  # a command may have taken a new baseline
        scanner.recall(found)


def main() -> None:
    """Read, scan, write."""
    logging.basicConfig(level="WARNING", format="%(name)s: %(message)s")
    answer = scan(json.loads(sys.stdin.buffer.read()))
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # collectors that still hang must not keep us


if __name__ == "__main__":
    main()
