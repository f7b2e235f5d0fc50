"""Sections of the running machine, compared with the output of its own tools."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_agent.collectors.access import account_security
from device_agent.collectors.access.failed_logins import count_records
from device_agent.collectors.registry import COLLECTORS
from device_agent.collectors.scan import Scanner
from device_agent.collectors.system import disk, log_settings, mac, services, sockets
from device_agent.collectors.system.interfaces import addresses
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import NotApplicableError
from device_agent.host import login_records, systemd
from device_agent.host.system import System
from tests.support.login_records import btmp_record
from tests.support.root_folder import gap_texts

IS_ROOT = os.geteuid() == 0
NOW = 1_700_000_000.0
LIVE = System(is_root_user=IS_ROOT)
NAMES = ("sockets", "services", "firewall", "access", "ssh", "disk", "mac", "logging")


def output_of(*argv: str, ok: tuple[int, ...] = (0,)) -> str:
    """Returns the output of a tool of this machine; skips the test where the tool is missing."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")
    process = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert process.returncode in ok, process.stderr
    return process.stdout


def test_two_scans_of_an_unchanged_machine_have_one_digest() -> None:
    # Sockets and services of a busy machine change by themselves.
    stable = {name: COLLECTORS[name] for name in NAMES if name not in {"sockets", "services", "firewall"}}
    scanner = Scanner(LIVE, stable)
    first, second = normalise_findings(scanner.scan()), normalise_findings(scanner.scan())
    assert first.digest == second.digest
    for section in first.sections.values():
        assert section["state"] in {"ok", "notapplicable"}, section


def test_sockets_match_ss() -> None:
    pattern = re.compile(r"^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s")

    def ss_sockets() -> set[tuple[str, str, int]]:
        matches = [match for line in output_of("ss", "-lntuH").splitlines() if (match := pattern.match(line))]
        plain = {(m[1], m[2].partition("%")[0].strip("[]").replace("*", "::"), int(m[3])) for m in matches}
        return {(proto, address, port) for proto, address, port in plain if port}

    with socket.create_server(("127.0.0.1", 0)) as own:
        before = ss_sockets()
        reported = {(e["proto"], e["address"], e["port"]) for e in sockets.collect(LIVE)["listening"]}
        # Other processes open and close sockets meanwhile: only those that ss listed before and after are compared.
        stable = {entry for entry in before & ss_sockets() if entry[0] == "tcp"}
        assert ("tcp", "127.0.0.1", own.getsockname()[1]) in stable
    assert stable <= reported


def test_interfaces_match_ip() -> None:
    links: list[dict[str, Any]] = json.loads(output_of("ip", "-j", "address"))
    expected = {
        info["local"]: link["ifname"].partition("@")[0]
        for link in links
        for info in link.get("addr_info", ())
        if "local" in info and "UP" in link.get("flags", ())
    }
    assert addresses(LIVE) == expected


def test_services_match_systemctl() -> None:
    root_option = [] if systemd.is_booted(LIVE) else ["--root=/"]
    text = output_of(
        "systemctl", *root_option, "list-unit-files", "--type=service,socket", "--no-legend", "--plain", "--full"
    )
    enabled = {fields[0] for line in text.splitlines() if len(fields := line.split()) > 1 and fields[1] == "enabled"}
    section = services.collect(LIVE)
    reported = {unit["name"] for unit in section["units"] if unit["enabled"]}
    assert section["init"] == "systemd"
    assert enabled == {name for name in reported if ":" not in name}


def test_accounts_match_passwd() -> None:
    section = account_security.collect(LIVE)
    assert section["accounts"] == len(Path("/etc/passwd").read_text().splitlines())
    if not IS_ROOT:
        assert section["empty_passwords"] is None
        assert "empty_passwords: needs root (/etc/shadow)" in gap_texts(section)
        return
    states = [line.split()[1] for line in output_of("passwd", "-S", "-a").splitlines()]
    assert section["password_accounts"] == states.count("P")
    assert len(section["empty_passwords"]) == states.count("NP")


def test_failed_logins_match_lastb(tmp_path: Path) -> None:
    if login_records.RECORD.size != 384 or sys.byteorder != "little":
        pytest.skip("records of this machine have another layout")
    content = btmp_record(int(NOW) - 60, "192.0.2.9") * 3 + btmp_record(int(NOW) - 120, "box.example")
    file = tmp_path / "btmp"
    file.write_bytes(content)
    lines = output_of("lastb", "-w", "-f", str(file))
    counts = count_records(content, login_records.RECORD, NOW)
    assert {host: lines.count(host) for host in counts} == dict(counts) == {"192.0.2.9": 3, "box.example": 1}


def test_disks_match_lsblk_and_findmnt() -> None:
    section = disk.collect(LIVE)
    is_encrypted: dict[str, bool] = {}

    def walk(devices: list[dict[str, Any]], *, is_beneath_crypt: bool) -> None:
        for device in devices:
            is_crypt = is_beneath_crypt or device["type"] == "crypt"
            is_encrypted.update({path: is_crypt for path in device["mountpoints"] if path})
            walk(device.get("children", []), is_beneath_crypt=is_crypt)

    walk(json.loads(output_of("lsblk", "-J", "-o", "NAME,TYPE,MOUNTPOINTS"))["blockdevices"], is_beneath_crypt=False)
    for mount in section["mounts"]:
        if mount["path"] in is_encrypted and mount["encrypted"] is not None:
            assert mount["encrypted"] == is_encrypted[mount["path"]], mount
    root = json.loads(output_of("findmnt", "-J", "-o", "TARGET,FSTYPE", "/"))["filesystems"][0]["fstype"]
    assert [mount["kind"] for mount in section["mounts"] if mount["path"] == "/"] == [root] or root == "tmpfs"
    swaps = output_of("swapon", "--show=NAME", "--noheadings").split()
    assert sorted(swap["device"] for swap in section["swaps"]) == sorted(swaps)


def test_mandatory_access_control_matches_the_kernel() -> None:
    kernel = Path("/sys/kernel/security/lsm")
    modules = kernel.read_text().split(",") if kernel.exists() else []
    has_module = {"selinux", "apparmor"} & set(modules) or Path("/sys/module/apparmor").exists()
    if has_module or Path("/etc/selinux/config").exists():
        assert mac.collect(LIVE)["system"] in {"selinux", "apparmor"}
    else:
        with pytest.raises(NotApplicableError):
            mac.collect(LIVE)


def test_logging_matches_the_running_processes() -> None:
    section = log_settings.collect(LIVE)
    running = set(output_of("ps", "-eo", "comm=").split())
    if "systemd-journal" not in running:
        assert section["journald"] in {"absent", "none"}
    assert (section["audit"] == "running") == ("auditd" in running)
    if section["syslog"] == "rsyslog":
        assert section["syslog_running"] == ("rsyslogd" in running)


def test_a_full_report_is_far_below_the_size_limit() -> None:
    report = normalise_findings(Scanner(LIVE, {name: COLLECTORS[name] for name in NAMES}).scan())
    assert len(json.dumps(report.sections)) < 64 * 1024


def test_an_unprivileged_user_sees_which_facts_need_root() -> None:
    if not IS_ROOT:
        pytest.skip("needs root, to drop it; without root, the other tests cover this")
    script = (
        "import json, os\n"
        "from device_agent.collectors.registry import COLLECTORS\n"
        "from device_agent.collectors.scan import Scanner\n"
        "from device_agent.domain.report_limits import normalise_findings\n"
        "from device_agent.host.system import System\n"
        # After the imports: another user may not be able to read the interpreter's folder.
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"collectors = {{name: COLLECTORS[name] for name in {NAMES!r}}}\n"
        "print(json.dumps(normalise_findings(Scanner(System(is_root_user=False), collectors).scan()).sections))\n"
    )
    root = Path(__file__).parents[4]
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert process.returncode == 0, process.stderr
    sections = json.loads(process.stdout)
    assert set(sections) == set(NAMES)
    if Path("/etc/shadow").exists():
        assert sections["access"]["state"] == "ok"
        assert sections["access"].get("empty_passwords") is None
        assert "empty_passwords: needs root (/etc/shadow)" in gap_texts(sections["access"])
    if shutil.which("nft") or shutil.which("iptables-save"):
        assert sections["firewall"] == {"state": "unknown", "reason": "needs root"}
