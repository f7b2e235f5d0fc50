"""The agent itself: a one-file agent in the slot that does not run, tried by the launcher, confirmed by itself."""

import os
import shutil
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from typing import Final

from device_agent import __version__
from device_agent.host.execute import SLOT_VARIABLE, ExecuteError, run
from device_agent.host.files import sync_file, sync_folder
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from device_agent.updates.slots import LAUNCHER_VARIABLE, AgentSlots, SlotName, SlotTrial
from schemas.updates import UpdateRefusalCode, UpdateTarget

_VERSION_SECONDS: Final = 60.0
_START_SECONDS: Final = 60.0  # beside the health check, until the new agent is confirmed


class AgentInstaller:
    """The two slots of the agent."""

    is_repeatable = True
    keeps_files = False

    def __init__(
        self, slots: AgentSlots, request_restart: Callable[[], None], environment: Mapping[str, str] | None = None
    ) -> None:
        self._slots = slots
        self._environment = os.environ if environment is None else environment
        self._request_restart = request_restart
        self._run_id = uuid.uuid4().hex

    @property
    def run_id(self) -> str:
        """This process."""
        return self._run_id

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Let it say its version, and copy it to the slot that does not run."""
        if LAUNCHER_VARIABLE not in self._environment:
            text = "the agent updates itself only when it is started with cordon-agent launch"
            raise UpdateError(UpdateRefusalCode.NOT_FOR_THIS_DEVICE, text)
        if not zipfile.is_zipfile(artifact.file):
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} is no one-file agent")
        wanted = f"cordon-agent {artifact.target.version}"
        try:
            said = run([sys.executable, str(artifact.file), "--version"], seconds=_VERSION_SECONDS).out.strip()
            if said != wanted:
                raise UpdateError(UpdateRefusalCode.MISMATCH, f"it says {said[:64]!r}, and is signed as {wanted!r}")
            fresh = self._slots.file(self._slots.free()).with_suffix(".new")
            fresh.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(artifact.file, fresh)
            sync_file(fresh)
            fresh.replace(self._slots.file(self._slots.free()))
            sync_folder(fresh.parent)
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"it does not start: {e}") from e
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"the slot cannot be written: {e.strerror}") from e
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Let the launcher try it at the next start."""
        slot, state = self._slots.free(), self._slots.state()
        deadline = time.time() + artifact.target.health.seconds + _START_SECONDS
        versions = {**state.versions, slot: artifact.target.version}
        trial = SlotTrial(slot=slot, deadline=deadline)
        self._slots.save(state.model_copy(update={"versions": versions, "trial": trial}))

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """What runs."""
        del name, release
        slot = self._environment.get(SLOT_VARIABLE, "")
        return self._slots.state().versions.get(slot, "") if slot else __version__

    def go_back(self, bad: UpdateTarget, to: InstalledRelease | None) -> None:
        """The slot of the version before is the active one again; it runs after a restart."""
        del bad
        versions = self._slots.state().versions
        slots: tuple[SlotName, ...] = ("a", "b")
        wanted = "" if to is None else to.version
        active = self._slots.state().active
        fitting = [slot for slot in slots if versions.get(slot) == wanted and self._slots.file(slot).is_file()]
        self._slots.go_back(active if active in fitting else fitting[0] if fitting else "")

    def confirm(self, target: UpdateTarget) -> None:
        """What runs is the active one."""
        del target
        self._slots.confirm()

    def needs_restart(self, target: UpdateTarget) -> bool:
        """Always: a running program does not become another one."""
        del target
        return True

    def restart(self) -> None:
        """Stop in order; the launcher starts what is to be tried."""
        self._request_restart()

    def program(self, target: UpdateTarget, name: str) -> str:
        """Found on the PATH, or absolute."""
        del target
        return name

    def tidy(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """There are always two slots."""
