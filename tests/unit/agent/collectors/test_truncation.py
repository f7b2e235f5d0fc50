"""What a reader's bounds cut off makes facts incomplete: a violation beyond the bound never looks like a pass."""

import os
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.access import account_security, ssh
from device_agent.collectors.base import Collector
from device_agent.collectors.crypto import openssl
from device_agent.collectors.scan import Scanner
from device_agent.collectors.software import sources
from device_agent.collectors.system import disk, log_settings, services
from device_agent.host import files
from device_agent.host.system import System
from tests.support.root_folder import put, put_all

INITTAB: Final = {"/etc/init.d/rcS": "", "/etc/inittab": ""}
OPENRC: Final = {"/etc/runlevels/default/sshd": ""}
RSYSLOG: Final = {"/usr/sbin/rsyslogd": "", "/etc/rsyslog.conf": "$IncludeConfig /etc/rsyslog.d/*.conf\n"}
PASSWD: Final = {"/etc/passwd": "root:x:0:0::/root:/bin/sh\n", "/etc/shadow": "root:*:1:0:99999:7:::\n"}
SSHD: Final = {"/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n", "/usr/sbin/sshd": ""}
DEBIAN: Final = "Package: openssl\nStatus: install ok installed\nVersion: 3.0.17-1\n\n"
OPENSSL: Final = {"/etc/os-release": "ID=debian\n", "/var/lib/dpkg/status": DEBIAN}
APT: Final = {"/etc/os-release": "ID=debian\n", "/var/lib/dpkg/status": "", "/etc/apt/sources.list": ""}

# Collector, the files it needs, its fields, the file or folder (`*` in its name) that is too large, and its padding.
CASES: Final[tuple[tuple[Collector, dict[str, str], tuple[str, ...], str, str], ...]] = (
    (account_security.collect, PASSWD, ("sudo_without_password",), "/etc/sudoers", "# x"),
    (account_security.collect, PASSWD, ("sudo_without_password",), "/etc/doas.conf", "# x"),
    (account_security.collect, PASSWD, ("sudo_without_password",), "/etc/doas.d/*.conf", "# x"),
    (account_security.collect, PASSWD, ("empty_passwords",), "/etc/shadow", "d:*:1:0:99999:7:::"),
    (account_security.collect, PASSWD, ("max_days",), "/etc/login.defs", "# x"),
    (account_security.collect, PASSWD, ("accepts_empty",), "/etc/pam.d/common-auth", "# x"),
    (ssh.collect, SSHD, ("overrides", "password_login"), "/etc/ssh/sshd_config", "# x"),
    (ssh.collect, SSHD, ("overrides", "password_login"), "/etc/ssh/sshd_config.d/*.conf", "# x"),
    (ssh.collect, {"/usr/sbin/dropbear": ""}, ("password_login",), "/etc/default/dropbear", "# x"),
    (openssl.collect, OPENSSL, ("config",), "/etc/ssl/openssl.cnf", "# x"),
    (services.collect, OPENRC, ("units",), "/etc/inetd.conf", "# x"),
    (services.collect, OPENRC, ("units",), "/etc/inetd.d/*", "# x"),
    (services.collect, OPENRC, ("units",), "/etc/xinetd.conf", "# x"),
    (services.collect, OPENRC | {"/etc/xinetd.conf": "includedir /etc/xinetd.d"}, ("units",), "/etc/xinetd.d/*", ""),
    (services.collect, INITTAB, ("units",), "/etc/inittab", "# x"),
    (services.collect, OPENRC, ("units",), "/etc/runlevels/default/*", ""),
    (sources.collect, APT, ("entries",), "/etc/apt/sources.list", "# x"),
    (sources.collect, APT, ("entries",), "/etc/apt/sources.list.d/*.list", ""),
    (sources.collect, APT, ("entries",), "/etc/apt/apt.conf.d/*", ""),
    (disk.collect, {}, ("mounts",), "/proc/self/mountinfo", "22 1 8:1 / /a rw - ext4 /dev/sda1 rw"),
    (log_settings.collect, RSYSLOG, ("remote_targets",), "/etc/rsyslog.conf", "# x"),
    (log_settings.collect, RSYSLOG, ("remote_targets",), "/etc/rsyslog.d/*.conf", ""),
    (openssl.collect, OPENSSL | {"/etc/ssl/openssl.cnf": ".include /etc/ssl/d\n"}, ("config",), "/etc/ssl/d/*.cnf", ""),
    (
        log_settings.collect,
        {"/usr/lib/systemd/systemd-journald": ""},
        ("journald",),
        "/etc/systemd/journald.conf.d/*.conf",
        "",
    ),
)


def fields_without_value(section: dict[str, Any], fields: tuple[str, ...]) -> bool:
    gaps = {gap["fact"] for gap in section.get("gaps", [])}
    return section["state"] == "unknown" or all(field in gaps and section.get(field) is None for field in fields)


@pytest.mark.parametrize(("collector", "needed", "fields", "place", "padding"), CASES)
def test_what_is_too_large_leaves_gaps(
    collector: Collector, needed: dict[str, str], fields: tuple[str, ...], place: str, padding: str, tmp_path: Path
) -> None:
    put_all(tmp_path, needed)
    if "*" in place:
        for number in range(1100):
            put(tmp_path, place.replace("*", f"x{number}"), padding + "\n")
    else:
        put(tmp_path, place, (padding + "\n") * (5_000_000 // (len(padding) + 1)))
    section = Scanner(System(tmp_path, is_root_user=True), {"x": collector}).scan()["x"]
    assert fields_without_value(dict(section), fields), section
    assert "more than" in str(section) or "larger than" in str(section) or "only the first" in str(section)


def test_a_folder_that_may_not_be_listed_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    put(tmp_path, "/x.conf")
    assert files.list_files(tmp_path, "*.conf") == [tmp_path / "x.conf"]
    assert files.list_files(tmp_path / "nothing") == files.list_files(tmp_path / "x.conf") == []
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        files.list_files(tmp_path, "*.conf")
