"""Sections of the running machine, compared with what its own tools say of it."""

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

IS_ROOT = os.geteuid() == 0
NOW = 1_700_000_000.0
LIVE = System(is_root_user=IS_ROOT)
MINE = ("sockets", "services", "firewall", "access", "ssh", "disk", "mac", "logging")


def say(*argv: str, ok: tuple[int, ...] = (0,)) -> str:
    """What a tool of this machine says; without the tool the test is skipped by name."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]} here")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode in ok, done.stderr
    return done.stdout


def test_two_looks_at_an_unchanged_machine_have_one_digest() -> None:
    # Sockets and services of a busy machine change by themselves.
    calm = {name: COLLECTORS[name] for name in MINE if name not in {"sockets", "services", "firewall"}}
    scanner = Scanner(LIVE, calm)
    one, two = normalise_findings(scanner.scan()), normalise_findings(scanner.scan())
    assert one.digest == two.digest
    for section in one.sections.values():
        assert section["state"] in {"ok", "notapplicable"}, section


def test_sockets_are_those_of_ss() -> None:
    pattern = re.compile(r"^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s")

    def told() -> set[tuple[str, str, int]]:
        matches = [match for line in say("ss", "-lntuH").splitlines() if (match := pattern.match(line))]
        plain = {(m[1], m[2].partition("%")[0].strip("[]").replace("*", "::"), int(m[3])) for m in matches}
        return {(proto, address, port) for proto, address, port in plain if port}

    with socket.create_server(("127.0.0.1", 0)) as own:
        before = told()
        found = {(e["proto"], e["address"], e["port"]) for e in sockets.collect(LIVE)["listening"]}
        # Others open and close sockets meanwhile: what ss saw before and after must be ours as well.
        stable = {one for one in before & told() if one[0] == "tcp"}
        assert ("tcp", "127.0.0.1", own.getsockname()[1]) in stable
    assert stable <= found


def test_interfaces_are_those_of_ip() -> None:
    links: list[dict[str, Any]] = json.loads(say("ip", "-j", "address"))
    expected = {
        info["local"]: link["ifname"].partition("@")[0]
        for link in links
        for info in link.get("addr_info", ())
        if "local" in info and "UP" in link.get("flags", ())
    }
    assert addresses(LIVE) == expected


def test_services_are_those_of_systemctl() -> None:
    where = [] if systemd.is_booted(LIVE) else ["--root=/"]
    text = say("systemctl", *where, "list-unit-files", "--type=service,socket", "--no-legend", "--plain", "--full")
    enabled = {fields[0] for line in text.splitlines() if len(fields := line.split()) > 1 and fields[1] == "enabled"}
    section = services.collect(LIVE)
    found = {unit["name"] for unit in section["units"] if unit["enabled"]}
    assert section["init"] == "systemd"
    assert enabled == {name for name in found if ":" not in name}


def test_accounts_are_those_of_getent_and_passwd() -> None:
    section = account_security.collect(LIVE)
    assert section["accounts"] == len(Path("/etc/passwd").read_text().splitlines())
    if not IS_ROOT:
        assert section["empty_passwords"] is None
        assert "empty_passwords: needs root" in section["gaps"]
        return
    states = [line.split()[1] for line in say("passwd", "-S", "-a").splitlines()]
    assert section["password_accounts"] == states.count("P")
    assert len(section["empty_passwords"]) == states.count("NP")


def test_failed_logins_are_those_of_lastb(tmp_path: Path) -> None:
    if login_records.RECORD.size != 384 or sys.byteorder != "little":
        pytest.skip("records of another machine")
    content = btmp_record(int(NOW) - 60, "192.0.2.9") * 3 + btmp_record(int(NOW) - 120, "box.example")
    file = tmp_path / "btmp"
    file.write_bytes(content)
    said = say("lastb", "-w", "-f", str(file))
    counts = count_records(content, login_records.RECORD, NOW)
    assert {host: said.count(host) for host in counts} == dict(counts) == {"192.0.2.9": 3, "box.example": 1}


def test_disks_are_those_of_lsblk_and_findmnt() -> None:
    section = disk.collect(LIVE)
    kinds: dict[str, bool] = {}

    def walk(devices: list[dict[str, Any]], *, is_beneath_crypt: bool) -> None:
        for device in devices:
            here = is_beneath_crypt or device["type"] == "crypt"
            kinds.update({place: here for place in device["mountpoints"] if place})
            walk(device.get("children", []), is_beneath_crypt=here)

    walk(json.loads(say("lsblk", "-J", "-o", "NAME,TYPE,MOUNTPOINTS"))["blockdevices"], is_beneath_crypt=False)
    for mount in section["mounts"]:
        if mount["path"] in kinds and mount["encrypted"] is not None:
            assert mount["encrypted"] == kinds[mount["path"]], mount
    root = json.loads(say("findmnt", "-J", "-o", "TARGET,FSTYPE", "/"))["filesystems"][0]["fstype"]
    assert [mount["kind"] for mount in section["mounts"] if mount["path"] == "/"] == [root] or root == "tmpfs"
    swaps = say("swapon", "--show=NAME", "--noheadings").split()
    assert sorted(one["device"] for one in section["swaps"]) == sorted(swaps)


def test_confinement_is_what_the_kernel_has() -> None:
    kernel = Path("/sys/kernel/security/lsm")
    modules = kernel.read_text().split(",") if kernel.exists() else []
    has_one = {"selinux", "apparmor"} & set(modules) or Path("/sys/module/apparmor").exists()
    if has_one or Path("/etc/selinux/config").exists():
        assert mac.collect(LIVE)["system"] in {"selinux", "apparmor"}
    else:
        with pytest.raises(NotApplicableError):
            mac.collect(LIVE)


def test_logging_is_by_the_processes_that_run() -> None:
    section = log_settings.collect(LIVE)
    running = set(say("ps", "-eo", "comm=").split())
    if "systemd-journal" not in running:
        assert section["journald"] in {"absent", "none"}
    assert (section["audit"] == "running") == ("auditd" in running)
    if section["syslog"] == "rsyslog":
        assert section["syslog_running"] == ("rsyslogd" in running)


def test_a_report_of_everything_is_far_below_the_limit() -> None:
    found = normalise_findings(Scanner(LIVE, {name: COLLECTORS[name] for name in MINE}).scan())
    assert len(json.dumps(found.sections)) < 64 * 1024


def test_an_ordinary_user_is_told_what_needs_root() -> None:
    if not IS_ROOT:
        pytest.skip("this shows what root may drop; as another user the other tests show it")
    script = (
        "import json, os\n"
        "from device_agent.collectors.registry import COLLECTORS\n"
        "from device_agent.collectors.scan import Scanner\n"
        "from device_agent.domain.report_limits import normalise_findings\n"
        "from device_agent.host.system import System\n"
        # Only now: nobody else may be able to read the folder that this interpreter lies in.
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"mine = {{name: COLLECTORS[name] for name in {MINE!r}}}\n"
        "print(json.dumps(normalise_findings(Scanner(System(is_root_user=False), mine).scan()).sections))\n"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == set(MINE)
    if Path("/etc/shadow").exists():
        assert told["access"]["state"] == "ok"
        assert told["access"].get("empty_passwords") is None
        assert "empty_passwords: needs root" in told["access"]["gaps"]
    if shutil.which("nft") or shutil.which("iptables-save"):
        assert told["firewall"] == {"state": "unknown", "reason": "needs root"}
