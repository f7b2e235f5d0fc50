"""Accounts, password rules and lockout on roots of several distributions."""

import os
import struct
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from device_agent.collectors.access import account_security, fail2ban, failed_logins
from device_agent.collectors.access.accounts import hash_algorithm
from device_agent.collectors.access.failed_logins import count_records, time_of
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host import login_records
from device_agent.host.login_records import count_lines
from device_agent.host.reading import Reading
from device_agent.host.system import System
from tests.support.login_records import btmp_record
from tests.support.root_folder import gap_texts, put, put_all

PASSWD = (
    "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\nada:x:1000:1000::/home/ada:/bin/bash\n"
    "not a line of passwd\n"
)
YESCRYPT = "$y$j9T$abcdefgh$" + "k" * 43
GOOD_DEBIAN = {
    "/etc/passwd": PASSWD,
    "/etc/shadow": f"root:!:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nada:{YESCRYPT}:19000:1:180:14:::\n",
    "/etc/login.defs": "# limits\nPASS_MAX_DAYS\t180\nPASS_MIN_DAYS   1\nPASS_WARN_AGE 14\nENCRYPT_METHOD YESCRYPT\n",
    "/etc/pam.d/common-auth": (
        "auth required pam_faillock.so preauth\nauth [success=1 default=ignore] pam_unix.so\n"
        "auth [default=die] pam_faillock.so authfail\n"
    ),
    "/etc/pam.d/common-password": (
        "password requisite pam_pwquality.so retry=3\npassword [success=1 default=ignore] pam_unix.so yescrypt\n"
    ),
    "/etc/security/pwquality.conf": "minlen = 14\nminclass = 3\n# dcredit = -1\n",
    "/etc/security/faillock.conf": "# deny = 9\ndeny = 5\nunlock_time = 900\n",
    "/etc/sudoers": "Defaults env_reset\n%sudo ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
    "/etc/sudoers.d/README": "# nothing\n",
    "/var/log/auth.log": "",
}
BAD_FEDORA = {
    "/etc/passwd": PASSWD + "toor:x:0:0::/root:/bin/sh\nguest:x:1001:1001::/home/guest:/bin/sh\n",
    "/etc/shadow": (
        "root:$1$salt$abcdefghijklmnopqrstuv:19000:0:99999:7:::\nada:abJnggxhB/yWI:19000::::::\n"
        "guest::19000:0:99999:7:::\ntoor:!!$6$salt$x:19000:0:99999:7:::\n"
    ),
    "/etc/login.defs": "PASS_MAX_DAYS 99999\nENCRYPT_METHOD MD5\n",
    "/etc/pam.d/system-auth": (
        "auth sufficient pam_unix.so nullok\npassword requisite pam_pwquality.so enforcing=0 minlen=6\n"
        "password sufficient pam_unix.so md5 shadow nullok\n"
    ),
    "/etc/pam.d/passwd": "password include system-auth\n",
    "/etc/sudoers": "%wheel ALL=(ALL) NOPASSWD: ALL\n#includedir /etc/sudoers.d\n",
    "/etc/sudoers.d/ada": "ada ALL=(ALL) \\\n  NOPASSWD : /bin/true\n",
    "/etc/sudoers.d/old.bak": "eve ALL=(ALL) NOPASSWD: ALL\n",
    "/var/log/secure": "",
}
ALPINE = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/ash\n",
    "/etc/shadow": "root:$6$salt$abc:19000:0:::::\n",
    "/etc/doas.d/doas.conf": "permit persist :wheel\npermit nopass keepenv :ops\n",
}
OPENWRT = {"/etc/passwd": "root::0:0:root:/root:/bin/ash\n", "/etc/shadow": "root::0:0:99999:7:::\n"}


def collect_access(root: Path, **system: bool) -> dict[str, Any]:
    section = account_security.collect(System(root, is_root_user=True, **system))
    # The wire schema accepts it.
    assert normalise_findings({"access": section}).sections["access"]["state"] == "ok"
    return section


def fields(section: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(section[name] for name in names)


def test_a_hardened_debian_root(tmp_path: Path) -> None:
    section = collect_access(put_all(tmp_path, GOOD_DEBIAN))
    assert fields(section, "accounts", "password_accounts", "empty_passwords", "root_equals") == (3, 1, [], [])
    assert fields(section, "hash_algorithms", "weak_hashes", "never_expiring") == (["yescrypt"], [], [])
    assert fields(section, "max_days", "min_days", "warn_days", "new_hash") == (180, 1, 14, "yescrypt")
    assert fields(section, "quality_enforced", "minimum_length", "minimum_classes") == (True, 14, 3)
    assert fields(section, "accepts_empty", "lockout", "lockout_after", "lockout_seconds") == (
        False, ["faillock"], 5, 900,
    )  # fmt: skip
    assert fields(section, "sudo_without_password", "failed_logins", "gaps") == ([], [], [])
    assert YESCRYPT not in str(section)


def test_a_weak_fedora_root(tmp_path: Path) -> None:
    section = collect_access(put_all(tmp_path, BAD_FEDORA))
    assert fields(section, "empty_passwords", "root_equals", "weak_hashes") == (["guest"], ["toor"], ["ada", "root"])
    assert fields(section, "hash_algorithms", "never_expiring") == (["des", "md5"], ["ada", "root"])
    assert fields(section, "max_days", "new_hash", "accepts_empty") == (99999, "md5", True)
    assert fields(section, "quality_enforced", "minimum_length", "minimum_classes") == (False, 6, 0)
    assert fields(section, "lockout", "lockout_after") == ([], None)
    assert section["sudo_without_password"] == ["%wheel", "ada"]
    assert gap_texts(section) == [
        "min_days: login.defs does not set PASS_MIN_DAYS", "warn_days: login.defs does not set PASS_WARN_AGE",
    ]  # fmt: skip


def test_alpine_and_openwrt_roots_without_pam(tmp_path: Path) -> None:
    section = collect_access(put_all(tmp_path / "alpine", ALPINE))
    assert fields(section, "hash_algorithms", "quality_enforced", "minimum_length") == (["sha512"], False, None)
    assert section["sudo_without_password"] == ["doas :ops"]
    assert section["failed_logins"] is None
    assert {"accepts_empty: PAM is not installed", "max_days: no login.defs"} <= set(gap_texts(section))
    assert "failed_logins: there is no btmp, auth log or journal" in gap_texts(section)
    assert collect_access(put_all(tmp_path / "openwrt", OPENWRT))["empty_passwords"] == ["root"]
    with pytest.raises(FactsUnavailableError, match="no /etc/passwd"):
        account_security.collect(System(tmp_path / "nothing"))


def test_an_unreadable_file_costs_only_the_fields_that_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(tmp_path, GOOD_DEBIAN)
    closed = {tmp_path / "etc/shadow", tmp_path / "etc/sudoers", tmp_path / "var/log/auth.log"}
    opened, looked_at = Path.open, os.open

    def raise_for_closed(path: Any, *args: Any, **kwargs: Any) -> Any:
        if path in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return (looked_at if args and isinstance(args[0], int) else opened)(path, *args, **kwargs)

    # A mode of 0600 would not keep root out, and tests may run as root.
    monkeypatch.setattr(Path, "open", raise_for_closed)
    monkeypatch.setattr(os, "open", raise_for_closed)
    section = collect_access(tmp_path)
    assert fields(section, "empty_passwords", "hash_algorithms", "sudo_without_password", "failed_logins") == (
        None, None, None, None,
    )  # fmt: skip
    assert fields(section, "max_days", "quality_enforced", "root_equals") == (180, True, [])
    expected = {"empty_passwords: needs root (/etc/shadow)", "sudo_without_password: needs root (/etc/sudoers)"}
    assert {*expected, "failed_logins: needs root"} <= set(gap_texts(section))


def test_fail2ban_counts_as_lockout_only_with_an_enabled_login_jail(tmp_path: Path) -> None:
    put_all(tmp_path, ALPINE)
    put(tmp_path, "/usr/bin/fail2ban-server")
    put(tmp_path, "/etc/fail2ban/jail.conf", "[DEFAULT]\nmaxretry = 5\nbantime = 10m\n[sshd]\nport = ssh\n")
    assert collect_access(tmp_path)["lockout"] == []
    put(tmp_path, "/etc/fail2ban/jail.d/defaults-debian.conf", "[sshd]\nenabled = true\nbantime  = 1h\n")
    section = collect_access(tmp_path)
    assert fields(section, "lockout", "lockout_after", "lockout_seconds") == (["fail2ban"], 5, 3600)
    (tmp_path / "usr/bin/fail2ban-server").unlink()  # removed, its configuration left behind
    assert collect_access(tmp_path)["lockout"] == []


JAIL_CONF: Final = """[INCLUDES]
before = paths.conf
[DEFAULT]
bantime  = 10m
maxretry = 5
enabled = false
mode = normal
filter = %(__name__)s[mode=%(mode)s]
action_ = iptables[port=%(port)s]
action = %(action_)s
port = 0:65535
[sshd]
port = ssh
logpath = %(sshd_log)s
[nginx]
port = http
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"jail.local": "[sshd]\nenabled = true\n"}, {"name": "fail2ban", "after": 5, "seconds": 600}),
        ({"jail.local": "[DEFAULT]\nenabled = true\nbantime = 1d 12h\n"},
         {"name": "fail2ban", "after": 5, "seconds": 129_600}),
        ({"jail.d/a.conf": "[sshd]\nenabled = true\n", "jail.local": "[sshd]\nenabled = false\n"}, {}),
        ({"jail.d/a.conf": "[sshd]\nenabled = true\n", "jail.d/b.local": "[sshd]\nenabled = no\n"}, {}),
        ({"jail.local": "[sshd]\n#enabled = true\n;enabled = true\n"}, {}),
        ({"jail.local": "[sshd]\nenabled = false ; true\n"}, {}),
        ({"jail.local": "[sshd]\nenabled = true\naction =\n"}, {}),
        ({"jail.local": "[nginx]\nenabled = true\n"}, {}),
        ({"jail.local": "[ssh]\nenabled = true\nfilter = sshd\nbantime = -1\nmaxretry = 3\n"},
         {"name": "fail2ban", "after": 3, "seconds": None}),
        ({"jail.local": "[sshd]\nenabled = true\nfilter = nginx\n"}, {}),
        ({"jail.local": "[INCLUDES]\nafter = more.inc\n[sshd]\nenabled = true\n",
          "more.inc": "[sshd]\nenabled = false\n"}, {}),
        ({"jail.local": "[INCLUDES]\nbefore = more.inc\n", "more.inc": "[sshd]\nenabled = true\nbantime = 1mo\n"},
         {"name": "fail2ban", "after": 5, "seconds": 1_000_000}),
        ({"jail.d/a.conf": "[sshd]\nbantime = 1h\n",
          "jail.local": "[sshd]\nenabled = true\nbantime = %(known/bantime)s\n"},
         {"name": "fail2ban", "after": 5, "seconds": 3600}),
    ],
)  # fmt: skip
def test_the_files_of_fail2ban_override_each_other(
    files: dict[str, str], expected: dict[str, Any], tmp_path: Path
) -> None:
    files = {"jail.conf": JAIL_CONF, "paths.conf": "[DEFAULT]\nsshd_log = /var/log/auth.log\n", **files}
    put_all(tmp_path, {f"/etc/fail2ban/{name}": text for name, text in files.items()})
    put(tmp_path, "/usr/bin/fail2ban-server")
    assert fail2ban.active_jail(System(tmp_path)) == Reading(expected)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_fail2ban_of_an_image_counts_where_it_starts(is_enabled: bool, tmp_path: Path) -> None:
    files = {"/etc/fail2ban/jail.conf": "[sshd]\nenabled = true\n", "/usr/bin/fail2ban-server": ""}
    put_all(tmp_path, {**files, "/usr/lib/systemd/system/fail2ban.service": "[Service]\n"})
    if is_enabled:
        put(tmp_path, "/etc/systemd/system/multi-user.target.wants/fail2ban.service", "[Service]\n")
    assert bool(fail2ban.active_jail(System.image(tmp_path)).value) is is_enabled


@pytest.mark.parametrize(
    "text",
    [
        "[sshd]\nenabled = treu\n", "[sshd]\nenabled = true\nenabled = true\n", "enabled = true\n[sshd]\n",
        "[sshd]\nenabled = true\nbantime = soon\n", "[sshd]\nenabled = true\nmaxretry = %(none)s\n",
        "[sshd]\nenabled = true\n?\n", "[sshd]\nenabled = true\nmaxretry = 5x\n", "[sshd\nenabled = true\n",
    ],
)  # fmt: skip
def test_what_fail2ban_would_not_start_with_is_a_gap(text: str, tmp_path: Path) -> None:
    put_all(tmp_path, {**ALPINE, "/etc/fail2ban/jail.conf": JAIL_CONF, "/etc/fail2ban/jail.local": text})
    put(tmp_path, "/usr/bin/fail2ban-server")
    section = collect_access(tmp_path)
    assert section["lockout"] is None
    assert {gap["fact"] for gap in section["gaps"]} >= {"lockout", "lockout_after", "lockout_seconds"}


@pytest.mark.parametrize(
    ("hashed", "name"),
    [
        ("$y$j9T$x$y", "yescrypt"), ("$gy$x", "gost-yescrypt"), ("$7$x", "scrypt"), ("$6$rounds=5$x$y", "sha512"),
        ("$5$x", "sha256"), ("$2b$12$x", "bcrypt"), ("$1$x$y", "md5"), ("$md5,rounds=1$x", "sunmd5"),
        ("abJnggxhB/yWI", "des"), ("_J9..CCCCXBrJUJV154M", "bsdi-des"), ("$99$x", "unknown"), ("x", ""), ("NP", ""),
    ],
)  # fmt: skip
def test_hash_algorithms_are_recognised_by_their_prefix(hashed: str, name: str) -> None:
    assert hash_algorithm(hashed) == name


NOW = 1_700_000_000.0


@pytest.mark.parametrize("packing", [login_records.RECORD, login_records.WIDE_RECORD], ids=["narrow", "wide"])
def test_recent_btmp_records_are_counted_by_source(packing: struct.Struct) -> None:
    assert packing.size in (384, 400)
    recent, old = int(NOW) - 60, int(NOW) - 90_000
    records = [(recent, "192.0.2.9")] * 3 + [(old, "192.0.2.9"), (recent, "")]
    content = b"".join(btmp_record(at, host, packing) for at, host in records)
    assert count_records(content + b"part of a record", packing, NOW) == {"192.0.2.9": 3, "local": 1}


def test_failed_logins_of_sshd_and_dropbear_are_counted_by_source() -> None:
    lines = [
        "Nov 14 22:00:00 box sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2",
        "Nov 14 22:00:00 box sshd[1]: Failed password for invalid user a from b from 192.0.2.2 port 22 ssh2",
        "Nov 14 22:00:00 box dropbear[1]: Bad password attempt for 'root' from 192.0.2.3:5000",
        "Nov 14 22:00:00 box dropbear[1]: Login attempt for nonexistent user from 192.0.2.4:5000",
        "Nov 14 22:00:00 box sshd[1]: Accepted publickey for root from 192.0.2.1 port 22 ssh2",
    ]
    assert sorted(count_lines(lines)) == [f"192.0.2.{n}" for n in (1, 2, 3, 4)]
    assert sum(count_lines(lines).values()) == 4


@pytest.mark.parametrize(
    ("message", "source", "times"),
    [
        ("sshd[1]: Failed password for invalid user root from ::8 port 22 from ::7 port 1 ssh2", "::7", 1),
        ("sshd-session[1]: Failed password for root from 2001:db8::1 port 1 ssh2", "2001:db8::1", 1),
        ("sshd[1]: message repeated 5 times: [ Failed password for root from 192.0.2.66 port 4 ssh2]", "192.0.2.66", 5),
        ("sshd[1]: message repeated 999999 times: [ Failed password for a from ::1 port 4 ssh2]", "::1", 1000),
        ("sshd[1]: error: maximum authentication attempts exceeded for root from ::7 port 1 ssh2 [preauth]", "::7", 1),
        ("dropbear[0]: Bad PAM password attempt for 'root' from 192.0.2.66:40000", "192.0.2.66", 1),
        ("dropbear[0]: bad password attempt for 'x' from 9.9.9.9:1' from ::1:40000", "::1", 1),
        ("dropbear[0]: Max auth tries reached - user 'x' from 192.0.2.66:40000", "192.0.2.66", 1),
        ("authpriv.warn login[0]: invalid password for 'root' on 'pts/0' from '192.0.2.66'", "192.0.2.66", 1),
        ("login[0]: invalid password for 'root' on 'tty1'", "local", 1),
        ("login[7]: FAILED LOGIN (2) on '/dev/pts/0' from '::7' FOR 'a from b', x", "::7", 1),
        ("login[7]: FAILED LOGIN 1 FROM 192.0.2.66 FOR root, Authentication failure", "192.0.2.66", 1),
        ("login[7]: FAILED LOGIN (1) on '/dev/tty1' FOR 'x', Authentication failure", "local", 1),
        # Another program that quotes such a message, and what is no failure.
        ("app[3]: sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2", "", 0),
        ("sshd[1]: Accepted password for Failed password for x from 192.0.2.1 port 22 ssh2", "", 0),
        ("sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2 and more", "", 0),
    ],
)  # fmt: skip
def test_the_source_is_what_the_daemon_writes(message: str, source: str, times: int) -> None:
    assert count_lines([f"Nov 14 22:00:00 box {message}"]) == ({source: times} if source else {})


@pytest.mark.parametrize(
    "line",
    [
        "{at:%a %b %d %H:%M:%S %Y} authpriv.warn dropbear[7]: Bad password attempt for 'root' from 203.0.113.9:40000",
        "{at:%a %b %d %H:%M:%S %Y} daemon.err uhttpd[7]: luci: failed login on / for root from 203.0.113.9",
        "{at:%b %d %H:%M:%S} h sshd[7]: error: PAM: Authentication failure for illegal user x from 203.0.113.9",
        "<38>{at:%b %d %H:%M:%S} h sshd[7]: Failed password for root from 203.0.113.9 port 7 ssh2",
        "<38>1 {at:%Y-%m-%dT%H:%M:%S}Z h sshd 7 - - sshd[7]: Failed password for root from 203.0.113.9 port 7 ssh2",
        "{at:%s}.123 h sshd[7]: Failed password for root from 203.0.113.9 port 7 ssh2",
    ],
)
def test_failed_logins_count_in_every_form_of_log(line: str, tmp_path: Path) -> None:
    now = time.time()
    text = "\n".join([line.format(at=datetime.fromtimestamp(now - 60 - 3600 * ("Z h" in line)).astimezone())] * 20)
    put(tmp_path, "/var/log/messages", text + "\n")
    assert failed_logins.collect(System(tmp_path), now) == [{"source": "203.0.113.9", "at_least": 10}]


def test_failed_logins_at_a_time_that_is_not_understood_are_unknown(tmp_path: Path) -> None:
    put(tmp_path, "/var/log/messages", "30.11.26 h sshd[7]: Failed password for root from 203.0.113.9 port 7 ssh2\n")
    with pytest.raises(FactsUnavailableError, match="the time of failed logins is not understood"):
        failed_logins.collect(System(tmp_path), time.time())


def test_a_failure_that_sshd_writes_twice_counts_once() -> None:
    lines = ["h sshd[7]: error: PAM: Authentication failure for root from 192.0.2.7"] * 4
    lines += ["h sshd[7]: Failed keyboard-interactive/pam for root from 192.0.2.7 port 9 ssh2"] * 2
    assert count_lines(lines) == {"192.0.2.7": 4}


def test_log_timestamps_are_parsed() -> None:
    assert time_of("2023-11-14T22:13:20.123456+00:00 box x", NOW) == NOW
    assert time_of("2023-11-14T23:13:20+01:00 box x", NOW) == NOW
    stamp = time.strftime("%b %e %H:%M:%S box x", time.localtime(NOW))
    assert time_of(stamp, NOW) == NOW
    later = time.strftime("%b %e %H:%M:%S box x", time.localtime(NOW + 40 * 86_400))
    assert (time_of(later, NOW) or NOW) < NOW - 300 * 86_400
    for text in ("", "no time", "Xxx 99 99:99:99 x", "9999-99-99T99:99:99Z"):
        assert time_of(text, NOW) is None or isinstance(time_of(text, NOW), float)


def test_counts_per_source_are_rounded_so_that_the_digest_is_stable(tmp_path: Path) -> None:
    root = put_all(tmp_path, {"/var/log/auth.log": ""})
    line = "2023-11-14T22:13:00+00:00 box sshd[1]: Failed password for root from {} port 22 ssh2\n"
    text = line.format("192.0.2.1") * 12 + line.format("192.0.2.2") * 345 + line.format("192.0.2.3") * 3
    put(root, "/var/log/auth.log", text)
    sources = failed_logins.collect(System(root), NOW)
    assert sources == [{"source": "192.0.2.2", "at_least": 100}, {"source": "192.0.2.1", "at_least": 10}]
    put(root, "/var/log/auth.log", text + line.format("192.0.2.2") * 20)
    assert failed_logins.collect(System(root), NOW) == sources
    assert failed_logins.collect(System(root), NOW + 2 * 86_400) == []


FAILLOCK = (
    "auth required pam_faillock.so preauth\nauth sufficient pam_unix.so\nauth [default=die] pam_faillock.so authfail\n"
)
PLAIN_AUTH = "auth required pam_unix.so\n"


@pytest.mark.parametrize(
    ("files", "lockout"),
    [
        ({"system-auth": FAILLOCK}, ["faillock"]),
        ({"a": FAILLOCK, "sshd": "auth include a\n", "login": "auth substack a\n"}, ["faillock"]),
        ({"system-auth": FAILLOCK, "sshd": PLAIN_AUTH, "login": "auth include system-auth\n"}, []),
        ({"login": "auth required pam_faillock.so preauth deny=3\n", "sshd": "auth include missing\n"}, []),
        ({"login": "auth optional pam_faillock.so preauth\n"}, []),
        ({"login": FAILLOCK, "sshd": "auth include sshd\n"}, None),
    ],
)
def test_a_lockout_has_to_be_in_every_stack_of_logins(
    files: dict[str, str], lockout: list[str] | None, tmp_path: Path
) -> None:
    stacks = {f"/etc/pam.d/{name}": text for name, text in files.items()}
    section = collect_access(put_all(tmp_path, {"/etc/passwd": PASSWD, **stacks}))
    assert section["lockout"] == lockout
    put(tmp_path, "/etc/security/faillock.conf", "deny = 0\n")
    assert collect_access(tmp_path)["lockout"] in ([], None)


def test_an_optional_module_enforces_no_quality(tmp_path: Path) -> None:
    put_all(tmp_path, {"/etc/passwd": PASSWD, "/etc/pam.d/passwd": "password optional pam_pwquality.so\n"})
    assert collect_access(tmp_path)["quality_enforced"] is False


class _Living(System):
    is_live = True


def test_failed_logins_of_the_journal_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journalctl prints a tag before the message only in its formats of a log; lines of other users do not count."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "journalctl").write_text(
        """#!/bin/sh
case " $* " in *" -o short "*) tag='Nov 30 22:31:01 host sshd[7]: ' ;; *) tag= ;; esac
case " $* " in *" _UID=0 "*) ;; *) yes "${tag}Failed password for root from 198.51.100.1 port 1 ssh2" | head -20 ;; esac
for n in 1 2 3 4 5 6 7 8 9 10; do echo "${tag}Failed password for root from 203.0.113.9 port 4000$n ssh2"; done
"""
    )
    (programs / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    (tmp_path / "root/var/log/journal").mkdir(parents=True)
    system = _Living(tmp_path / "root", is_root_user=True)
    assert failed_logins.collect(system, 1_800_000_000.0) == [{"source": "203.0.113.9", "at_least": 10}]
