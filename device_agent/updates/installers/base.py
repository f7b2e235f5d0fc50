"""What an installer is: it puts one kind of target in place, says what is there, and goes back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from device_agent.host.execute import ExecuteError, run
from device_agent.updates.errors import UpdateError
from device_agent.updates.records import InstalledRelease
from schemas.updates import RestartMode, UpdateRefusalCode, UpdateTarget

REBOOT_SECONDS: Final = 60.0  # for the machine to take the order
_SERVICE_SECONDS: Final = 120.0  # for a restart of a service


@dataclass(frozen=True, slots=True)
class VerifiedArtifact:
    """A verified target on the disk; `tree`: digest of the file set that was staged from it."""

    target: UpdateTarget
    file: Path
    tree: str = ""


@dataclass(frozen=True, slots=True)
class RebootControl:
    """The machine as installers that need a restart see it."""

    boot_id: str
    reboot_argv: tuple[str, ...] = ("systemctl", "reboot")

    def reboot(self) -> None:
        """Ask for a restart of the machine (ExecuteError: refused)."""
        run(self.reboot_argv, seconds=REBOOT_SECONDS)


class TargetInstaller(Protocol):
    """Puts one kind in place.

    Raises:
        UpdateError: from `stage`, `install`, `go_back` and `confirm`, when it cannot.
    """

    @property
    def is_repeatable(self) -> bool:
        """Whether `install` may run again after it was killed in the middle."""
        ...

    @property
    def keeps_files(self) -> bool:
        """Whether going back needs the file that was downloaded."""
        ...

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Make ready, changing nothing that is in use; the digest of what was made ready, or empty."""
        ...

    def install(self, artifact: VerifiedArtifact) -> None:
        """Put it in place."""
        ...

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """The version that is really there; empty: none, or not as it was installed (`release` as recorded)."""
        ...

    def go_back(self, bad: UpdateTarget, to: InstalledRelease | None) -> None:
        """Put the version before in place again (None: there was none), from whatever state; repeatable."""
        ...

    def confirm(self, target: UpdateTarget) -> None:
        """It stays."""
        ...

    def needs_restart(self, target: UpdateTarget) -> bool:
        """Whether the machine, or the agent, has to start anew before the new version runs."""
        ...

    def restart(self) -> None:
        """Start anew; this process ends with it."""
        ...

    @property
    def run_id(self) -> str:
        """What is another one after `restart`."""
        ...

    def program(self, target: UpdateTarget, name: str) -> str:
        """Where a program of the health check lies: relative names are inside what was installed."""
        ...

    def tidy(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Forget releases other than these."""
        ...


def restart_service(target: UpdateTarget) -> None:
    """Restarts the service that a target names, if any (UpdateError: it does not restart)."""
    if target.restart is not RestartMode.SERVICE:
        return
    try:
        run(["systemctl", "restart", target.restart_service], seconds=_SERVICE_SECONDS)
    except ExecuteError as e:
        raise UpdateError(UpdateRefusalCode.INSTALL, f"{target.restart_service} cannot be restarted: {e}") from e
