"""The agent itself: a one-file agent in the inactive slot, started on trial by the launcher, confirmed by itself."""

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
_START_SECONDS: Final = 60.0  # in addition to the health check, until the new agent is confirmed


class AgentInstaller:
    """Installs agents to two slots."""

    is_repeatable = True
    needs_download_for_rollback = False
    has_slots = False  # the launcher starts the new slot only on trial, whatever was interrupted

    def __init__(
        self, slots: AgentSlots, request_restart: Callable[[], None], environment: Mapping[str, str] | None = None
    ) -> None:
        self._slots = slots
        self._environment = os.environ if environment is None else environment
        self._request_restart = request_restart
        self._restart_id = uuid.uuid4().hex

    @property
    def restart_id(self) -> str:
        """Identifies this process."""
        return self._restart_id

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Checks the version that the agent prints, and copies it to the inactive slot."""
        if LAUNCHER_VARIABLE not in self._environment:
            text = "the agent updates itself only when it is started with cordon-agent launch"
            raise UpdateError(UpdateRefusalCode.NOT_FOR_THIS_DEVICE, text)
        if not zipfile.is_zipfile(artifact.file):
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} is no one-file agent")
        expected = f"cordon-agent {artifact.target.version}"
        try:
            printed = run([sys.executable, str(artifact.file), "--version"], seconds=_VERSION_SECONDS).stdout.strip()
            if printed != expected:
                raise UpdateError(
                    UpdateRefusalCode.MISMATCH, f"it prints {printed[:64]!r}, but is signed as {expected!r}"
                )
            file = self._slots.file(self._slots.inactive_slot()).with_suffix(".new")
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(artifact.file, file)
            sync_file(file)
            file.replace(self._slots.file(self._slots.inactive_slot()))
            sync_folder(file.parent)
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"it does not start: {e}") from e
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"the slot cannot be written: {e.strerror}") from e
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Starts a trial: the launcher runs the new agent at the next start."""
        slot, state = self._slots.inactive_slot(), self._slots.state()
        deadline = time.time() + artifact.target.health.seconds + _START_SECONDS
        versions = {**state.versions, slot: artifact.target.version}
        trial = SlotTrial(slot=slot, deadline=deadline)
        self._slots.save(state.model_copy(update={"versions": versions, "trial": trial}))

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """Returns the running version."""
        del name, release
        slot = self._environment.get(SLOT_VARIABLE, "")
        return self._slots.state().versions.get(slot, "") if slot else __version__

    def roll_back(self, failed: UpdateTarget, previous: InstalledRelease | None) -> None:
        """Activates the slot of the previous version, which runs after a restart."""
        del failed
        versions = self._slots.state().versions
        slots: tuple[SlotName, ...] = ("a", "b")
        expected = "" if previous is None else previous.version
        active = self._slots.state().active
        candidates = [slot for slot in slots if versions.get(slot) == expected and self._slots.file(slot).is_file()]
        self._slots.activate(active if active in candidates else candidates[0] if candidates else "")

    def confirm(self, target: UpdateTarget) -> None:
        """Makes the running version permanent."""
        del target
        self._slots.confirm()

    def needs_restart(self, target: UpdateTarget) -> bool:
        """Returns True: a running program cannot be replaced."""
        del target
        return True

    def restart(self) -> None:
        """Stops the agent; the launcher then starts the agent on trial."""
        self._request_restart()

    def resolve_program(self, target: UpdateTarget, name: str) -> str:
        """Returns the name: it is absolute, or found on the PATH."""
        del target
        return name

    def prune(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Does nothing: there are always two slots."""
