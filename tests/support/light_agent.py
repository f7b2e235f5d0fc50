"""The real agent with quick collectors and harmless actions, as a process.

`python -m tests.support.light_agent CONFIG [STEP]`. It reports the text of `posture.txt` in the folder of CONFIG as
the kernel, with 49 sockets if there is a `more.txt`, and its actions `test.append` and `test.once` append a line to
`done.txt` there. With STEP it kills itself as kill -9 does: `received` (the command arrived, nothing is written),
`begin` (the command is written), `plan` (the state before is written), `apply` (applied, nothing more is written),
`finish` (the result is written, not published), `tell` (the broker has the result, which is not written), `told` (all
is written).
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from device_agent.actions.base import ActionPlan, Params, RemediationAction, Verification
from device_agent.actions.scan_run import Rescan
from device_agent.actions.trust import key_actions
from device_agent.assembly import load_keyring
from device_agent.collectors.base import Section, SectionBuilder
from device_agent.commands import journal
from device_agent.host.system import System
from device_agent.runtime import run
from device_agent.settings import load

STEPS: Final = ("received", "begin", "plan", "apply", "finish", "tell", "told")
_DIES_BEFORE: Final = {
    "received": "record_accepted",
    "tell": "mark_result_confirmed",
}  # the method of the journal that is never called
_DIES_AFTER: Final = {
    "begin": "record_accepted",
    "plan": "record_before",
    "finish": "record_result",
    "told": "mark_result_confirmed",
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Append:
    """Appends a line each time it is applied, so that a second application is visible."""

    def __init__(self, file: Path, die_at: str, *, is_repeatable: bool) -> None:
        self._file = file
        self._die_at = die_at
        self.is_repeatable = is_repeatable

    def check(self, params: Params) -> None:
        del params

    def plan(self, params: Params) -> ActionPlan:
        del params
        return ActionPlan(before={"was": str(self._lines())}, changes="append a line")

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        del params, before
        with self._file.open("a") as file:
            file.write("done\n")
        if self._die_at == "apply":
            _die()

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        del params
        return Verification(str(self._lines()) != before["was"], {"is": str(self._lines())})

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        del params, before
        return "not undone"

    def _lines(self) -> int:
        return len(self._file.read_text().splitlines()) if self._file.exists() else 0


def _dying(method: Any) -> Any:
    def then_die(*arguments: Any) -> Any:
        method(*arguments)
        _die()

    return then_die


def _dead(*_arguments: Any) -> Any:
    _die()


def main(config: Path, die_at: str) -> None:
    folder = config.parent

    def posture(system: System) -> Section:
        del system
        file = folder / "posture.txt"
        kernel = file.read_text().strip() if file.exists() else "first"
        return SectionBuilder(id="test", version="1", kernel=kernel, machine="none").build()

    def sockets(system: System) -> Section:
        del system
        listening = [{"proto": "tcp", "address": "::", "port": port, "process": "p"} for port in range(1, 50)]
        return SectionBuilder(listening=listening).build()

    collectors = {"os": posture, "sockets": sockets} if (folder / "more.txt").exists() else {"os": posture}
    if die_at in _DIES_BEFORE:
        setattr(journal.Journal, _DIES_BEFORE[die_at], _dead)
    if die_at in _DIES_AFTER:
        method = _DIES_AFTER[die_at]
        setattr(journal.Journal, method, _dying(getattr(journal.Journal, method)))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    done = folder / "done.txt"
    settings = load(config)
    actions: dict[str, RemediationAction] = {
        **key_actions(load_keyring(settings)),
        "rescan": Rescan(),
        "test.append": _Append(done, die_at, is_repeatable=True),
        "test.once": _Append(done, die_at, is_repeatable=False),
    }
    run(settings, System(), stop, collectors=collectors, actions=actions)


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
