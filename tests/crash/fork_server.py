"""Starts `cordon serve` repeatedly without loading Python's modules each time, so that many kills fit in a test.

`python -m tests.crash.fork_server CONFIG` loads the controller, then forks once for each line `start` on its input:
each child runs `cordon serve --config CONFIG` as the program does. `{"pid": N}` is written for each. `reap` waits
for the child's end and writes `{"ended": STATUS}`.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any, Final

import uvloop  # noqa: F401 - loaded for the children

import controller.app.run
from controller.cli.app import app
from controller.main import main

_LOADED = (controller.app.run, app)
_PR_SET_PDEATHSIG: Final = 1


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _serve(config: str) -> None:
    # Were it left behind, whoever started us would wait for the end of its output.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # the orders are not the child's to read
    os._exit(main(["serve", "--config", config]))


def run(config: str) -> None:
    """Obey until the end of standard input; a child never outlives this process."""
    child = 0
    while line := sys.stdin.readline():
        if line.strip() == "start":
            child = os.fork()
            if child == 0:
                _serve(config)
            _say({"pid": child})
        elif line.strip() == "reap":
            _, status = os.waitpid(child, 0)
            child = 0
            _say({"ended": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    run(sys.argv[1])
