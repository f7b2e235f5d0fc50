"""Services by the program behind them, whatever their entry is called."""

from pathlib import Path

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


def insecure(root: Path) -> list[str]:
    section = services.collect(System(root, is_root_user=True))
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


@pytest.mark.parametrize(("folder", "name"), [("/etc/s6-overlay", "s6"), ("/etc/runit", "runit")])
def test_an_init_system_that_is_not_read_is_named(folder: str, name: str, tmp_path: Path) -> None:
    put(tmp_path, f"{folder}/x")
    with pytest.raises(FactsUnavailableError, match=f"services of {name} are not read"):
        services.collect(System(tmp_path))
