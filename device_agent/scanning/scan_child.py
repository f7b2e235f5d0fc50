"""One scan in its own process, so that the memory it needs is returned to the device when the process ends.

`python -m device_agent.scanning.scan_child` reads one JSON object from standard input (see `scan_process.ScanProcess`)
and writes one: the sections as they are sent, their digest, and the scanner's state for the next scan.
"""

import contextlib
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent.collectors.registry import EVERY, collectors_for
from device_agent.collectors.scan import Scanner
from device_agent.collectors.tools.file_integrity import IntegrityCollector
from device_agent.collectors.tools.tool_runner import ToolRunner, ToolStatus
from device_agent.domain.report import MAX_HEADER_BYTES
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from device_agent.host.clock import Clock
from device_agent.host.system import System
from device_agent.settings import Settings
from schemas.base import MAX_KEY_TEXT, MAX_POSTURE_BYTES, MAX_SIGNED_BYTES

if TYPE_CHECKING:
    from device_agent.updates.updater import Updater


def scan(request: dict[str, Any]) -> dict[str, str]:
    """Runs one scan; returns `sections`, `digest` and `state`."""
    settings = Settings.model_validate(request["settings"])
    state_dir = settings.agent.state_dir
    tools = ToolStatus(ToolRunner.result_paths(state_dir), request["tools"])
    integrity = IntegrityCollector(settings.integrity, state_dir, is_baseline_owner=True)
    system = System(Path(request["root"]), is_root_user=request["is_root_user"])
    updater = _updater(settings, system)
    collectors = collectors_for(settings, tools=tools, integrity=integrity, updater=updater)
    scanner = Scanner(system, collectors, every=EVERY)
    force_rescan = bool(request["force_rescan"])
    _restore_state(scanner, request["state"], force_rescan=force_rescan)
    room = (MAX_SIGNED_BYTES - MAX_KEY_TEXT if settings.report.sign_reports else MAX_POSTURE_BYTES) - MAX_HEADER_BYTES
    content = truncate_to_size(normalise_findings(scanner.scan(force_rescan=force_rescan)), room)
    return {"sections": content.sections, "digest": content.digest, "state": json.dumps(scanner.state())}


def _updater(settings: Settings, system: System) -> "Updater | None":
    if settings.updates.url is None:
        return None
    from device_agent.updates.factory import make_updater

    stopping = threading.Event()
    return make_updater(settings, system, Clock(), stopping, stopping.set)


def _restore_state(scanner: Scanner, text: str, *, force_rescan: bool) -> None:
    if not text:
        return
    # A state that another version of the agent wrote, replaced while it ran, may not be readable: it is dropped.
    with contextlib.suppress(Exception):
        state = json.loads(text)
        if force_rescan:
            state["collectors"].pop("integrity", None)  # a command may have taken a new baseline
        scanner.restore(state)


def main() -> None:
    """Reads the request, scans, writes the answer."""
    logging.basicConfig(level="WARNING", format="%(name)s: %(message)s")
    answer = scan(json.loads(sys.stdin.buffer.read()))
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # threads of hanging collectors must not keep the process alive


if __name__ == "__main__":
    main()
