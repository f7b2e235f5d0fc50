"""`cordon-agent launch`: start the agent of the chosen slot, in the place of this process."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from device_agent.host.execute import SLOT_VARIABLE
from device_agent.updates.slots import LAUNCHER_VARIABLE, AgentSlots

AGAIN: Final = threading.Event()
"""Set when the agent is to be started anew once it has stopped in order."""


def launch(arguments: argparse.Namespace, run: Callable[[argparse.Namespace], None]) -> None:
    """Become the agent of a slot, or run the one installed by hand with `run`.

    Raises:
        AgentError: the configuration is wrong.
    """
    from device_agent.settings import load
    from device_agent.updates.factory import folder_of

    chosen = AgentSlots(folder_of(load(arguments.config)) / "agent").choose(time.time())
    # An alarm and its disposition survive execve: whatever hangs in the new agent, the kernel ends it.
    signal.setitimer(signal.ITIMER_REAL, chosen.alarm)
    environment = {
        **os.environ,
        SLOT_VARIABLE: chosen.slot,
        LAUNCHER_VARIABLE: json.dumps([sys.executable, *sys.orig_argv[1:]]),
    }
    if chosen.file is None:
        os.environ.update(environment)
        run(arguments)
        return
    argv = [sys.executable, str(chosen.file), "--log-format", arguments.log_format, "--log-level", arguments.log_level]
    sys.stderr.flush()
    os.execve(sys.executable, [*argv, "run", "--config", str(arguments.config)], environment)  # noqa: S606 - no shell


def start_again(environment: Mapping[str, str]) -> None:
    """Become the launcher again, when that was asked for."""
    if AGAIN.is_set() and (text := environment.get(LAUNCHER_VARIABLE)):
        argv = json.loads(text)
        os.execve(argv[0], argv, dict(environment))  # noqa: S606 - no shell


def ask_again() -> None:
    """Stop in order, and start anew."""
    AGAIN.set()
    os.kill(os.getpid(), signal.SIGTERM)
