"""Scripts: run once with a time limit, and run again with another step to undo what they did.

The environment has the step: CORDON_UPDATE_STEP is `install` or `rollback`, with CORDON_UPDATE_NAME and
CORDON_UPDATE_VERSION. A script that was killed is not run again as `install`.
"""

import shutil
from pathlib import Path
from typing import Final

from device_agent.host.execute import ExecuteError, run
from device_agent.host.files import write_whole
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, RebootingInstaller, VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from schemas.updates import UpdateRefusalCode, UpdateTarget

_MAX_OUTPUT_BYTES: Final = 1024 * 1024
_SCRIPT: Final = "script"
_INSTALLED: Final = "installed"


class ScriptInstaller(RebootingInstaller):
    """Stores scripts below `folder`: one for each version that may have to be undone."""

    is_repeatable = False
    needs_download_for_rollback = False

    def __init__(self, folder: Path, machine: RebootControl) -> None:
        super().__init__(machine)
        self._folder = folder

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Stores an executable copy of the script."""
        path = self._folder / artifact.target.name / artifact.target.version / _SCRIPT
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, path.with_name(".new"), artifact.file.read_bytes(), mode=0o700)
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} cannot be stored: {e.strerror}") from e
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Runs the script, then records its version."""
        self._run(artifact.target, "install")
        self._record_installed(artifact.target.name, artifact.target.version)

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """Returns the version of the last script that succeeded."""
        del release
        try:
            return (self._folder / name / _INSTALLED).read_text().strip()
        except OSError:
            return ""

    def roll_back(self, failed: UpdateTarget, previous: InstalledRelease | None) -> None:
        """Runs the script with the step `rollback`."""
        self._run(failed, "rollback")
        self._record_installed(failed.name, "" if previous is None else previous.version)

    def prune(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Removes the scripts of other versions."""
        kept = {release.version for release in keep}
        folder = self._folder / name
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _run(self, target: UpdateTarget, step: str) -> None:
        script = self._folder / target.name / target.version / _SCRIPT
        environment = {
            "CORDON_UPDATE_STEP": step,
            "CORDON_UPDATE_NAME": target.name,
            "CORDON_UPDATE_VERSION": target.version,
        }
        argv, seconds = [str(script), *target.arguments], float(target.seconds)
        try:
            run(argv, seconds=seconds, environment=environment, max_bytes=_MAX_OUTPUT_BYTES)
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{step}: {e}") from e

    def _record_installed(self, name: str, version: str) -> None:
        path = self._folder / name / _INSTALLED
        try:
            write_whole(path, path.with_name(".installed.new"), version.encode())
        except OSError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{path}: {e.strerror}") from e
