"""Services, mandatory access control and logging on prepared roots of several distributions."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.collectors.base import ChangeTracker, Collector, SectionBuilder, round_to_magnitude
from device_agent.collectors.system import log_settings, mac, services
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host import xinetd
from device_agent.host.files import read_tail
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put, put_all


def collect(name: str, collector: Collector, root: Path) -> dict[str, Any]:
    section = collector(System(root, is_root_user=True))
    assert normalise_findings({name: section}).sections[name]["state"] == "ok"
    return section


# --- Services -------------------------------------------------------------------------------------------------------


def names(section: dict[str, Any]) -> dict[str, tuple[bool, bool]]:
    return {unit["name"]: (unit["enabled"], unit["active"]) for unit in section["units"]}


def test_services_of_alpine_openwrt_and_sysv(tmp_path: Path) -> None:
    alpine = put_all(tmp_path / "alpine", {"/etc/runlevels/default/sshd": "", "/run/openrc/started/sshd": ""})
    put_all(alpine, {"/etc/runlevels/boot/syslog": "", "/run/openrc/started/telnetd": ""})
    section = collect("services", services.collect, alpine)
    assert section["init"] == "openrc"
    assert names(section) == {"sshd": (True, True), "syslog": (True, False), "telnetd": (False, True)}
    openwrt = put_all(tmp_path / "openwrt", {"/sbin/procd": "", "/etc/rc.d/S50uhttpd": "", "/etc/rc.d/K50uhttpd": ""})
    section = collect("services", services.collect, openwrt)
    assert (section["init"], names(section)) == ("procd", {"uhttpd": (True, False)})
    sysv = put_all(tmp_path / "sysv", {"/etc/init.d/rsyslog": "", "/etc/inittab": "id:3:initdefault:\n"})
    put_all(
        sysv, {"/etc/rc3.d/S01rsyslog": "", "/etc/rc3.d/README": "", "/run/rsyslog.pid": "77\n", "/proc/77/comm": ""}
    )
    section = collect("services", services.collect, sysv)
    assert (section["init"], names(section)) == ("sysv", {"rsyslog": (True, True)})
    with pytest.raises(FactsUnavailableError):
        services.collect(System(tmp_path / "nothing"))


XINETD = {
    "/etc/xinetd.conf": "defaults\n{\n  log_type = FILE /x\n  disabled = finger\n}\nincludedir /etc/xinetd.d\n",
    "/etc/xinetd.d/telnet": "# on\nservice telnet\n{\n\tdisable\t= no\n\tserver\t= /usr/sbin/in.telnetd\n}\n",
    "/etc/xinetd.d/tftp": "service tftp\n{\n disable = yes\n server = /usr/sbin/in.tftpd\n}\n",
    "/etc/xinetd.d/finger": "service finger\n{\n server = /usr/sbin/in.fingerd\n}\n",
    "/etc/xinetd.d/echo.bak": "service echo\n{\n}\n",
    "/etc/xinetd.d/open": "service daytime\n{\n id = daytime-stream\n",
}


def test_services_of_xinetd(tmp_path: Path) -> None:
    root = put_all(tmp_path, {**XINETD, "/etc/runlevels/default/xinetd": ""})
    programs = {entry.service: entry.program for entry in xinetd.entries(System(root))}
    assert programs == {"telnet": "in.telnetd", "daytime": ""}
    section = collect("services", services.collect, root)
    assert names(section)["xinetd:telnet"] == (True, False)
    put(root, "/proc/9/comm", "xinetd\n")
    assert names(collect("services", services.collect, root))["xinetd:telnet"] == (True, True)
    put(
        root,
        "/etc/xinetd.conf",
        "defaults\n{\n enabled = finger\n}\nincludedir /etc/xinetd.d\ninclude /etc/xinetd.conf\n",
    )
    assert [entry.service for entry in xinetd.entries(System(root))] == ["finger"]


def test_changes_are_reported_for_a_day_and_not_after_the_first_scan() -> None:
    now = [0.0]
    changes = ChangeTracker(lambda: now[0])
    assert changes.update(["b", "a"]) == ([], [])
    assert changes.update(["a", "c"]) == (["c"], ["b"])
    now[0] = 86_000
    assert changes.update(["c", "a"]) == (["c"], ["b"])
    now[0] = 86_401
    assert changes.update(["c", "a"]) == ([], [])


def test_a_new_service_is_reported_as_appeared(tmp_path: Path) -> None:
    root = put_all(tmp_path, {"/etc/runlevels/default/sshd": ""})
    watched = services.ServicesCollector()
    assert collect("services", watched, root)["appeared"] == []
    put(root, "/etc/runlevels/default/telnetd")
    assert collect("services", watched, root)["appeared"] == ["telnetd"]


# --- Mandatory access control ---------------------------------------------------------------------------------------


def test_selinux_of_fedora(tmp_path: Path) -> None:
    put_all(tmp_path, {
        "/sys/fs/selinux/enforce": "1", "/etc/selinux/config": "# x\nSELINUX=permissive\nSELINUXTYPE=targeted\n",
        "/var/log/audit/audit.log": "type=AVC msg=audit(1000000000.123:4): avc:  denied  { read } for pid=1\n" * 30,
    })  # fmt: skip
    section = collect("mac", mac.collect, tmp_path)
    mode = {key: section[key] for key in ("system", "mode", "configured", "policy", "denials")}
    # The denials in the log are of 2001.
    assert mode == {
        "system": "selinux",
        "mode": "enforcing",
        "configured": "permissive",
        "policy": "targeted",
        "denials": 0,
    }
    text = "# x\nSELINUX=enforcing   # set by ops\nSELINUXTYPE=targeted # default\n"
    section = collect("mac", mac.collect, put_all(tmp_path / "commented", {"/etc/selinux/config": text}))
    assert (section["mode"], section["configured"], section["policy"]) == ("disabled", "enforcing", "targeted")
    off = put_all(tmp_path / "off", {"/etc/selinux/config": "SELINUX=disabled\n"})
    section = collect("mac", mac.collect, off)
    assert (section["mode"], section["configured"], section["denials"]) == ("disabled", "disabled", None)


def test_apparmor_of_debian(tmp_path: Path) -> None:
    put_all(tmp_path, {
        "/sys/module/apparmor/parameters/enabled": "Y\n",
        "/sys/kernel/security/apparmor/profiles": "a (enforce)\n/b (x) (complain)\nc (enforce)\nd (unconfined)\n",
    })  # fmt: skip
    section = collect("mac", mac.collect, tmp_path)
    profiles = (section["mode"], section["enforced_profiles"], section["complaining_profiles"], section["denials"])
    assert profiles == ("enforcing", 2, 1, None)
    assert gap_texts(section) == ["denials: there is no audit log, kernel log or journal"]
    few = "a (enforce)\n" + "".join(f"/d{number} (complain)\n" for number in range(60))
    put(tmp_path, "/sys/kernel/security/apparmor/profiles", few)
    section = collect("mac", mac.collect, tmp_path)
    assert (section["mode"], section["enforced_profiles"], section["complaining_profiles"]) == ("permissive", 1, 60)
    idle = put_all(tmp_path / "idle", {"/sys/module/apparmor/parameters/enabled": "Y\n"})
    section = collect("mac", mac.collect, idle)
    assert (section["mode"], section["enforced_profiles"]) == ("unknown", None)
    off = put_all(tmp_path / "off", {"/sys/module/apparmor/parameters/enabled": "N\n"})
    assert collect("mac", mac.collect, off)["mode"] == "disabled"
    with pytest.raises(NotApplicableError, match="neither"):
        mac.collect(System(tmp_path / "nothing"))
    with pytest.raises(NotApplicableError, match="only lockdown,capability"):
        mac.collect(System(put_all(tmp_path / "k", {"/sys/kernel/security/lsm": "lockdown,capability"})))


# --- Logging --------------------------------------------------------------------------------------------------------

RSYSLOG = (
    '$IncludeConfig /etc/rsyslog.d/*.conf\nmodule(load="imuxsock")\n'
    "#*.* @@old.example\nauth.* @192.0.2.7\n*.* @@(o)[2001:db8::1]:6514\n"
    '*.* action(type="omfwd" target="logs.example" port="6514" protocol="tcp"\n  StreamDriverMode="1")\n'
    'action(type="omrelp" Target="relp.example")\nmail.* -/var/log/mail.log\n'
)
SYSLOG_NG = (
    'source s { system(); };\n# destination off { tcp("no.example"); };\n'
    'destination d_net { network("ng.example" port(6514) transport("tls")); };\n'
    'destination d_old { udp("192.0.2.9"); };\ndestination f { file("/var/log/x"); };\n'
    "log { source(s); destination(d_net); destination(d_old); destination(f); };\n"
)


def test_logging_of_debian_with_rsyslog(tmp_path: Path) -> None:
    put_all(tmp_path, {
        "/usr/lib/systemd/systemd-journald": "",
        "/etc/systemd/journald.conf": "[Journal]\n#Storage=none\nStorage=volatile\n",
        "/etc/systemd/journald.conf.d/10.conf": "[Journal]\nStorage=persistent\n",
        "/usr/sbin/rsyslogd": "", "/etc/rsyslog.conf": RSYSLOG, "/etc/rsyslog.d/x.conf": "*.* @@more.example:601\n",
        "/usr/sbin/auditd": "",
        "/etc/audit/rules.d/a.rules": "-D\n-b 8192\n-w /etc/passwd -p wa\n-a always,exit -S mount\n",
        "/usr/sbin/logrotate": "", "/etc/logrotate.conf": "",
    })  # fmt: skip
    section = collect("logging", log_settings.collect, tmp_path)
    assert (section["journald"], section["syslog"], section["syslog_running"]) == ("persistent", "rsyslog", None)
    assert section["remote_targets"] == [
        "relp relp.example:514", "tcp [2001:db8::1]:6514", "tcp more.example:601", "tls logs.example:6514",
        "udp 192.0.2.7:514",
    ]  # fmt: skip
    assert (section["audit"], section["audit_rules"], section["rotation"]) == ("unknown", 2, "logrotate")
    put_all(tmp_path, {"/proc/1/comm": "systemd\n", "/proc/2/comm": "rsyslogd\n", "/proc/3/comm": "auditd\n"})
    section = collect("logging", log_settings.collect, tmp_path)
    assert (section["journald"], section["syslog_running"], section["audit"]) == ("none", True, "running")


def test_logging_of_smaller_systems(tmp_path: Path) -> None:
    openwrt = put_all(tmp_path / "openwrt", {
        "/sbin/logd": "",
        "/etc/config/system": "config system\n\toption log_ip '192.0.2.5'\n\toption log_proto 'tcp'\n",
    })  # fmt: skip
    section = collect("logging", log_settings.collect, openwrt)
    logging = (section["journald"], section["syslog"], section["remote_targets"], section["rotation"], section["audit"])
    assert logging == ("absent", "logd", ["tcp 192.0.2.5:514"], "logd", "absent")
    alpine = put_all(
        tmp_path / "alpine", {"/sbin/syslogd": "", "/etc/conf.d/syslog": 'SYSLOGD_OPTS="-t -R 192.0.2.6:514"\n'}
    )
    section = collect("logging", log_settings.collect, alpine)
    assert (section["syslog"], section["remote_targets"]) == ("busybox", ["udp 192.0.2.6:514"])
    fedora = put_all(tmp_path / "fedora", {
        "/usr/lib/systemd/systemd-journald": "", "/var/log/journal/x/system.journal": "",
        "/usr/sbin/syslog-ng": "", "/etc/syslog-ng/syslog-ng.conf": SYSLOG_NG,
    })  # fmt: skip
    section = collect("logging", log_settings.collect, fedora)
    assert (section["journald"], section["syslog"]) == ("persistent", "syslog-ng")
    assert section["remote_targets"] == ["tls ng.example:6514", "udp 192.0.2.9:514"]
    section = collect(
        "logging", log_settings.collect, put_all(tmp_path / "bare", {"/lib/systemd/systemd-journald": ""})
    )
    assert (section["journald"], section["syslog"], section["rotation"]) == ("volatile", "", "journald")


# --- Shared helpers ------------------------------------------------------------------------------------------------


def test_counts_are_rounded_and_gaps_have_reasons(tmp_path: Path) -> None:
    assert [round_to_magnitude(n) for n in (-1, 0, 1, 9, 10, 99, 100, 12_345)] == [0, 0, 1, 1, 10, 10, 100, 10_000]
    section = SectionBuilder(a=1, c=[1, 2], d=3)
    errors: dict[str, Exception] = {"a": PermissionError(13, "Permission denied"), "b": FactsUnavailableError("why")}
    for field, error in errors.items():
        with section.capture(field, source="/x"):
            _raise(error)
    section.gap("c", reason="more", source="/y:3")
    # A field with a gap has no value; the entries of a list that were read are apart.
    assert section.build() == {
        "state": "ok",
        "d": 3,
        "partial": {"c": [1, 2]},
        "gaps": [
            {"fact": "a", "reason": "needs root", "source": "/x"},
            {"fact": "b", "reason": "why", "source": "/x"},
            {"fact": "c", "reason": "more", "source": "/y:3"},
        ],
    }
    log = put(tmp_path, "/log", "first\nsecond\nthird\n")
    assert read_tail(log, 10) == "third\n"
    assert read_tail(log, 1000).startswith("first")


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("-D\n-b 8192\n-a task,never\n", 0),
        ("-a never,task\n-w /etc/passwd -p wa\n", 0),
        ("-a task,never\n-D\n-w /etc/passwd -p wa\n", 1),
        ("-a never,exit -F uid=1\n-a always,exclude -F msgtype=CWD\n-a always,exit -S mount\n", 1),
        ("-w /etc/passwd -p wa\n-D\n", 0),
        ("-w /etc/passwd -p wa\n-e 0\n", 0),
        ("-a always,exit -S mount\n-w /etc/shadow\n-e 2\n", 2),
        ("No rules\n", 0),
    ],
)
def test_rules_of_auditd_that_record_something(text: str, count: int) -> None:
    assert log_settings.count_audit_rules(text) == count


@pytest.mark.parametrize(
    ("files", "configured"),
    [
        ({"/proc/cmdline": "ro root=/dev/sda1 enforcing=0\n"}, "permissive"),
        ({"/proc/cmdline": "selinux=0 ro\n"}, "disabled"),
        ({"/etc/default/grub": '# selinux=0\nGRUB_CMDLINE_LINUX="quiet enforcing=0"\n'}, "permissive"),
        ({"/etc/default/grub": '# selinux=0\nGRUB_CMDLINE_LINUX="quiet"\n'}, "enforcing"),
        ({"/boot/loader/entries/a.conf": "title A\noptions root=x selinux=0\n"}, "disabled"),
        ({"/etc/selinux/config": "SELINUX=permissive\n", "/proc/cmdline": "enforcing=1\n"}, "enforcing"),
        ({"/etc/selinux/config": "SELINUX=disabled\n", "/proc/cmdline": "enforcing=1\n"}, "disabled"),
    ],
)
def test_options_of_the_kernel_take_precedence_over_the_file_of_selinux(
    files: dict[str, str], configured: str, tmp_path: Path
) -> None:
    put_all(tmp_path, {"/sys/fs/selinux/enforce": "1", "/etc/selinux/config": "SELINUX=enforcing\n", **files})
    assert mac.collect(System(tmp_path))["configured"] == configured
