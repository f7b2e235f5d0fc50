"""Packages: installed by apt, dnf, apk or opkg from the verified file; the file of the previous version is kept."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.host.apt import UNATTENDED, apt_get
from device_agent.host.execute import ExecuteError, run
from device_agent.host.packages import installed as installed_package
from device_agent.host.packages import package_manager, package_scheme
from device_agent.host.system import System
from device_agent.updates.errors import UpdateError
from device_agent.updates.installers.base import RebootControl, RebootingInstaller, VerifiedArtifact
from device_agent.updates.records import InstalledRelease
from schemas.updates import InstallerKind, UpdateRefusalCode, UpdateTarget

_LISTS_SECONDS: Final = 300.0
_QUIET: Final = (
    "-y",
    "--allow-downgrades",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
)
# Commands that install a verified file (TUF has verified what --nogpgcheck and --allow-untrusted skip) and remove a
# package, and the separator of a package name and its version.
_INSTALL_FILE: Final[Mapping[InstallerKind, tuple[str, ...]]] = {
    InstallerKind.DNF: ("dnf", "-q", "-y", "--nogpgcheck", "install", "--"),
    InstallerKind.APK: ("apk", "-q", "add", "--allow-untrusted"),
    InstallerKind.OPKG: ("opkg", "install", "--force-downgrade"),
}
_REMOVE: Final[Mapping[InstallerKind, tuple[str, ...]]] = {
    InstallerKind.DNF: ("dnf", "-q", "-y", "remove", "--"),
    InstallerKind.APK: ("apk", "-q", "del"),
    InstallerKind.OPKG: ("opkg", "remove"),
}
_VERSION_SEPARATOR: Final[Mapping[InstallerKind, str]] = {
    InstallerKind.APT: "=",
    InstallerKind.DNF: "-",
    InstallerKind.APK: "=",
}


class PackageInstaller(RebootingInstaller):
    """Installs by one package manager, `kind`; `downloads` is the folder of verified files."""

    is_repeatable = True
    needs_download_for_rollback = True

    def __init__(self, kind: InstallerKind, downloads: Path, system: System, machine: RebootControl) -> None:
        super().__init__(machine)
        self._kind = kind
        self._downloads = downloads
        self._system = system

    def stage(self, artifact: VerifiedArtifact) -> str:
        """Checks that the package matches the target, and that its manager would install it."""
        if not self._system.is_root_user:
            raise UpdateError(UpdateRefusalCode.INSTALL, "packages are installed by root only")
        scheme = package_scheme(self._system)
        if scheme is None or package_manager(self._system, scheme) != self._kind:
            actual = package_manager(self._system, scheme) if scheme else "no known package manager"
            raise UpdateError(
                UpdateRefusalCode.NOT_FOR_THIS_DEVICE, f"it is for {self._kind}, and this device has {actual}"
            )
        if self._kind is InstallerKind.APT:
            self._check_deb(artifact)
        return ""

    def install(self, artifact: VerifiedArtifact) -> None:
        """Installs the file, after finishing what a power loss interrupted."""
        self._install_file(artifact.file, artifact.target)

    def installed(self, name: str, release: InstalledRelease | None) -> str:
        """Returns the version in the package database."""
        del release
        package = installed_package(self._system, name)
        # rpm adds an epoch of 0, which signed versions do not have.
        return "" if package is None else package.version.removeprefix("0:")

    def roll_back(self, failed: UpdateTarget, previous: InstalledRelease | None) -> None:
        """Installs the previous version from its file, or else from the package sources; without one removes it."""
        # Nothing was changed, for example because another program kept the package database locked.
        if self.installed(failed.name, previous) == (previous.version if previous else "") and self._is_consistent():
            return
        if previous is None:
            self._run(self._remove(failed.name), failed)
            return
        file = self._downloads / failed.name / previous.version / previous.file
        if previous.file and file.is_file():
            self._install_file(file, failed)
            return
        if self._kind not in _VERSION_SEPARATOR:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"the package of {previous.version} does not exist any more")
        package = f"{failed.name}{_VERSION_SEPARATOR[self._kind]}{previous.version}"
        if self._kind is InstallerKind.APT:
            self._repair_dpkg()
            self._run(apt_get(self._system, *_QUIET, "install", "--", package), failed)
        else:
            self._run(
                ["dnf", "-q", "-y", "downgrade", "--", package]
                if self._kind is InstallerKind.DNF
                else ["apk", "-q", "add", package],
                failed,
            )

    def _check_deb(self, artifact: VerifiedArtifact) -> None:
        target = artifact.target
        try:
            output = run(["dpkg-deb", "-f", str(artifact.file), "Package", "Version"]).stdout
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{artifact.file.name} is no Debian package: {e}") from e
        fields = dict(line.split(": ", 1) for line in output.splitlines() if ": " in line)
        if (fields.get("Package"), fields.get("Version")) != (target.name, target.version):
            actual = f"{fields.get('Package')} {fields.get('Version')}"
            text = f"the package is {actual}, signed as {target.name} {target.version}"
            raise UpdateError(UpdateRefusalCode.MISMATCH, text)
        # Dependencies come from the sources of this device, whose signatures apt verifies itself; without a network the
        # installed ones may suffice.
        with contextlib.suppress(ExecuteError):
            run(apt_get(self._system, "update"), seconds=_LISTS_SECONDS, environment=UNATTENDED)
        simulated = apt_get(self._system, *_QUIET, "-s", "install", "--", str(artifact.file))
        self._run(simulated, target, "apt would not install it")

    def _install_file(self, file: Path, target: UpdateTarget) -> None:
        if self._kind is InstallerKind.APT:
            self._repair_dpkg()
            self._run(apt_get(self._system, *_QUIET, "install", "--", str(file)), target)
            return
        self._run([*_INSTALL_FILE[self._kind], str(file)], target)

    def _repair_dpkg(self) -> None:
        """Finishes what dpkg was doing during a power loss."""
        if self._system.is_live:
            try:
                run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"], seconds=_LISTS_SECONDS)
            except ExecuteError:
                return  # apt reports the problem, and the new version may solve it

    def _is_consistent(self) -> bool:
        """Whether dpkg has nothing half-installed; the databases of the other managers do not tell."""
        if self._kind is not InstallerKind.APT:
            return True
        try:
            return not run(["dpkg", f"--admindir={self._system.path('/var/lib/dpkg')}", "--audit"]).stdout.strip()
        except ExecuteError:
            return False

    def _remove(self, name: str) -> list[str]:
        if self._kind is InstallerKind.APT:
            return apt_get(self._system, *_QUIET, "remove", "--", name)
        return [*_REMOVE[self._kind], name]

    def _run(self, argv: list[str], target: UpdateTarget, what: str = "") -> None:
        # The time for other programs that lock the package database comes before the time for the package.
        seconds = target.seconds
        if self._kind is InstallerKind.APT:
            argv = [argv[0], "-o", f"DPkg::Lock::Timeout={target.seconds}", *argv[1:]]
            seconds *= 2
        elif self._kind is InstallerKind.APK:
            argv = [argv[0], "--wait", str(target.seconds), *argv[1:]]
            seconds *= 2
        try:
            run(argv, seconds=float(seconds), environment=UNATTENDED)
        except ExecuteError as e:
            raise UpdateError(UpdateRefusalCode.INSTALL, f"{what}: {e}" if what else str(e)) from e
