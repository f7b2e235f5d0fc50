"""A machine with two slots whose power fails at any write: the hooks for RAUC, SWUpdate and Mender on fake tools.

The tools in `slot_tools` do what the documentation of the real ones says, one write at a time. The boot loader is
simulated here. Agent and machine run in this process: a power loss is an exception that no code of the agent catches,
or the SIGKILL of the hook. Slots hold `VERSION`, `VERSION broken` (it does not start), `VERSION sick` (its health check
fails) or `partial`.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast
from unittest import mock

from device_agent.actions.base import ActionError
from device_agent.actions.update import InstallRun, RollbackRun
from device_agent.errors import StoppedError
from device_agent.host.files import write_model
from device_agent.host.system import System
from device_agent.updates.installers.base import RebootControl, VerifiedArtifact
from device_agent.updates.installers.image import ImageInstaller
from device_agent.updates.records import InstalledRelease
from device_agent.updates.requirements import DeviceProfile
from device_agent.updates.tuf_client import TufClient, VerifiedTarget
from device_agent.updates.updater import Updater
from schemas.updates import (
    HealthCheck,
    InstallerKind,
    InstallParams,
    RestartMode,
    RollbackParams,
    UpdateKind,
    UpdateTarget,
)
from tests.support.clocks import ManualAgentClock
from tests.support.project_tree import ROOT

HOOKS: Final = ("rauc", "swupdate", "mender")
OLD: Final = "1.0"
NEW: Final = "1.1"
NAME: Final = "system"
_TOOLS: Final = Path(__file__).parent / "slot_tools"
_MAX_BOOTS: Final = 12  # until a command ends
_SHA: Final = "0" * 64


class PowerLostError(BaseException):
    """The power failed; not an `Exception`, so that nothing handles it."""


class BrickedError(AssertionError):
    """No slot starts any more."""


class _SlotInstaller(ImageInstaller):
    """The installer, which ends with the power when a tool lost it."""

    def __init__(self, machine: "TwoSlots") -> None:
        super().__init__(machine.hook, RebootControl(f"boot-{machine.boots}"))
        self._simulated = machine

    def restart(self) -> None:
        raise StoppedError

    def install(self, artifact: VerifiedArtifact) -> None:
        with self._simulated.power():
            super().install(artifact)

    def roll_back(self, failed: UpdateTarget, previous: InstalledRelease | None) -> None:
        with self._simulated.power():
            super().roll_back(failed, previous)

    def confirm(self, target: UpdateTarget) -> None:
        with self._simulated.power():
            super().confirm(target)


@dataclass
class TwoSlots:
    """`kill`: the power is lost before this write, counted over tools and agent; 0: never."""

    folder: Path
    kind: str
    kill: int = 0
    boots: int = 0
    kills: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualAgentClock()
        self.slots = self.folder / "slots"
        self.slots.mkdir(parents=True)
        for name, content in {"slot1": OLD, "slot2": "0.9", "running": "1", "good": "1", "writes": "0"}.items():
            self.put(name, content)
        self.put("kill", str(self.kill))
        first = {
            "rauc": "1 2 3 3",
            "swupdate": "cordon_slot=1\nbootcount=0\nupgrade_available=0",
            "mender": "mender_boot_part=1\nbootcount=0\nupgrade_available=0",
        }
        self.put("env", first[self.kind])
        self.hook = self.folder / "hook"
        self.hook.write_text(
            f"#!/bin/sh\nexport SLOTS={self.slots} TOOLS={_TOOLS} PATH={_TOOLS}:$PATH\n"
            f"export CORDON_OS_RELEASE={self.slots}/os-release CORDON_CMDLINE={self.slots}/cmdline\n"
            f'exec {ROOT}/deploy/update-hooks/{self.kind} "$@"\n'
        )
        self.hook.chmod(0o755)
        self.boot()

    def get(self, name: str) -> str:
        path = self.slots / name
        return path.read_text() if path.exists() else ""

    def put(self, name: str, content: str) -> None:
        (self.slots / name).write_text(content)

    @property
    def running(self) -> str:
        """The content of the running slot."""
        return self.get(f"slot{self.get('running')}")

    @property
    def writes(self) -> int:
        return int(self.get("writes"))

    def write(self, what: str) -> None:
        """One write of the agent."""
        count = self.writes + 1
        self.put("writes", str(count))
        if count == self.kill:
            self.kills.append(what)
            raise PowerLostError

    @contextmanager
    def power(self) -> Iterator[None]:
        """Turns a failure into the loss of power that a tool met."""
        try:
            yield
        finally:
            if (self.slots / "power_lost").exists():
                self.kills.append("a tool")
                (self.slots / "power_lost").unlink()
                raise PowerLostError

    def boot(self) -> None:
        """Starts a slot as the boot loader does.

        Raises:
            BrickedError: none starts.
        """
        self.boots += 1
        starters: dict[str, Callable[[], str]] = {
            "rauc": self._boot_order, "swupdate": self._boot_counted, "mender": self._boot_counted,
        }  # fmt: skip
        for _ in range(8):  # resets by the watchdog
            slot = starters[self.kind]()
            content = self.get(f"slot{slot}")
            if content and content != "partial" and not content.endswith("broken"):
                self.put("running", slot)
                if self.kind == "rauc":
                    self._mark_good(slot)
                self.put("os-release", f"ID=test\nVERSION_ID={content.split()[0]}\n")
                self.put("cmdline", f"console=ttyS0 root=/dev/mmcblk0p{slot} cordon.slot={slot} rw\n")
                return
        raise BrickedError(f"no slot starts: {self.get('slot1')!r}, {self.get('slot2')!r}, {self.get('env')!r}")

    def _boot_order(self) -> str:
        first, second, *left = self.get("env").split()
        counts = [int(one) for one in left]
        for slot in (first, second):
            if counts[int(slot) - 1] > 0:
                counts[int(slot) - 1] -= 1
                self.put("env", f"{first} {second} {counts[0]} {counts[1]}")
                return slot
        raise BrickedError(f"no attempts are left: {self.get('env')!r}")

    def _mark_good(self, slot: str) -> None:
        """As rauc-mark-good.service does in a system that has started."""
        first, second, *left = self.get("env").split()
        left[int(slot) - 1] = "3"
        self.put("env", " ".join((first, second, *left)))

    def _boot_counted(self) -> str:
        key = "cordon_slot" if self.kind == "swupdate" else "mender_boot_part"
        env = dict(line.split("=", 1) for line in self.get("env").splitlines())
        if env["upgrade_available"] == "1":
            env["bootcount"] = str(int(env["bootcount"]) + 1)
            if int(env["bootcount"]) > 1:
                env |= {key: "2" if env[key] == "1" else "1", "upgrade_available": "0", "bootcount": "0"}
            self.put("env", "\n".join(f"{name}={value}" for name, value in env.items()))
        return env[key]

    def violations(self) -> str:
        """What was written that must not be; empty if nothing."""
        return self.get("violations")

    def _updater(self, image: str) -> Updater:
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        target = UpdateTarget(
            name=NAME, version=NEW, kind=UpdateKind.IMAGE, installer=InstallerKind.HOOK, classes=("*",),
            restart=RestartMode.REBOOT, health=HealthCheck(command=("/bin/true",), seconds=1),
        )  # fmt: skip

        def download(path: Path, _on_bytes: object, _crash_point: object) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(image)

        client = mock.Mock(spec=TufClient)
        client.get_verified_target.return_value = VerifiedTarget(target, download)
        installer = _SlotInstaller(self)
        device = DeviceProfile("", (), False, state, System())
        stopping = threading.Event()
        return Updater(
            device, cast("TufClient", client), {InstallerKind.HOOK: installer}, self.clock, stopping,
            crash_point=self.write,
        )  # fmt: skip

    def order(self) -> InstallParams:
        return InstallParams(
            target=f"{NAME}/{NEW}/system.img", version=NEW, sha256=_SHA, length=10,
            deadline=datetime.fromtimestamp(self.clock.at, UTC) + timedelta(days=1),
        )  # fmt: skip

    def install(self, image: str) -> str:
        """Carries the command out through every power loss and restart; returns how it ended."""
        params = self.order().params()
        return self._until_ended(image, lambda updater: InstallRun(updater, "install", lambda _progress: None), params)

    def go_back(self) -> str:
        """Orders the version before; returns how it ended."""
        params = RollbackParams(name=NAME, version=NEW).params()
        return self._until_ended("", lambda updater: RollbackRun(updater, "back"), params)

    def _until_ended(self, image: str, bind: Callable[[Updater], Any], params: Any) -> str:
        def counted(path: Path, model: Any) -> None:
            self.write(f"record of {path.name}")
            write_model(path, model)

        with mock.patch("device_agent.updates.records.write_model", counted):
            for _ in range(_MAX_BOOTS):
                try:
                    return self._run(self._updater(image), bind, params)
                except (StoppedError, PowerLostError):
                    self.boot()
        raise AssertionError(f"not ended after {_MAX_BOOTS} boots")

    def _run(self, updater: Updater, bind: Callable[[Updater], Any], params: Any) -> str:
        """As the executor carries out a command, with a broker that is reached unless the version is sick."""
        action = bind(updater)
        try:
            action.apply(params, {})
            is_done = action.verify(params, {}).is_reached and not self.running.endswith("sick")
            if is_done and isinstance(action, InstallRun):
                action.commit(params, {})
        except ActionError:
            is_done = False
        if not is_done:
            action.undo(params, {})
        self.put("good", self.get("running"))
        return str(updater.ledger.load(NAME).outcome)

    def copy(self, folder: Path, kill: int) -> "TwoSlots":
        """The machine as it is, in another folder, with its power to be lost before a later write."""
        made = TwoSlots(folder, self.kind)
        shutil.copytree(self.slots, made.slots, dirs_exist_ok=True)
        shutil.copytree(self.folder / "state", folder / "state")
        made.kill, made.boots = kill, self.boots
        made.put("kill", str(kill))
        return made
