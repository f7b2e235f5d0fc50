"""A/B images, through a hook: a program that knows the update system of this device (RAUC, SWUpdate, Mender, its own).

`HOOK install FILE VERSION` writes the slot that is not running and lets the next start try it; `HOOK version` prints
the version of the slot that runs; `HOOK confirm` keeps the running slot; `HOOK rollback` lets the next start take the
other one, and does nothing where the new one was never started. Each ends with status 0 when it is done.
"""

from pathlib import Path
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from schemas.updates import RestartMode, UpdateRefusalCode, UpdateTarget

_ASK_SECONDS: Final = 30.0
_MAX_VERSION: Final = 64


class ImageInstaller:
    """Images by a hook."""

    is_repeatable = True
    keeps_files = False

    def __init__(self, hook: Path, machine: RebootControl) -> None:
        self._hook = str(hook)
        self._machine = machine

    @property
    def run_id(self) -> str:
        """The machine's boot."""
        return self._machine.boot_id

    def stage(self, artifact: VerifiedArtifact) -> str:
        """The hook writes straight to the slot that is not running."""
        if not artifact.file.is_file():
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} is not there any more")
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Write the other slot; again from the start after a power loss."""
        self._ask("install", str(artifact.file), artifact.target.version, seconds=float(artifact.target.seconds))

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """What runs; before the restart that is still the version before."""
        del name, release
        try:
            return run([self._hook, "version"], seconds=_ASK_SECONDS).out.strip()[:_MAX_VERSION]
        except ExecuteError:
            return ""

    def go_back(self, bad: UpdateTarget, to: InstalledRelease | None) -> None:
        """The other slot again."""
        del bad, to
        self._ask("rollback")

    def confirm(self, target: UpdateTarget) -> None:
        """The running slot stays."""
        del target
        self._ask("confirm")

    def needs_restart(self, target: UpdateTarget) -> bool:
        """An image runs after the next start, unless the target says that its hook does without."""
        return target.restart is not RestartMode.NONE

    def restart(self) -> None:
        """The machine."""
        self._machine.reboot()

    def program(self, target: UpdateTarget, name: str) -> str:
        """Found on the PATH, or absolute."""
        del target
        return name

    def tidy(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """There are always two slots."""

    def _ask(self, *words: str, seconds: float = _ASK_SECONDS) -> None:
        try:
            run([self._hook, *words], seconds=seconds)
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{words[0]}: {e}") from e
