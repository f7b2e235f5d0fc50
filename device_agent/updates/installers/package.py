"""Packages: put in place by apt, dnf, apk or opkg from the verified file; the file of the version before is kept."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.host.apt import UNATTENDED, apt_get
from device_agent.host.execute import ExecuteError, run
from device_agent.host.packages import installed as installed_package
from device_agent.host.packages import manager_of, scheme_of
from device_agent.host.system import System
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from schemas.updates import InstallerKind, RestartMode, UpdateRefusalCode, UpdateTarget

_LISTS_SECONDS: Final = 300.0
_QUIET: Final = (
    "-y",
    "--allow-downgrades",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "DPkg::Lock::Timeout=60",
)
# How a verified file is installed, a version named, a package removed; TUF has verified what `allow` takes on trust.
_FILE: Final[Mapping[InstallerKind, tuple[str, ...]]] = {
    InstallerKind.DNF: ("dnf", "-q", "-y", "--nogpgcheck", "install", "--"),
    InstallerKind.APK: ("apk", "-q", "add", "--allow-untrusted"),
    InstallerKind.OPKG: ("opkg", "install", "--force-downgrade"),
}
_REMOVE: Final[Mapping[InstallerKind, tuple[str, ...]]] = {
    InstallerKind.DNF: ("dnf", "-q", "-y", "remove", "--"),
    InstallerKind.APK: ("apk", "-q", "del"),
    InstallerKind.OPKG: ("opkg", "remove"),
}
_NAMED: Final[Mapping[InstallerKind, str]] = {InstallerKind.APT: "=", InstallerKind.DNF: "-", InstallerKind.APK: "="}


class PackageInstaller:
    """One package manager. `files` is where verified files are kept."""

    is_repeatable = True
    keeps_files = True

    def __init__(self, word: InstallerKind, files: Path, system: System, machine: RebootControl) -> None:
        self._word = word
        self._files = files
        self._system = system
        self._machine = machine

    @property
    def run_id(self) -> str:
        """The machine's boot."""
        return self._machine.boot_id

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Look that the package is what the target says, and that its manager would take it."""
        if not self._system.is_root_user:
            raise UpdateError(UpdateRefusalCode.INSTALL, "packages are installed by root only")
        scheme = scheme_of(self._system)
        if scheme is None or manager_of(scheme) != self._word:
            here = manager_of(scheme) if scheme else "no package manager that is known"
            raise UpdateError(UpdateRefusalCode.NOT_FOR_THIS_DEVICE, f"it is for {self._word}, and here is {here}")
        if self._word is InstallerKind.APT:
            self._check_deb(artifact)
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Install the file; what was left half by a power loss is finished first."""
        self._install_file(artifact.file, artifact.target)

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """As the package database says."""
        del release
        package = installed_package(self._system, name)
        # rpm tells an epoch of nothing too, which no target is signed with.
        return "" if package is None else package.version.removeprefix("0:")

    def go_back(self, bad: UpdateTarget, to: InstalledRelease | None) -> None:
        """Install the kept file of the version before, or that version from the sources; without one remove it."""
        if to is None:
            self._run(self._remove(bad.name), bad)
            return
        if self.installed(bad.name, to) == to.version and self._word is not InstallerKind.APT:
            return
        kept = self._files / bad.name / to.version / to.file
        if to.file and kept.is_file():
            self._install_file(kept, bad)
            return
        if self._word not in _NAMED:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"the package of {to.version} is not there any more")
        named = f"{bad.name}{_NAMED[self._word]}{to.version}"
        if self._word is InstallerKind.APT:
            self._mend()
            self._run(apt_get(self._system, *_QUIET, "install", "--", named), bad)
        else:
            self._run(
                ["dnf", "-q", "-y", "downgrade", "--", named]
                if self._word is InstallerKind.DNF
                else ["apk", "-q", "add", named],
                bad,
            )

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
        """The package manager keeps nothing."""

    def _check_deb(self, artifact: VerifiedArtifact) -> None:
        target = artifact.target
        try:
            says = run(["dpkg-deb", "-f", str(artifact.file), "Package", "Version"]).out
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} is no Debian package: {e}") from e
        fields = dict(line.split(": ", 1) for line in says.splitlines() if ": " in line)
        if (fields.get("Package"), fields.get("Version")) != (target.name, target.version):
            found = f"{fields.get('Package')} {fields.get('Version')}"
            text = f"the package is {found}, signed as {target.name} {target.version}"
            raise UpdateError(UpdateRefusalCode.MISMATCH, text)
        # What it depends on comes from the sources of this device, whose signatures apt verifies itself; without the
        # network what is installed may still be enough.
        with contextlib.suppress(ExecuteError):
            run(apt_get(self._system, "update"), seconds=_LISTS_SECONDS, environment=UNATTENDED)
        simulated = apt_get(self._system, *_QUIET, "-s", "install", "--", str(artifact.file))
        self._run(simulated, target, "apt would not install it")

    def _install_file(self, file: Path, target: UpdateTarget) -> None:
        if self._word is InstallerKind.APT:
            self._mend()
            self._run(apt_get(self._system, *_QUIET, "install", "--", str(file)), target)
            return
        self._run([*_FILE[self._word], str(file)], target)

    def _mend(self) -> None:
        """Finish what dpkg was doing when the power went."""
        if self._system.is_live:
            try:
                run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], seconds=_LISTS_SECONDS)
            except ExecuteError:
                return  # apt says what is wrong, and the new version may be what mends it

    def _remove(self, name: str) -> list[str]:
        if self._word is InstallerKind.APT:
            return apt_get(self._system, *_QUIET, "remove", "--", name)
        return [*_REMOVE[self._word], name]

    def _run(self, argv: list[str], target: UpdateTarget, what: str = "") -> None:
        try:
            run(argv, seconds=float(target.seconds), environment=UNATTENDED)
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{what}: {e}" if what else str(e)) from e
