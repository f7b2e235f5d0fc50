"""Kills a device at every step of an update, as a power loss would, and looks what the next start makes of it.

`python -m tests.integration.updates.power_loss [--most N] [--twice]`: for each story it counts the steps of a run that
nobody disturbs: named ones, and everything that touches a file or starts a program below the device's folder. Then it
runs the story once for each step in a process of its own that gets SIGKILL there, starts it again, and looks at what is
there.
What a disk loses that had not been synced is not played: the product syncs before it renames.
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

# What Python tells before it touches a file, a folder, a link or another program.
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
_ENDED, _TELLS_OTHERWISE = 0, 7
# Killing a process loses nothing that was written, so that a slow disk would only cost time.
PLACE: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def app(version: str, *, healthy: bool = True) -> bytes:
    """A file set of several files that all have to be of one version."""
    files = {f"data/{number}": f"{version} {number}\n" * 400 for number in range(3)}
    files["bin/check"] = f"#!/bin/sh\nexit {0 if healthy else 3}\n"
    return archive({**files, "version": version}, executable=("bin/check",))


@dataclass(frozen=True, slots=True)
class Story:
    """One update; `ends` are the versions that may be there when all is over."""

    name: str
    before: tuple[str, ...]
    wanted: str
    healthy: bool
    ends: frozenset[str]
    goes_back: bool = False


STORIES: Final = (
    Story("first install", (), "1.0", healthy=True, ends=frozenset({"1.0"})),
    Story("update", ("1.0",), "1.1", healthy=True, ends=frozenset({"1.1"})),
    Story("unhealthy update", ("1.0",), "1.1", healthy=False, ends=frozenset({"1.0"})),
    Story("going back", ("1.0", "1.1"), "1.1", healthy=True, ends=frozenset({"1.0"}), goes_back=True),
)


class Killer:
    """Counts steps, and sends SIGKILL at the one that it was told; 0: never."""

    def __init__(self, at: int, below: Path, log: Path | None = None) -> None:
        self.count = 0
        self._at = at
        self._below = str(below)
        self._log: list[str] = []
        self._path = log
        self._mutex = threading.Lock()
        sys.addaudithook(self._heard)

    def step(self, name: str) -> None:
        """One step."""
        with self._mutex:
            self.count += 1
            self._log.append(name)
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and arguments and str(arguments[0]).startswith(self._below):
            self.step(f"{event} {arguments[0]}")

    def write(self) -> None:
        """The steps of a whole run, for the parent."""
        if self._path is not None:
            self._path.write_text(json.dumps(self._log))


class Harness:
    """One story's repository, server, and a device as it is before."""

    def __init__(self, base: Path, story: Story) -> None:
        self.story = story
        self.base = base
        self.made: Repository = repository(base / "repository")
        self.key = Ed25519PrivateKey.generate()
        self.server = UpdateServer(self.made.served)
        orders: list[InstallParams] = []
        for version in (*story.before, story.wanted):
            if version not in {one.version for one in orders}:
                healthy = story.healthy or version != story.wanted
                found = self.made.publish("edge-app", version, app(version, healthy=healthy), health=CHECK)
                orders.append(order(found))
        self.order = orders[-1]
        self.template = base / "template"
        self.orders_before = orders[: len(story.before)]

    def prepare(self) -> None:
        """The device as it is before, in a process of its own like all others."""
        assert _in_a_process(self._prepare) == _ENDED

    def play(self, kill_at: int, log: Path | None = None) -> int:
        """The story from its beginning in `work`, killed at a step; the exit status, -9 when it was."""
        work = self.base / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self.template, work, symlinks=True)
        return _in_a_process(lambda: self._go(kill_at, is_first=True, log=log))

    def again(self, kill_at: int = 0) -> int:
        """The next start."""
        return _in_a_process(lambda: self._go(kill_at, is_first=False))

    def complaint(self) -> str:
        """What is wrong with what is there; empty: one whole version that may be there, and told so."""
        current = self.base / "work/state/updates/sets/edge-app/current"
        version = (current / "version").read_text() if current.exists() else ""
        if version not in self.story.ends:
            return f"version {version or 'none'} is there, not one of {sorted(self.story.ends)}"
        for number in range(3):
            if (current / f"data/{number}").read_text() != f"{version} {number}\n" * 400:
                return f"data/{number} is not of version {version}"
        told = json.loads((self.base / "told.json").read_text())
        if (told["version"], told["health"]) != (version, "ok"):
            return f"the report tells {told}, and {version} is there"
        return ""

    def _device(self, base: Path) -> UpdateDevice:
        return UpdateDevice(base, self.server.url, self.made.first_root, key=self.key)

    def _prepare(self) -> int:
        device = self._device(self.template)
        for one in self.orders_before:
            assert device.install(one).state is CommandState.SUCCEEDED
        device.stop()
        return _ENDED

    def _go(self, kill_at: int, *, is_first: bool, log: Path | None = None) -> int:
        killer = Killer(kill_at, self.base / "work", log)
        work = self.base / "work"
        device = UpdateDevice(work, self.server.url, self.made.first_root, key=self.key, step=killer.step)
        # A device that was killed before it took the order hears it again, as the controller would send it.
        if device.journal.entry("story") is None:
            story = self.story
            params = (
                RollbackParams(name="edge-app", version=story.wanted).params()
                if story.goes_back
                else self.order.params()
            )
            device.send(ROLL_BACK if story.goes_back else INSTALL, params, command_id="story", counter=1000)
            device.ended()
        elif not is_first and device.journal.unfinished():
            device.ended()
        device.stop()
        killer.write()
        told = self.base / "told.json"
        told.write_text(device.entry().model_dump_json())
        return _ENDED


def _in_a_process(work: Callable[[], int]) -> int:
    """Run it in a fork of this process, which has loaded everything; the exit status, negative for a signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = _TELLS_OTHERWISE
        try:
            status = work()
        except BaseException as e:  # noqa: BLE001 - a fork must never go on as its parent
            sys.stderr.write(f"{type(e).__name__}: {e}\n")
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _served(harness: Harness) -> int:
    """The server as a process, so that this one has a single thread when it forks."""
    child = os.fork()
    if child == 0:
        harness.server._server.serve_forever(0.05)
    return child


def failures(story: Story, base: Path, most: int, *, twice: bool = False) -> Iterator[str]:
    """Play a story with a kill at each step, or at `most` of them spread over the whole; what went wrong."""
    harness = Harness(base, story)
    server = _served(harness)
    try:
        harness.prepare()
        steps = base / "steps.json"
        if harness.play(0, steps) != _ENDED or harness.complaint():
            yield f"{story.name}: undisturbed: {harness.complaint()}"
            return
        names = json.loads(steps.read_text())
        chosen = range(1, len(names) + 1, max(1, -(-len(names) // most)) if most else 1)
        sys.stdout.write(f"{story.name}: {len(names)} steps, killed at {len(chosen)}\n")
        for kill_at in chosen:
            if harness.play(kill_at) != -signal.SIGKILL:
                yield f"{story.name}: step {kill_at} was not reached again"
                continue
            if twice:
                # The recovery is killed too, early and late.
                harness.again(1 + kill_at % 17)
            if (status := harness.again()) != _ENDED:
                yield f"{story.name}: killed at {kill_at} ({names[kill_at - 1]}): the next start ended with {status}"
            elif wrong := harness.complaint():
                yield f"{story.name}: killed at {kill_at} ({names[kill_at - 1]}): {wrong}"
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        harness.server._server.server_close()


def main(argv: list[str] | None = None) -> int:
    """Play all stories; 0 when every kill ended in a whole version."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.updates.power_loss", description=__doc__)
    parser.add_argument("--most", type=int, default=0, help="kill at so many steps of each story; 0: at each")
    parser.add_argument("--twice", action="store_true", help="kill the recovery too")
    arguments = parser.parse_args(argv)
    count = 0
    for story in STORIES:
        with tempfile.TemporaryDirectory(dir=PLACE) as base:
            for wrong in failures(story, Path(base), arguments.most, twice=arguments.twice):
                count += 1
                sys.stdout.write(f"FAILED {wrong}\n")
    sys.stdout.write("every kill ended in a whole version\n" if not count else f"{count} failures\n")
    return 1 if count else 0


if __name__ == "__main__":
    raise SystemExit(main())
