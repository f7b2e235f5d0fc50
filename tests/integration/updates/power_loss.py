"""Kills a device at every step of an update, as a power loss would, and checks the state after the next start.

`python -m tests.integration.updates.power_loss [--most N] [--twice]`: for each scenario it counts the steps of an
undisturbed run: crash points, and every file access and program start below the device's folder. Then it runs the
scenario once for each step in a separate process that gets SIGKILL there, starts the device again, and checks the
installed version. Data that a disk loses because it was not synced is not simulated: the product syncs before it
renames.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.commands import CommandState
from schemas.updates import INSTALL, ROLL_BACK, InstallParams, RollbackParams
from tests.support.update_device import UpdateDevice
from tests.support.update_server import UpdateServer
from tests.support.updates import Repository, archive, order, repository

# Audit events of Python before it accesses a file, a folder, a link or another program.
_EVENTS: Final = frozenset(
    {
        "open",
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "shutil.rmtree",
        "subprocess.Popen",
    }
)
CHECK: Final = {"command": ["bin/check"], "seconds": 1, "broker": False}
_SUCCEEDED, _FAILED = 0, 7
# A killed process loses no written data, so a slow disk would only cost time.
FOLDER: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def app(version: str, *, healthy: bool = True) -> bytes:
    """Returns a file set of several files, all of the same version."""
    files = {f"data/{number}": f"{version} {number}\n" * 400 for number in range(3)}
    files["bin/check"] = f"#!/bin/sh\nexit {0 if healthy else 3}\n"
    return archive({**files, "version": version}, executable=("bin/check",))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One update; `ends` are the versions that may be installed in the end."""

    name: str
    before: tuple[str, ...]
    version: str
    healthy: bool
    ends: frozenset[str]
    is_rollback: bool = False


SCENARIOS: Final = (
    Scenario("first install", (), "1.0", healthy=True, ends=frozenset({"1.0"})),
    Scenario("update", ("1.0",), "1.1", healthy=True, ends=frozenset({"1.1"})),
    Scenario("unhealthy update", ("1.0",), "1.1", healthy=False, ends=frozenset({"1.0"})),
    Scenario("rollback", ("1.0", "1.1"), "1.1", healthy=True, ends=frozenset({"1.0"}), is_rollback=True),
)


class Killer:
    """Counts steps, and sends SIGKILL at step `at`; 0: never."""

    def __init__(self, at: int, below: Path, log: Path | None = None) -> None:
        self.count = 0
        self._at = at
        self._below = str(below)
        self._log: list[str] = []
        self._path = log
        self._mutex = threading.Lock()
        sys.addaudithook(self._on_audit_event)

    def step(self, name: str) -> None:
        with self._mutex:
            self.count += 1
            self._log.append(name)
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _on_audit_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and arguments and str(arguments[0]).startswith(self._below):
            self.step(f"{event} {arguments[0]}")

    def write(self) -> None:
        """Writes the steps of the run, for the parent process."""
        if self._path is not None:
            self._path.write_text(json.dumps(self._log))


class Harness:
    """The repository and server of one scenario, and the device before the update."""

    def __init__(self, base: Path, scenario: Scenario) -> None:
        self.scenario = scenario
        self.base = base
        self.made: Repository = repository(base / "repository")
        self.key = Ed25519PrivateKey.generate()
        self.server = UpdateServer(self.made.served)
        orders: list[InstallParams] = []
        for version in (*scenario.before, scenario.version):
            if version not in {former.version for former in orders}:
                healthy = scenario.healthy or version != scenario.version
                published = self.made.publish("edge-app", version, app(version, healthy=healthy), health=CHECK)
                orders.append(order(published))
        self.order = orders[-1]
        self.template = base / "template"
        self.orders_before = orders[: len(scenario.before)]

    def prepare(self) -> None:
        """Prepares the device in a separate process, as all runs are."""
        assert _run_in_fork(self._prepare) == _SUCCEEDED

    def run(self, kill_at: int, log: Path | None = None) -> int:
        """Runs the scenario in `work` with a kill at a step; returns the exit status, -9 after the kill."""
        work = self.base / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.template, work, symlinks=True)
        return _run_in_fork(lambda: self._run_device(kill_at, is_first=True, log=log))

    def restart(self, kill_at: int = 0) -> int:
        """Starts the device again."""
        return _run_in_fork(lambda: self._run_device(kill_at, is_first=False))

    def problem(self) -> str:
        """Returns what is wrong; empty when one complete permitted version is installed and reported."""
        current = self.base / "work/state/updates/sets/edge-app/current"
        version = (current / "version").read_text() if current.exists() else ""
        if version not in self.scenario.ends:
            return f"version {version or 'none'} is installed, not one of {sorted(self.scenario.ends)}"
        for number in range(3):
            if (current / f"data/{number}").read_text() != f"{version} {number}\n" * 400:
                return f"data/{number} is not of version {version}"
        reported = json.loads((self.base / "report.json").read_text())
        if (reported["version"], reported["health"]) != (version, "ok"):
            return f"the report says {reported}, but {version} is installed"
        return ""

    def _device(self, base: Path) -> UpdateDevice:
        return UpdateDevice(base, self.server.url, self.made.first_root, key=self.key)

    def _prepare(self) -> int:
        device = self._device(self.template)
        for former in self.orders_before:
            assert device.install(former).state is CommandState.SUCCEEDED
        device.stop()
        return _SUCCEEDED

    def _run_device(self, kill_at: int, *, is_first: bool, log: Path | None = None) -> int:
        killer = Killer(kill_at, self.base / "work", log)
        work = self.base / "work"
        device = UpdateDevice(work, self.server.url, self.made.first_root, key=self.key, step=killer.step)
        # The controller sends a command again that the device was killed before accepting.
        if device.journal.entry("update") is None:
            scenario = self.scenario
            params = (
                RollbackParams(name="edge-app", version=scenario.version).params()
                if scenario.is_rollback
                else self.order.params()
            )
            device.send(ROLL_BACK if scenario.is_rollback else INSTALL, params, command_id="update", counter=1000)
            device.ended()
        elif not is_first and device.journal.unfinished():
            device.ended()
        device.stop()
        killer.write()
        (self.base / "report.json").write_text(device.entry().model_dump_json())
        return _SUCCEEDED


def _run_in_fork(work: Callable[[], int]) -> int:
    """Runs `work` in a fork, where all modules are loaded; returns the exit status, negative for a signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = _FAILED
        try:
            status = work()
        except BaseException as e:  # noqa: BLE001 - a fork must never go on as its parent
            sys.stderr.write(f"{type(e).__name__}: {e}\n")
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fork_server(harness: Harness) -> int:
    """Runs the server in a process, so that this process has a single thread when it forks."""
    child = os.fork()
    if child == 0:
        harness.server._server.serve_forever(0.05)
    return child


def failures(scenario: Scenario, base: Path, most: int, *, twice: bool = False) -> Iterator[str]:
    """Runs a scenario with a kill at each step, or at `most` evenly spread steps; yields the failures."""
    harness = Harness(base, scenario)
    server = _fork_server(harness)
    try:
        harness.prepare()
        steps = base / "steps.json"
        if harness.run(0, steps) != _SUCCEEDED or harness.problem():
            yield f"{scenario.name}: undisturbed: {harness.problem()}"
            return
        names = json.loads(steps.read_text())
        chosen = range(1, len(names) + 1, max(1, -(-len(names) // most)) if most else 1)
        sys.stdout.write(f"{scenario.name}: {len(names)} steps, killed at {len(chosen)}\n")
        for kill_at in chosen:
            if harness.run(kill_at) != -signal.SIGKILL:
                yield f"{scenario.name}: step {kill_at} was not reached again"
                continue
            if twice:
                # The recovery is killed too, early and late.
                harness.restart(1 + kill_at % 17)
            if (status := harness.restart()) != _SUCCEEDED:
                yield f"{scenario.name}: killed at {kill_at} ({names[kill_at - 1]}): the next start ended with {status}"
            elif problem := harness.problem():
                yield f"{scenario.name}: killed at {kill_at} ({names[kill_at - 1]}): {problem}"
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        harness.server._server.server_close()


def main(argv: list[str] | None = None) -> int:
    """Runs all scenarios; returns 0 when every kill ended in a complete version."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.updates.power_loss", description=__doc__)
    parser.add_argument("--most", type=int, default=0, help="kill at so many steps of each scenario; 0: at each")
    parser.add_argument("--twice", action="store_true", help="kill the recovery too")
    arguments = parser.parse_args(argv)
    count = 0
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory(dir=FOLDER) as base:
            for failure in failures(scenario, Path(base), arguments.most, twice=arguments.twice):
                count += 1
                sys.stdout.write(f"FAILED {failure}\n")
    sys.stdout.write("every kill ended in a complete version\n" if not count else f"{count} failures\n")
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
