"""`cordon-agent launch`: replaces this process by the agent of the selected slot."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping

from device_agent.host.execute import SLOT_VARIABLE
from device_agent.updates.slots import LAUNCHER_VARIABLE, AgentSlots


def launch(arguments: argparse.Namespace, run: Callable[[argparse.Namespace], None]) -> None:
    """Executes the agent of a slot, or calls `run` for the manually installed one.

    Raises:
        AgentError: the configuration is wrong.
    """
    from device_agent.settings import load

    choice = AgentSlots(load(arguments.config).updates_folder / "agent").select_launch(time.time())
    # An alarm and its disposition survive execve: the kernel kills a new agent that hangs.
    signal.setitimer(signal.ITIMER_REAL, choice.kill_after_seconds)
    environment = {
        **os.environ,
        SLOT_VARIABLE: choice.slot,
        LAUNCHER_VARIABLE: json.dumps([sys.executable, *sys.orig_argv[1:]]),
    }
    if choice.file is None:
        os.environ.update(environment)
        run(arguments)
        return
    argv = [sys.executable, str(choice.file), "--log-format", arguments.log_format, "--log-level", arguments.log_level]
    sys.stderr.flush()
    os.execve(sys.executable, [*argv, "run", "--config", str(arguments.config)], environment)  # noqa: S606 - no shell


def exec_launcher(environment: Mapping[str, str]) -> None:
    """Replaces this process by the launcher that started it; returns where there was none."""
    if text := environment.get(LAUNCHER_VARIABLE):
        argv = json.loads(text)
        os.execve(argv[0], argv, dict(environment))  # noqa: S606 - no shell
