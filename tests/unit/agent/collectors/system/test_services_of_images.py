"""Services that an image would start, by its files alone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from device_agent.collectors.system import services
from device_agent.host.system import System
from tests.support.root_folder import put, put_all

_UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
_SOCKET = "[Socket]\nListenStream=23\n[Install]\nWantedBy=sockets.target\n"


def _units(root: Path) -> tuple[str, list[str]]:
    section = services.collect(System.image(root))
    assert not any(unit["active"] for unit in section["units"])
    return section["init"], [unit["name"] for unit in section["units"] if unit["enabled"]]


@pytest.fixture
def systemd(tmp_path: Path) -> Path:
    put(tmp_path, "/usr/lib/systemd/systemd")
    put(tmp_path, "/usr/lib/systemd/system-generators/systemd-sysv-generator")
    (tmp_path / "sbin").mkdir()
    (tmp_path / "sbin/init").symlink_to("/usr/lib/systemd/systemd")
    (tmp_path / "lib").symlink_to("usr/lib")
    for name in ("ssh.service", "off.service", "masked.service", "vendor.service"):
        put(tmp_path, f"/usr/lib/systemd/system/{name}", _UNIT)
    put(
        tmp_path,
        "/usr/lib/systemd/system/real.service",
        "[Service]\nExecStart=/bin/true\n[Install]\nAlias=alias.service\n",
    )
    put(tmp_path, "/usr/lib/systemd/system/getty@.service", f"{_UNIT}DefaultInstance=tty1\n")
    put(tmp_path, "/usr/lib/systemd/system/telnet.socket", _SOCKET)
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    for name in ("ssh.service", "masked.service", "gone.service"):
        (wants / name).symlink_to(f"/lib/systemd/system/{name}")
    (wants / "getty@tty1.service").symlink_to("/lib/systemd/system/getty@.service")
    (wants.parent / "masked.service").symlink_to("/dev/null")
    (wants.parent / "alias.service").symlink_to("/lib/systemd/system/real.service")
    sockets = wants.parent / "sockets.target.wants"
    sockets.mkdir()
    (sockets / "telnet.socket").symlink_to("/lib/systemd/system/telnet.socket")
    return tmp_path


ENABLED = ["getty@.service", "real.service", "ssh.service", "telnet.socket"]


def test_units_of_systemd_by_links_aliases_templates_and_masks(systemd: Path) -> None:
    assert _units(systemd) == ("systemd", ENABLED)


def test_systemctl_calls_the_same_units_enabled(systemd: Path) -> None:
    if shutil.which("systemctl") is None:
        pytest.skip("systemctl is not installed")
    argv = ["systemctl", f"--root={systemd}", "list-unit-files", "--type=service,socket", "--state=enabled"]
    listed = subprocess.run([*argv, "--no-legend", "--plain"], capture_output=True, text=True, check=True, timeout=30)
    assert sorted(line.split()[0] for line in listed.stdout.splitlines()) == _units(systemd)[1]


def test_units_that_the_distribution_starts_and_scripts_without_a_unit(systemd: Path) -> None:
    wants = systemd / "usr/lib/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "vendor.service").symlink_to("../vendor.service")
    put_all(systemd, {"/etc/rc2.d/S01inetutils-telnetd": "", "/etc/rc2.d/S01ssh": "", "/etc/init.d/ssh": ""})
    assert _units(systemd)[1] == sorted([*ENABLED, "inetutils-telnetd.service", "vendor.service"])


def test_units_are_mere_files_where_another_init_starts(tmp_path: Path) -> None:
    put_all(tmp_path, {"/lib/systemd/system/x.service": _UNIT, "/sbin/init": "sysvinit", "/etc/init.d/telnetd": ""})
    put_all(tmp_path, {"/etc/inittab": "id:5:initdefault:\n", "/etc/rc5.d/S20telnetd": ""})
    put(tmp_path, "/etc/systemd/system/multi-user.target.wants/x.service", _UNIT)
    assert _units(tmp_path) == ("sysv", ["telnetd"])
