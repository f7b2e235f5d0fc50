"""Files that include each other by patterns, in every format that has them: each reader stops after some files.

What a reader opens and lists is counted by an audit hook of Python, so that nothing escapes.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.access import fail2ban, pam, sshd_config, sudoers
from device_agent.collectors.crypto import openssl_config
from device_agent.collectors.software.config_files import matching_files
from device_agent.collectors.system import rsyslog_conf, syslog_ng_conf
from device_agent.errors import FactsUnavailableError
from device_agent.host import xinetd
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.support.root_folder import put

MOST: Final = 4_000  # files that one reader opens or lists
_counting: list[int] = []  # the count, while it counts


class TooMuchError(BaseException):
    """Not caught by any reader."""


def _count(event: str, _arguments: tuple[Any, ...]) -> None:
    if _counting and event in {"open", "os.scandir", "os.listdir"}:
        _counting[0] += 1
        if _counting[0] > MOST:
            _counting.clear()
            raise TooMuchError


sys.addaudithook(_count)


@contextmanager
def counted() -> Iterator[None]:
    """Raises where the block opens or lists more than `MOST`."""
    _counting.append(0)
    try:
        yield
    finally:
        _counting.clear()


def _pam(system: System) -> object:
    return pam.service_stack(system, "auth", "sshd")


def _openssl(system: System) -> object:
    return openssl_config.read_sections(system, "/etc/ssl/openssl.cnf", GapRecorder())


def _rsyslog(system: System) -> object:
    return rsyslog_conf.read(system, GapRecorder())


def _syslog_ng(system: System) -> object:
    return syslog_ng_conf.read(system, GapRecorder())


# The first file, a folder whose files include each other, the names of its files, and a line that includes them all.
READERS: Final[dict[str, tuple[Callable[[System], object], str, str, str]]] = {
    "sshd": (sshd_config.read_settings, "/etc/ssh/sshd_config", "/etc/d/{}", "Include /etc/d/*"),
    "sudoers": (sudoers.users_without_password, "/etc/sudoers", "/etc/d/{}", "@includedir /etc/d"),
    "rsyslog": (_rsyslog, "/etc/rsyslog.conf", "/etc/d/{}", "$IncludeConfig /etc/d/*"),
    "syslog-ng": (_syslog_ng, "/etc/syslog-ng/syslog-ng.conf", "/etc/d/{}", '@include "/etc/d/*"'),
    "xinetd": (xinetd.read_entries, "/etc/xinetd.conf", "/etc/d/{}", "includedir /etc/d"),
    "openssl": (_openssl, "/etc/ssl/openssl.cnf", "/etc/d/{}.cnf", ".include /etc/d"),
    "pam": (_pam, "/etc/pam.d/sshd", "/etc/pam.d/{}", "@include 1\n@include 2"),
    "fail2ban": (
        fail2ban.active_jail, "/etc/fail2ban/jail.conf", "/etc/fail2ban/{}",
        "[INCLUDES]\nafter = " + "\n ".join(map(str, range(60))),
    ),
}  # fmt: skip


def _prepare(root: Path, name: str, lines: int, inner: int) -> Callable[[System], object]:
    read, first, names, line = READERS[name]
    lines, inner = (1, min(inner, 1)) if name == "fail2ban" else (lines, inner)  # a section is there once
    put(root, first, f"{line}\n" * lines)
    for number in range(120):
        put(root, names.format(number), f"{line}\n" * inner)
    put(root, "/usr/bin/fail2ban-server")
    return read


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("lines", "inner"), [(3, 2), (10_000, 0)], ids=["each includes all", "many empty ones"])
def test_files_that_include_each_other_end(name: str, lines: int, inner: int, tmp_path: Path) -> None:
    read = _prepare(tmp_path, name, lines, inner)
    with counted():
        try:
            read(System(tmp_path))
        except FactsUnavailableError as e:
            assert "includ" in str(e) or "lines" in str(e)  # noqa: PT017 - some readers record a gap instead


@pytest.mark.parametrize(
    "pattern",
    ["/etc/d/*/../*/../*/../*/../*/x", "/etc/**/**/**/x", "/etc/ssh/../d/*/../../etc/*/*/x"],
)
def test_a_pattern_over_many_folders_ends(pattern: str, tmp_path: Path) -> None:
    put(tmp_path, "/etc/ssh/sshd_config", f"Include {pattern}\n" * 50 + "PermitRootLogin yes\n")
    for number in range(60):
        put(tmp_path, f"/etc/d/{number}/x", "Port 22\n")
    with counted():
        settings = sshd_config.read_settings(System(tmp_path))
    assert settings.values["permitrootlogin"] == "yes"


def test_patterns_mean_what_they_mean_to_sshd(tmp_path: Path) -> None:
    """As glob(3): no wildcard is a first dot, and two stars are one."""
    put(tmp_path, "/etc/ssh/sshd_config", "Include /etc/ssh/**/*.conf\n")
    put(tmp_path, "/etc/ssh/d/a.conf", "PermitRootLogin yes\n")
    put(tmp_path, "/etc/ssh/d/.b.conf", "X11Forwarding yes\n")
    put(tmp_path, "/etc/ssh/d/e/c.conf", "PermitEmptyPasswords yes\n")
    assert sshd_config.read_settings(System(tmp_path)).values == {"permitrootlogin": "yes"}


def test_many_bytes_of_package_sources_end(tmp_path: Path) -> None:
    for number in range(200):
        put(tmp_path, f"/etc/yum.repos.d/{number}.repo", "#" * 200_000)
    put(tmp_path, "/etc/os-release", "ID=fedora\nVERSION_ID=41\n")
    gaps = GapRecorder()
    _ = list(matching_files(System(tmp_path), ("/etc/yum.repos.d/*.repo",), gaps))
    assert any("too many files or bytes" in gap.reason for gap in gaps.gaps)
