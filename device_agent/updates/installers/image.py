"""A/B images through a hook: a program for the update system of this device (RAUC, SWUpdate, Mender, its own).

`HOOK install FILE VERSION` writes the inactive slot and selects it for a trial at the next boot; `HOOK version` prints
the version of the running slot; `HOOK confirm` keeps the running slot; `HOOK rollback VERSION` keeps the running slot
if this is its version, and else selects the other one for the next boot. Each ends with status 0 on success, and can be
repeated. Before anything is written, the hook is asked which version runs: see `Updater`.
"""

from pathlib import Path
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, RebootingInstaller, VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from schemas.updates import RestartMode, UpdateRefusalCode, UpdateTarget

_HOOK_SECONDS: Final = 30.0
_MAX_VERSION: Final = 64


class ImageInstaller(RebootingInstaller):
    """Installs images by a hook."""

    is_repeatable = True
    needs_download_for_rollback = False
    has_slots = True

    def __init__(self, hook: Path, machine: RebootControl) -> None:
        super().__init__(machine)
        self._hook = str(hook)

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Checks that the file exists and the running version is known: the hook writes straight to the other slot."""
        if not artifact.file.is_file():
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} does not exist any more")
        if not self._running():
            raise UpdateError(
                UpdateRefusalCode.INSTALL, "the hook does not print the running version: nothing is written"
            )
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Writes the inactive slot, from the start after a power loss."""
        self._run_hook("install", str(artifact.file), artifact.target.version, seconds=float(artifact.target.seconds))

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """Returns the running version: before the reboot that is the previous one."""
        del name, release
        return self._running()

    def _running(self) -> str:
        try:
            return run([self._hook, "version"], seconds=_HOOK_SECONDS).stdout.strip()[:_MAX_VERSION]
        except ExecuteError:
            return ""

    def roll_back(self, failed: UpdateTarget, previous: InstalledRelease | None) -> None:
        """Selects the slot of the previous release."""
        del failed
        if previous is None:
            raise UpdateError(UpdateRefusalCode.INSTALL, "the version before is unknown: the running slot stays")
        self._run_hook("rollback", previous.version)

    def confirm(self, target: UpdateTarget) -> None:
        """Keeps the running slot, which has to be that of the target: the boot loader may have left it."""
        version = self._running()
        if version != target.version:
            text = f"{version or 'an unknown version'} runs, not {target.version}: it is not confirmed"
            raise UpdateError(UpdateRefusalCode.INSTALL, text)
        self._run_hook("confirm")

    def needs_restart(self, target: UpdateTarget) -> bool:
        """Returns True unless the target says that its hook needs no reboot."""
        return target.restart is not RestartMode.NONE

    def _run_hook(self, *arguments: str, seconds: float = _HOOK_SECONDS) -> None:
        try:
            run([self._hook, *arguments], seconds=seconds)
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{arguments[0]}: {e}") from e
