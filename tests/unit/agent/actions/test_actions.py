"""Actions on prepared folders, with apt and dpkg where they are installed."""

import os
import shutil
import subprocess
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from device_agent.actions.base import ActionError, InvalidParamsError
from device_agent.actions.package import UpgradePackage
from device_agent.actions.registry import actions
from device_agent.actions.scan_run import Rescan
from device_agent.actions.service import DisableService
from device_agent.collectors.software import updates
from device_agent.host import inetd
from device_agent.host.system import System

INETD = """# comment
telnet\tstream\ttcp\tnowait\troot\t/usr/sbin/tcpd\t/usr/sbin/in.telnetd
tftp dgram udp wait root /usr/sbin/in.tftpd in.tftpd /srv
#finger stream tcp nowait nobody /usr/sbin/in.fingerd
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/inetd.conf").write_text(INETD)
    (tmp_path / "etc/inetd.conf").chmod(0o644)
    return tmp_path


@pytest.mark.parametrize("name", ["", "-x", "--now", "a b", "../x", "a/b", "x" * 129, "a\nb", 7, True, None])
def test_unsafe_names_are_rejected(name: Any) -> None:
    params = {} if name is None else {"name": name}
    for action in (DisableService(System()), UpgradePackage(System())):
        with pytest.raises(InvalidParamsError):
            action.check(params)


def test_unknown_parameters_are_rejected() -> None:
    for action in (DisableService(System()), UpgradePackage(System())):
        with pytest.raises(InvalidParamsError, match="force"):
            action.check({"name": "ok", "force": True})
    with pytest.raises(InvalidParamsError, match="name"):
        Rescan().check({"name": "x"})
    with pytest.raises(InvalidParamsError, match="itself"):
        DisableService(System()).check({"name": "cordon-agent.service"})


@pytest.mark.parametrize("name", ["telnet", "telnetd", "in.telnetd", "inetd:telnet"])
def test_an_inetd_entry_is_disabled_and_restored(root: Path, name: str) -> None:
    system, params = System(root), {"name": name}
    action = DisableService(system)
    plan = action.plan(params)
    assert plan.is_needed
    assert "comment out telnet" in plan.changes
    assert (root / "etc/inetd.conf").read_text() == INETD, "a plan changes nothing"
    action.apply(params, plan.before)
    verified = action.verify(params, plan.before)
    assert verified.is_reached
    assert verified.after == {"is": "disabled, inactive"}
    assert [entry.service for entry in inetd.entries(system)] == ["tftp"]
    assert (root / "etc/inetd.conf").stat().st_mode & 0o777 == 0o644
    assert list((root / "etc").iterdir()) == [root / "etc/inetd.conf"]
    action.undo(params, plan.before)
    assert (root / "etc/inetd.conf").read_text() == INETD


def test_a_disabled_service_needs_no_action(root: Path) -> None:
    action = DisableService(System(root))
    action.apply({"name": "telnet"}, action.plan({"name": "telnet"}).before)
    assert not action.plan({"name": "telnet"}).is_needed


def test_an_unknown_service_is_an_error(root: Path) -> None:
    with pytest.raises(ActionError, match="no service finger"):
        DisableService(System(root)).plan({"name": "finger"})


def test_the_registry_has_every_action() -> None:
    assert {
        "rescan", "service.disable", "port.close", "key.restrict", "package.upgrade", "source.disable",
        "firewall.enable", "firewall.allow", "firewall.deny", "password.policy", "account.lock", "ssh.set",
        "logging.persist", "audit.enable", "mac.enforce", "scan.run",
    } <= set(actions(System()))  # fmt: skip


def test_package_upgrade_is_refused_without_the_package_manager(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match="cannot be upgraded"):
        UpgradePackage(System(tmp_path)).plan({"name": "openssl"})
    (tmp_path / "lib/apk/db").mkdir(parents=True)
    (tmp_path / "lib/apk/db/installed").write_text("")
    with pytest.raises(ActionError, match="packages of apk"):
        UpgradePackage(System(tmp_path)).plan({"name": "openssl"})


def _deb(folder: Path, version: str) -> Path:
    tree = folder / f"tree-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    tree.chmod(0o755)
    (tree / "DEBIAN").chmod(0o755)
    (tree / "usr/share/cordon-test").mkdir(parents=True)
    (tree / "usr/share/cordon-test/version").write_text(version)
    (tree / "DEBIAN/control").write_text(
        f"Package: cordon-test\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <n@example.org>\n"
        "Description: a package for a test\n"
    )
    path = folder / f"cordon-test_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(path)], check=True, capture_output=True)
    return path


def _debian_root(tmp_path: Path) -> Path:
    """Returns a root for apt and dpkg, with version 1 installed and version 2 offered as a security update."""
    root, repository = tmp_path / "root", tmp_path / "repository"
    for folder in (
        "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
        "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt",
        "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "tmp",
    ):  # fmt: skip
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text("")
    repository.mkdir()
    first, second = _deb(tmp_path, "1.0"), _deb(tmp_path, "2.0")
    dpkg = ["dpkg", f"--root={root}", "--force-not-root", "--force-bad-path", "-i", str(first)]
    subprocess.run(dpkg, check=True, capture_output=True)
    shutil.copy(second, repository)
    listed = (
        subprocess.run(["dpkg-deb", "-f", str(second)], check=True, capture_output=True, text=True).stdout
        + f"Filename: ./{second.name}\nSize: {second.stat().st_size}\n"
    )
    digest = subprocess.run(["sha256sum", str(second)], check=True, capture_output=True, text=True).stdout.split()[0]
    (repository / "Packages").write_text(f"{listed}SHA256: {digest}\n")
    packages = (repository / "Packages").read_bytes()
    sums = subprocess.run(["sha256sum"], input=packages, check=True, capture_output=True).stdout.decode().split()[0]
    (repository / "Release").write_text(
        "Origin: Debian\nLabel: Debian-Security\nSuite: stable-security\nVersion: 12\n"
        f"Date: {formatdate(usegmt=True).replace('GMT', 'UTC')}\nSHA256:\n {sums} {len(packages)} Packages\n"
    )
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    return root


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get and dpkg: a Debian system")
@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg changes roots only as root")
def test_apt_upgrades_a_package(tmp_path: Path) -> None:
    system = System(_debian_root(tmp_path))
    action, params = UpgradePackage(system), {"name": "cordon-test"}
    plan = action.plan(params)
    assert plan.before == {"was": "1.0"}
    action.apply(params, plan.before)
    verified = action.verify(params, plan.before)
    assert (verified.is_reached, verified.after) == (True, {"is": "2.0"})
    assert (system.root / "usr/share/cordon-test/version").read_text() == "2.0"
    again = action.plan(params)
    action.apply(params, again.before)
    assert not action.verify(params, again.before).is_reached
    with pytest.raises(ActionError, match="package other is not installed"):
        action.plan({"name": "other"})


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get and dpkg: a Debian system")
@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg changes roots only as root")
def test_apt_installs_security_updates_only(tmp_path: Path) -> None:
    system = System(_debian_root(tmp_path))
    action, params = UpgradePackage(system), {"security": True}
    plan = action.plan(params)
    assert "security updates" in plan.changes
    action.apply(params, plan.before)
    verified = action.verify(params, plan.before)
    assert (verified.is_reached, verified.after) == (True, {"is": "0 security updates wait"})
    assert (system.root / "usr/share/cordon-test/version").read_text() == "2.0"


@pytest.mark.parametrize("params", [{}, {"security": False}, {"security": 1}, {"security": True, "name": "x"}])
def test_an_upgrade_needs_a_package_or_security_true(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError):
        UpgradePackage(System()).check(params)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get and dpkg: a Debian system")
@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg changes roots only as root")
def test_apt_reports_a_pending_security_update(tmp_path: Path) -> None:
    system = System(_debian_root(tmp_path))
    from device_agent.host.apt import apt_get
    from device_agent.host.execute import run

    run(apt_get(system, "update"))
    section = updates.UpdatesCollector()(system)
    assert section["security_pending"] == 1
    assert section["packages"] == [{"name": "cordon-test", "installed": "1.0", "candidate": "2.0"}]
    assert section["reboot_required"] is None
    (system.root / "run").mkdir()
    (system.root / "run/reboot-required").touch()
    assert updates.UpdatesCollector()(system)["reboot_required"] is True
