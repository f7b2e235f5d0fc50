"""Scripts: run once in a bounded process, and run again with another step to undo what they did.

The environment tells the step: CORDON_UPDATE_STEP is `install` or `rollback`, with CORDON_UPDATE_NAME and
CORDON_UPDATE_VERSION. What is killed in the middle is not run again as `install`.
"""

import shutil
from pathlib import Path
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import write_whole
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from schemas.updates import RestartMode, UpdateRefusalCode, UpdateTarget

_MAX_OUTPUT: Final = 1024 * 1024  # bytes
_SCRIPT: Final = "script"
_DONE: Final = "installed"


class ScriptInstaller:
    """Keeps scripts below `folder`, one for each version that may have to be undone."""

    is_repeatable = False
    keeps_files = False

    def __init__(self, folder: Path, machine: RebootControl) -> None:
        self._folder = folder
        self._machine = machine

    @property
    def run_id(self) -> str:
        """The machine's boot."""
        return self._machine.boot_id

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Copy it to where it can be run."""
        place = self._folder / artifact.target.name / artifact.target.version / _SCRIPT
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(place, place.with_name(".new"), artifact.file.read_bytes(), mode=0o700)
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} cannot be kept: {e.strerror}") from e
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Run it, and write down that it ended well."""
        self._run(artifact.target, "install")
        self._write(artifact.target.name, artifact.target.version)

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """The version whose script ended well last."""
        del release
        try:
            return (self._folder / name / _DONE).read_text().strip()
        except OSError:
            return ""

    def go_back(self, bad: UpdateTarget, to: InstalledRelease | None) -> None:
        """Let the script undo what it did."""
        self._run(bad, "rollback")
        self._write(bad.name, "" if to is None else to.version)

    def confirm(self, target: UpdateTarget) -> None:
        """There is nothing to do."""

    def needs_restart(self, target: UpdateTarget) -> bool:
        """Only where the target says so."""
        return target.restart is RestartMode.REBOOT

    def restart(self) -> None:
        """The machine."""
        self._machine.reboot()

    def program(self, target: UpdateTarget, name: str) -> str:
        """Found on the PATH, or absolute."""
        del target
        return name

    def tidy(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Forget the scripts of other versions."""
        kept = {release.version for release in keep}
        place = self._folder / name
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _run(self, target: UpdateTarget, step: str) -> None:
        script = self._folder / target.name / target.version / _SCRIPT
        environment = {
            "CORDON_UPDATE_STEP": step,
            "CORDON_UPDATE_NAME": target.name,
            "CORDON_UPDATE_VERSION": target.version,
        }
        try:
            run(
                [str(script), *target.arguments],
                seconds=float(target.seconds),
                environment=environment,
                max_bytes=_MAX_OUTPUT,
            )
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{step}: {e}") from e

    def _write(self, name: str, version: str) -> None:
        place = self._folder / name / _DONE
        try:
            write_whole(place, place.with_name(".installed.new"), version.encode())
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{place}: {e.strerror}") from e
