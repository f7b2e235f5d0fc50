"""The interface of installers, and what most of them have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from device_agent.host.execute import ExecuteError, run
from device_agent.updates.errors import UpdateError
from device_agent.updates.records import InstalledRelease
from schemas.updates import RestartMode, UpdateRefusalCode, UpdateTarget

REBOOT_SECONDS: Final = 60.0  # for the machine to accept the request
_SERVICE_SECONDS: Final = 120.0  # for a restart of a service


@dataclass(frozen=True, slots=True)
class VerifiedArtifact:
    """A verified target on the disk; `tree_digest` is that of the file set staged from it."""

    target: UpdateTarget
    file: Path
    tree_digest: str = ""


@dataclass(frozen=True, slots=True)
class RebootControl:
    """Reboots the machine; `boot_id` identifies the present boot."""

    boot_id: str
    reboot_argv: tuple[str, ...] = ("systemctl", "reboot")

    def reboot(self) -> None:
        """Requests a reboot (ExecuteError: refused)."""
        run(self.reboot_argv, seconds=REBOOT_SECONDS)


class TargetInstaller(Protocol):
    """Installs one kind of target.

    Raises:
        UpdateError: from `stage`, `install`, `roll_back` and `confirm`.
    """

    @property
    def is_repeatable(self) -> bool:
        """Whether `install` may run again after it was killed."""
        ...

    @property
    def needs_download_for_rollback(self) -> bool:
        """Whether a rollback needs the downloaded file."""
        ...

    @property
    def has_slots(self) -> bool:
        """Whether `install` overwrites the version before the running one, and `installed` is the one that runs."""
        ...

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Prepares the installation, changing nothing in use; returns the digest of a file set, or an empty text."""
        ...

    def install(self, artifact: VerifiedArtifact) -> None:
        """Installs what was staged."""
        ...

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """Returns the installed version; empty: none, or it differs from the recorded `release`."""
        ...

    def roll_back(self, failed: UpdateTarget, previous: InstalledRelease | None) -> None:
        """Installs the previous release again (None: there was none), from any state; repeatable."""
        ...

    def confirm(self, target: UpdateTarget) -> None:
        """Makes the installation permanent."""
        ...

    def needs_restart(self, target: UpdateTarget) -> bool:
        """Returns whether the machine, or the agent, has to restart before the new version runs."""
        ...

    def restart(self) -> None:
        """Requests that restart, which ends this process (ExecuteError: refused)."""
        ...

    @property
    def restart_id(self) -> str:
        """Differs after each `restart`."""
        ...

    def resolve_program(self, target: UpdateTarget, name: str) -> str:
        """Returns the path of a health check program; relative names are inside what was installed."""
        ...

    def prune(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Removes other releases than these."""
        ...


class RebootingInstaller:
    """The common part of installers that need no confirmation, and reboot where the target says so."""

    has_slots = False

    def __init__(self, machine: RebootControl) -> None:
        self._machine = machine

    @property
    def restart_id(self) -> str:
        """The boot id."""
        return self._machine.boot_id

    def confirm(self, target: UpdateTarget) -> None:
        """Does nothing: every installation is permanent."""

    def needs_restart(self, target: UpdateTarget) -> bool:
        return target.restart is RestartMode.REBOOT

    def restart(self) -> None:
        self._machine.reboot()

    def resolve_program(self, target: UpdateTarget, name: str) -> str:
        """Returns the name: it is absolute, or found on the PATH."""
        del target
        return name

    def prune(self, name: str, keep: tuple[InstalledRelease, ...]) -> None:
        """Does nothing: no other releases are stored."""


def restart_service(target: UpdateTarget) -> None:
    """Restarts the service that a target names, if any (UpdateError)."""
    if target.restart is not RestartMode.SERVICE:
        return
    try:
        run(["systemctl", "restart", target.restart_service], seconds=_SERVICE_SECONDS)
    except ExecuteError as e:
        raise UpdateError(UpdateRefusalCode.INSTALL, f"{target.restart_service} cannot be restarted: {e}") from e
