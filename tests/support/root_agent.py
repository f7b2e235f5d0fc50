"""The whole agent for a system in a folder: `python -m tests.support.root_agent CONFIG ROOT`."""

import logging
import signal
import sys
import threading
from pathlib import Path

from device_agent.host.system import System
from device_agent.runtime import run
from device_agent.settings import load


def main(config: Path, root: Path) -> None:
    """Runs until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    run(load(config), System(root=root, is_root_user=True), stop)


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
