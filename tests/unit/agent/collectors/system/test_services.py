"""Services by the program behind them, whatever their entry is called."""

from pathlib import Path
from typing import Final

import pytest

from controller.domain.policy.facts import gather_facts
from device_agent.collectors.system import services
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.inetd import processes
from device_agent.host.system import System
from schemas.posture import ReportSections
from tests.support.root_folder import put, put_all

SYSV = {"/etc/init.d/x": "", "/etc/rc2.d/S01xinetd": "", "/etc/xinetd.conf": "includedir /etc/xinetd.d\n"}


def insecure(root: Path, *, is_image: bool = False) -> list[str]:
    section = services.collect(System.image(root) if is_image else System(root, is_root_user=True))
    assert not section["gaps"]
    sent = normalise_findings({"services": section}).sections
    facts = gather_facts(ReportSections.model_validate(sent), "d", "", ())
    found: list[str] = facts.known["insecure_services"]
    return found


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({**SYSV, "/etc/inetd.conf": "23 stream tcp nowait root /usr/sbin/telnetd telnetd -i\n"}, ["telnetd"]),
        ({**SYSV, "/etc/inetd.conf": "2323 stream tcp nowait root /usr/sbin/tcpd /usr/sbin/in.telnetd\n"}, ["telnetd"]),
        ({**SYSV, "/etc/inetd.conf": "x stream tcp nowait root /bin/busybox busybox telnetd -i\n"}, ["telnetd"]),
        ({**SYSV, "/etc/inetd.conf": "x stream tcp nowait root /usr/sbin/sshd sshd -i\n"}, []),
        ({**SYSV, "/etc/xinetd.d/a": "service telnet\n{\n disable = Yes\n server = /usr/sbin/in.telnetd\n}\n"}, []),
        ({**SYSV, "/etc/xinetd.d/a": "service tftp\n{\n\tdisable\t= YES\n}\n"}, []),
        ({**SYSV, "/etc/xinetd.d/a": "service odd\n{\n type = UNLISTED\n server = /bin/in.telnetd\n}\n"}, ["telnetd"]),
        (
            {**SYSV, "/etc/xinetd.d/a": "service odd\n{\n server = /bin/busybox\n server_args = telnetd -i\n}\n"},
            ["telnetd"],
        ),
        (
            {**SYSV, "/etc/rc2.d/S20inetutils-telnetd": "", "/etc/rc2.d/S20pure-ftpd-mysql": ""},
            ["pure-ftpd", "telnetd"],
        ),
        ({**SYSV, "/etc/rcS.d/S30busybox-telnetd": ""}, ["telnetd"]),
        ({**SYSV, "/etc/rc2.d/S20telnetd-exporter": ""}, []),
        ({"/etc/init.d/rcS": "", "/etc/init.d/S50telnet": "", "/etc/init.d/K10ftpd": ""}, ["telnet"]),
        (
            {
                "/etc/init.d/rcS": "",
                "/etc/inittab": "::sysinit:/etc/init.d/rcS\ntty1::respawn:/bin/getty x\n::respawn:/bin/telnetd -F\n",
            },
            ["telnetd"],
        ),
    ],
)
def test_the_program_behind_an_entry_counts(files: dict[str, str], names: list[str], tmp_path: Path) -> None:
    assert insecure(put_all(tmp_path, files)) == names


def test_scripts_of_slackware_are_enabled_when_they_are_executable(tmp_path: Path) -> None:
    put_all(tmp_path, {"/etc/slackware-version": "Slackware 15.0", "/etc/inetd.conf": ""})
    put(tmp_path, "/etc/rc.d/rc.telnetd", "", 0o755)
    put(tmp_path, "/etc/rc.d/rc.ftpd", "", 0o644)
    assert insecure(tmp_path) == ["telnetd"]


def test_inetd_of_busybox_is_found_by_its_command_line(tmp_path: Path) -> None:
    put_all(tmp_path, {"/proc/9/comm": "busybox\n", "/proc/9/cmdline": "busybox\0inetd\0", "/proc/8/comm": "busybox\n"})
    assert processes(System(tmp_path)) == [9]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("service telnet\n{\n server = /bin/in.telnetd\n disable = no\n}\n", ["telnet", "telnetd"]),
        ("service telnet\n{\n server = /bin/in.telnetd\n disable = yes\n}\n", []),
        # xinetd takes the first value, and ignores one with a comment.
        ("service telnet\n{\n disable = no\n disable = yes\n}\n", ["telnet"]),
        ("service telnet\n{\n disable = yes # off\n}\n", ["telnet"]),
        ("service telnet\n{\n flags = DISABLE\n}\n", []),
        ("service telnet\n{\n flags = DISABLE\n disable = no\n}\n", ["telnet"]),
        ("Service telnet\n{\n Disable = YES\n}\n", []),
        # The lists of the defaults have ids, not names.
        ("defaults\n{\n disabled = telnet\n}\nservice telnet\n{\n id = other\n}\n", ["telnet"]),
        ("defaults\n{\n disabled = OTHER\n}\nservice telnet\n{\n id = other\n}\n", []),
        ("defaults\n{\n enabled = x\n}\nservice telnet\n{\n}\n", []),
        ("defaults\n{\n enabled = telnet\n}\nservice telnet\n{\n flags = DISABLE\n}\n", ["telnet"]),
        ("defaults\n{\n}\ndefaults\n{\n disabled = telnet\n}\nservice telnet\n{\n}\n", ["telnet"]),
    ],
)
def test_xinetd_is_read_as_xinetd_reads_it(text: str, names: list[str], tmp_path: Path) -> None:
    assert insecure(put_all(tmp_path, {**SYSV, "/etc/xinetd.conf": text})) == names


@pytest.mark.parametrize("text", ["telnet\n{\n disable\n}", "telnet\n{\n disable yes\n}", "telnet {\n disable = no\n}"])
def test_a_malformed_block_of_xinetd_is_a_gap(text: str, tmp_path: Path) -> None:
    put_all(tmp_path, {**SYSV, "/etc/xinetd.conf": f"service {text}\nservice ftp\n{{\n}}\n"})
    section = services.collect(System(tmp_path))
    assert [(gap["fact"], gap["source"]) for gap in section["gaps"]] == [("units", "/etc/xinetd.conf")]
    assert [unit["name"] for unit in section["partial"]["units"]] == ["xinetd", "xinetd:ftp"]


S6: Final = "/etc/s6-overlay/s6-rc.d"


@pytest.mark.parametrize(
    ("files", "init", "names"),
    [
        ({f"{S6}/user/contents.d/telnetd": "", f"{S6}/telnetd/run": "#!/bin/sh\nexec telnetd -F\n"}, "s6", ["telnetd"]),
        (
            {f"{S6}/user/contents.d/x": "", f"{S6}/x/run": "#!/bin/sh\nexec s6-setuidgid nobody telnetd\n"},
            "s6",
            ["telnetd"],
        ),
        ({f"{S6}/user/contents.d/b": "", f"{S6}/b/contents.d/ftpd": "", f"{S6}/ftpd/run": "ftpd -D"}, "s6", ["ftpd"]),
        (
            {"/etc/services.d/x/run": "#!/usr/bin/execlineb -P\nwith-contenv /usr/sbin/in.telnetd -h\n"},
            "s6",
            ["telnetd"],
        ),
        ({"/etc/service/x/run": "#!/bin/sh\nexec 2>&1\nexec chpst -u nobody telnetd -F\n"}, "runit", ["telnetd"]),
        ({"/var/service/sshd/run": "#!/bin/sh\nssh-keygen -A\nexec /usr/sbin/sshd -D $OPTS\n"}, "runit", []),
        ({"/etc/service/x/run": "exec telnetd", "/etc/service/x/down": ""}, "runit", []),
    ],
)
def test_services_of_s6_and_runit(files: dict[str, str], init: str, names: list[str], tmp_path: Path) -> None:
    assert insecure(put_all(tmp_path, files)) == names
    section = services.collect(System(tmp_path))
    assert (section["init"], section["gaps"]) == (init, [])


def test_a_link_to_a_service_folder_is_followed_below_the_root(tmp_path: Path) -> None:
    put_all(tmp_path, {"/etc/sv/x/run": "exec telnetd\n", "/etc/service/.keep": ""})
    (tmp_path / "etc/service/x").symlink_to("/etc/sv/x")
    assert insecure(tmp_path) == ["telnetd"]


@pytest.mark.parametrize("script", ["exec $PROGRAM\n", "", "exec 'telnetd\n"])
def test_a_run_script_that_is_not_understood_is_a_gap(script: str, tmp_path: Path) -> None:
    section = services.collect(System(put_all(tmp_path, {"/etc/service/x/run": script})))
    assert [gap["fact"] for gap in section["gaps"]] == ["units"]
    assert [unit["name"] for unit in section["partial"]["units"]] == ["x"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("t1:2345:respawn:/usr/sbin/telnetd -F", ["telnetd"]),
        ("t1:45:respawn:/usr/sbin/telnetd -F", []),
        ("::respawn:/bin/sh -c 'exec telnetd -F'", ["telnetd"]),
        ("1:2345:respawn:/sbin/getty 38400 tty1", []),
        ("#t1:2345:respawn:/usr/sbin/telnetd", []),
    ],
)
def test_inittab_counts_beside_openrc_and_sysv(line: str, names: list[str], tmp_path: Path) -> None:
    for init in ({"/etc/runlevels/default/sshd": ""}, {"/etc/init.d/x": "", "/etc/rc3.d/S01sshd": ""}):
        files = {**init, "/etc/inittab": f"id:3:initdefault:\n{line}\n"}
        assert insecure(put_all(tmp_path / str(len(init)), files)) == names


def test_slackware_is_known_by_its_scripts(tmp_path: Path) -> None:
    put_all(tmp_path, {"/etc/inetd.conf": "telnet stream tcp nowait root /usr/sbin/tcpd in.telnetd\n"})
    put(tmp_path, "/etc/rc.d/rc.sshd", "", 0o755)
    assert insecure(tmp_path) == ["telnet", "telnetd"]
    assert services.collect(System(tmp_path))["init"] == "slackware"


@pytest.mark.parametrize(("folder", "name"), [("/etc/s6-overlay", "s6"), ("/etc/runit", "runit")])
def test_an_init_system_that_is_not_read_is_named(folder: str, name: str, tmp_path: Path) -> None:
    put(tmp_path, f"{folder}/x")
    with pytest.raises(FactsUnavailableError, match=f"services of {name} are not read"):
        services.collect(System(tmp_path))


SYSTEMD: Final = {"/usr/lib/systemd/system/multi-user.target": "", "/usr/lib/systemd/systemd": ""}
WANTS: Final = "/etc/systemd/system/multi-user.target.wants"


def _unit(command: str, name: str = "x.service") -> dict[str, str]:
    text = f"[Service]\nExecStart={command}\n"
    return {**SYSTEMD, f"/etc/systemd/system/{name}": text, f"{WANTS}/{name}": text}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (_unit("/usr/sbin/telnetd -F -l /bin/sh"), ["telnetd"]),
        (_unit("-/usr/bin/env A=b /usr/sbin/in.telnetd"), ["telnetd"]),
        (_unit("@/usr/sbin/telnetd other -F"), ["telnetd"]),
        (_unit("/bin/sh -c 'cd /; exec /usr/sbin/telnetd -F'"), ["telnetd"]),
        (_unit("/usr/bin/busybox tcpsvd -vE 0.0.0.0 21 busybox ftpd -w /srv"), ["ftpd"]),
        (_unit("/usr/bin/socat TCP-LISTEN:23,fork EXEC:/usr/sbin/telnetd"), ["telnetd"]),
        (_unit("/bin/nc -lk -p 23 -e /usr/sbin/telnetd"), ["telnetd"]),
        (_unit("/usr/sbin/uftpd"), ["uftpd"]),
        (_unit("/usr/sbin/bftpd -D"), ["bftpd"]),
        (_unit("/usr/libexec/tnftpd"), ["tnftpd"]),
        (
            {**_unit("/bin/true"), "/etc/systemd/system/x.service.d/a.conf": "[Service]\nExecStart=/bin/telnetd"},
            ["telnetd"],
        ),
        (
            {
                **_unit("/bin/telnetd"),
                "/etc/systemd/system/x.service.d/a.conf": "[Service]\nExecStart=\nExecStart=/bin/a",
            },
            [],
        ),
        (
            {**_unit("$P -F"), "/etc/systemd/system/x.service.d/a.conf": "[Service]\nEnvironment=P=/bin/telnetd"},
            ["telnetd"],
        ),
        (
            {
                **SYSTEMD,
                f"{WANTS}/debug.socket": "",
                "/etc/systemd/system/debug.socket": "[Socket]\nListenStream=23\nAccept=yes\n",
                "/etc/systemd/system/debug@.service": "[Service]\nExecStart=-/usr/sbin/in.telnetd\n",
            },
            ["telnetd"],
        ),
        ({**_unit("/usr/sbin/dnsmasq", "dnsmasq.service"), "/etc/dnsmasq.conf": "enable-tftp\n"}, ["tftp"]),
        (_unit("/usr/sbin/dnsmasq -k --enable-tftp"), ["tftp"]),
        ({**_unit("/usr/sbin/dnsmasq"), "/etc/dnsmasq.conf": "#enable-tftp\n"}, []),
        ({**_unit("/bin/a"), "/etc/cron.d/x": "@reboot root /usr/sbin/telnetd -l /bin/sh\n"}, ["telnetd"]),
        ({**_unit("/bin/a"), "/var/spool/cron/crontabs/root": "@reboot sleep 9; telnetd\n"}, ["telnetd"]),
        ({"/etc/runlevels/default/utelnetd": ""}, ["utelnetd"]),
        ({"/etc/runlevels/default/busybox-extras-telnetd": ""}, ["telnetd"]),
        ({"/etc/runlevels/default/x": "", "/etc/init.d/x": 'command="/usr/sbin/telnetd"\n'}, ["telnetd"]),
        ({**SYSV, "/etc/rc2.d/S20x": "", "/etc/init.d/x": "DAEMON=/usr/sbin/in.tftpd\n"}, ["tftpd"]),
        (
            {**SYSV, "/etc/rc2.d/S20x": "", "/etc/init.d/x": "start-stop-daemon -S --exec /bin/busybox telnetd\n"},
            ["telnetd"],
        ),
        ({"/etc/init.d/rcS": "", "/etc/init.d/S50x": "case $1 in\nstart)\n telnetd -F &\n"}, ["telnetd"]),
    ],
)
def test_the_program_that_a_service_starts_counts(files: dict[str, str], names: list[str], tmp_path: Path) -> None:
    put_all(tmp_path, files)
    assert insecure(tmp_path, is_image=True) == names


@pytest.mark.parametrize(("mode", "names"), [(0o755, ["telnetd"]), (0o644, [])])
def test_an_executable_rc_local_is_read(mode: int, names: list[str], tmp_path: Path) -> None:
    put_all(tmp_path, _unit("/bin/a"))
    put(tmp_path, "/etc/rc.local", "#!/bin/sh -e\nif true; then /usr/sbin/telnetd -l /bin/x & fi\nexit 0\n", mode)
    assert insecure(tmp_path, is_image=True) == names
