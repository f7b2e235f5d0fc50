"""Collectors and the scanner, on this machine and on prepared roots."""

import json
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from device_agent.collectors.base import Collector, Section, SectionBuilder
from device_agent.collectors.crypto import openssl
from device_agent.collectors.registry import COLLECTORS
from device_agent.collectors.scan import Scanner
from device_agent.collectors.software import operating_system, updates
from device_agent.collectors.system import firewall, services, sockets
from device_agent.collectors.system.firewall_iptables import read_iptables
from device_agent.collectors.system.firewall_nft import parse_nft_ruleset
from device_agent.collectors.system.firewall_packets import Host
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.apt import upgrades
from device_agent.host.packages import InstalledPackage, installed
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put

LIVE = System(is_root_user=os.geteuid() == 0)


def test_every_section_of_this_machine_has_facts_or_a_reason() -> None:
    sections = normalise_findings(Scanner(LIVE, COLLECTORS).scan()).sections
    assert set(sections) == set(COLLECTORS) >= {"os", "updates", "openssl", "sockets", "services", "firewall"}
    assert sections["os"]["state"] == "ok"
    for section in sections.values():
        assert section["state"] == "ok" or section["reason"]


def test_the_os_section_of_a_prepared_root(tmp_path: Path) -> None:
    with pytest.raises(FactsUnavailableError):
        operating_system.collect(System(tmp_path))
    put(tmp_path, "/usr/lib/os-release", '# comment\nID=openwrt\nVERSION_ID="23.05"\n')
    section = operating_system.collect(System(tmp_path))
    assert (section["id"], section["version"], section["kernel"]) == ("openwrt", "23.05", os.uname().release)


def test_a_slow_or_failing_collector_costs_only_its_own_section() -> None:
    release = threading.Event()

    def slow(_system: System) -> Section:
        release.wait(30)
        return SectionBuilder().build()

    def failing(_system: System) -> Section:
        raise ZeroDivisionError("oops")

    def forbidden(_system: System) -> Section:
        raise PermissionError(13, "Permission denied", "/x")

    def inapplicable(_system: System) -> Section:
        raise NotApplicableError("not on this host")

    def good(_system: System) -> Section:
        return SectionBuilder().build()

    collectors: dict[str, Collector] = {
        "slow": slow, "failing": failing, "forbidden": forbidden, "inapplicable": inapplicable, "good": good
    }  # fmt: skip
    scanner = Scanner(LIVE, collectors, seconds=0.3)
    sections = scanner.scan()
    assert sections["good"] == {"state": "ok", "gaps": []}
    assert sections["slow"] == {"state": "unknown", "reason": "not done within 0.3 s"}
    assert sections["failing"] == {"state": "unknown", "reason": "collector failed: ZeroDivisionError: oops"}
    assert sections["forbidden"] == {"state": "unknown", "reason": "/x: Permission denied"}
    assert sections["inapplicable"]["state"] == "notapplicable"
    for _ in range(2):
        assert scanner.scan()["slow"]["reason"] == "still running since an earlier scan"
    assert sum(thread.name == "collect-slow" for thread in threading.enumerate()) == 1
    release.set()
    deadline = time.monotonic() + 10
    while any(thread.name == "collect-slow" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scanner.scan()["slow"] == {"state": "ok", "gaps": []}


def test_a_section_is_reused_for_its_interval_unless_a_rescan_is_forced() -> None:
    calls: list[str] = []

    def counting(name: str) -> Collector:
        def collect(_system: System) -> Section:
            calls.append(name)
            if name == "closed":
                raise FactsUnavailableError("needs root")
            return SectionBuilder(calls=len(calls)).build()

        return collect

    collectors = {name: counting(name) for name in ("often", "seldom", "closed")}
    scanner = Scanner(LIVE, collectors, every={"seldom": 3600.0, "closed": 3600.0})
    first, second = scanner.scan(), scanner.scan()
    assert sorted(calls) == ["closed", "closed", "often", "often", "seldom"]
    assert first["seldom"] == second["seldom"]
    assert scanner.scan(force_rescan=True)["seldom"] != first["seldom"]
    assert calls.count("seldom") == 2


def test_sockets_of_this_process_have_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.bind(("::1", 0))
        entries = sockets.collect(LIVE)["listening"]
        name = Path("/proc/self/comm").read_text().strip()
        expected = {
            "proto": "tcp",
            "address": "127.0.0.1",
            "port": tcp.getsockname()[1],
            "process": name,
            "interface": "lo",
        }
        assert expected in entries
        assert {
            "proto": "udp",
            "address": "::1",
            "port": udp.getsockname()[1],
            "process": name,
            "interface": "lo",
        } in entries
        assert entries == sorted(entries, key=lambda e: (e["proto"], e["port"], e["address"], e["process"]))


def test_sockets_that_do_not_listen_are_not_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        ports = [entry["port"] for entry in sockets.collect(LIVE)["listening"]]
        assert client.getsockname()[1] not in ports


def test_the_sockets_of_a_prepared_root(tmp_path: Path) -> None:
    with pytest.raises(FactsUnavailableError):
        sockets.collect(System(tmp_path))
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   {}: {} 00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 {} 1 0\n"
    listening = row.format(0, "00000000:0017", "0A", 77) + row.format(1, "0100007F:0016", "01", 78)
    put(tmp_path, "/proc/net/tcp", header + listening)
    (tmp_path / "proc/9/fd").mkdir(parents=True)
    (tmp_path / "proc/9/fd/3").symlink_to("socket:[77]")
    put(tmp_path, "/proc/9/comm", "telnetd\n")
    assert sockets.collect(System(tmp_path))["listening"] == [
        {"proto": "tcp", "address": "0.0.0.0", "port": 23, "process": "telnetd", "interface": "*"}
    ]


STATUS = "Package: openssl\nStatus: install ok installed\nVersion: 3.0.17-1~deb12u2\nArchitecture: amd64\n\n"


def test_installed_packages_of_prepared_roots(tmp_path: Path) -> None:
    assert installed(System(tmp_path), "openssl") is None
    put(tmp_path / "apk", "/lib/apk/db/installed", "P:openssl\nV:3.1.4-r5\n\nP:zlib\nV:1.3-r2\n")
    assert installed(System(tmp_path / "apk"), "zlib") == InstalledPackage("zlib", "1.3-r2", "apk")
    put(tmp_path / "opkg", "/usr/lib/opkg/status", "Package: libopenssl3\nVersion: 3.0.12-1\n\n")
    assert installed(System(tmp_path / "opkg"), "libopenssl3") == InstalledPackage("libopenssl3", "3.0.12-1", "opkg")
    put(tmp_path / "deb", "/var/lib/dpkg/status", STATUS)
    assert installed(System(tmp_path / "deb"), "openssl") == InstalledPackage("openssl", "3.0.17-1~deb12u2", "deb")
    assert installed(System(tmp_path / "deb"), "other") is None


def test_openssl_of_a_prepared_root_is_that_of_its_package(tmp_path: Path) -> None:
    put(tmp_path, "/var/lib/dpkg/status", STATUS)
    section = openssl.collect(System(tmp_path))
    assert section["version"] == "3.0.17"
    assert section["package"] == {"name": "openssl", "version": "3.0.17-1~deb12u2", "scheme": "deb"}
    with pytest.raises(FactsUnavailableError):
        openssl.collect(System(tmp_path / "nothing"))


def test_upgrades_are_parsed_from_a_simulation_of_apt() -> None:
    text = (
        "Inst base-files [12.4] (12.5 Debian:12.15/oldstable [amd64])\n"
        "Inst openssl [3.0.11-1] (3.0.17-1 Debian:12.15/stable, Debian-Security:12/stable-security [amd64]) []\n"
        "Inst libssl3 [3.0.2-0ubuntu1] (3.0.2-0ubuntu1.15 Ubuntu:22.04/jammy-updates, "
        "Ubuntu:22.04/jammy-security [amd64])\n"
        "Inst brand-new (1.0 Debian-Security:12/stable-security [amd64])\nConf openssl (3.0.17-1 Debian:12 [amd64])\n"
    )
    assert [(u.name, u.old, u.new, u.is_security) for u in upgrades(text)] == [
        ("base-files", "12.4", "12.5", False),
        ("openssl", "3.0.11-1", "3.0.17-1", True),
        ("libssl3", "3.0.2-0ubuntu1", "3.0.2-0ubuntu1.15", True),
    ]


def test_updates_give_the_reason_for_missing_facts(tmp_path: Path) -> None:
    with pytest.raises(FactsUnavailableError, match="no known package manager"):
        updates.UpdatesCollector()(System(tmp_path))
    put(tmp_path / "deb", "/var/lib/dpkg/status", STATUS)
    assert "never fetched" in gap_texts(updates.UpdatesCollector()(System(tmp_path / "deb")))[-1]
    put(tmp_path / "deb", "/var/lib/apt/lists/deb_Packages", "")
    put(tmp_path / "deb", "/var/lib/apt/lists/deb_Release", "Date: Tue, 14 Nov 2023 22:13:20 UTC\n")
    section = updates.UpdatesCollector()(System(tmp_path / "deb"))
    assert "of 2023-11-14" in gap_texts(section)[-1]
    assert "security_pending" not in section


def test_the_services_of_a_prepared_root_with_inetd(tmp_path: Path) -> None:
    with pytest.raises(FactsUnavailableError, match="neither a usable systemctl"):
        services.collect(System(tmp_path))
    put(tmp_path, "/usr/lib/systemd/system/a.service", "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=b.target\n")
    wants = tmp_path / "etc/systemd/system/b.target.wants"
    wants.mkdir(parents=True)
    (wants / "a.service").symlink_to("/usr/lib/systemd/system/a.service")
    put(
        tmp_path,
        "/etc/inetd.conf",
        "#off stream tcp nowait root /x off\ntelnet stream tcp nowait root /usr/sbin/in.telnetd\n",
    )
    if shutil.which("systemctl") is None:
        with pytest.raises(FactsUnavailableError, match="neither a usable systemctl"):
            services.collect(System(tmp_path))
        return
    units = services.collect(System(tmp_path))["units"]
    assert units == [
        {"name": "a.service", "enabled": True, "active": False, "program": "true"},
        {"name": "inetd:telnet", "enabled": True, "active": False, "program": "in.telnetd"},
    ]


def test_the_firewall_is_unknown_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FactsUnavailableError, match="needs root"):
        firewall.collect(System(is_root_user=False))
    tool.unlink()
    loaded = Path("/proc/net/ip_tables_names")
    if loaded.exists() and not os.access(loaded, os.R_OK):
        with pytest.raises(FactsUnavailableError, match="needs root"):
            firewall.collect(System(is_root_user=False))
        return
    section = firewall.collect(System(is_root_user=False))
    assert (section["backend"], section["active"], section["default_input"]) == ("none", False, "accept")
    with pytest.raises(FactsUnavailableError):
        firewall.collect(System(tmp_path))


def _nft(text: str) -> dict[str, Any]:
    return firewall.facts_of(parse_nft_ruleset(text), Host(), frozenset({"ip", "ip6"}), set())


def _iptables(text: str) -> dict[str, Any]:
    return firewall.facts_of(read_iptables(text, "ip"), Host(), frozenset({"ip"}), set())


def _ruleset(policy: str, *, with_rule: bool) -> str:
    chain = {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "policy": policy}
    rule = {"family": "inet", "table": "filter", "chain": "input", "expr": []}
    return json.dumps({"nftables": [{"metainfo": {}}, {"chain": chain}, *([{"rule": rule}] if with_rule else [])]})


@pytest.mark.parametrize(
    ("section", "active", "default", "rules"),
    [
        (_nft(""), False, "accept", 0),
        (_nft(_ruleset("drop", with_rule=False)), True, "drop", 0),
        (_nft(_ruleset("accept", with_rule=True)), False, "accept", 1),
        (_nft(_ruleset("accept", with_rule=False)), False, "accept", 0),
        (_iptables("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"), False, "accept", 0),
        (_iptables("*filter\n:INPUT DROP [1:2]\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n"), True, "drop", 1),
    ],
)  # fmt: skip
def test_the_output_of_each_firewall_tool_gives_its_section(
    section: dict[str, object], active: bool, default: str, rules: int
) -> None:
    assert (section["active"], section["default_input"], section["rules"]) == (active, default, rules)
