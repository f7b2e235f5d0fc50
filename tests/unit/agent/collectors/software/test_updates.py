"""Updates: prepared Debian, Fedora, Alpine and OpenWrt roots, what each manager says, and this machine."""

import json
import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.base import GapRecorder
from device_agent.collectors.software import inventory, kernels, pending_updates, unattended_upgrades, updates
from device_agent.collectors.software.pending_updates import PendingUpdate, PendingUpdates
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.apt import listed, upgrades
from device_agent.host.packages import scheme_of
from device_agent.host.system import System
from tests.support.pki import NOW
from tests.support.root_folder import put_all

DAY = 86_400.0
STATUS = """Package: libssl3
Status: install ok installed
Source: openssl (3.0.17-1)
Version: 3.0.17-1~deb12u2

Package: openssl
Status: install ok installed
Description: long
 Version: not this one
Version: 3.0.17-1~deb12u2

Package: removed
Status: deinstall ok config-files
Version: 1

Package: libc6
Status: hold ok installed
Source: glibc
Version: 2.36-9
"""


def collect(root: Path, **options: Any) -> dict[str, Any]:
    section = dict(updates.UpdatesCollector(clock=NOW.timestamp, **options)(System(root)))
    sent = normalise_findings({"updates": section}).sections["updates"]
    assert sent["state"] == "ok", sent
    return section


def test_what_is_installed_on_debian(tmp_path: Path) -> None:
    section = collect(put_all(tmp_path, {"var/lib/dpkg/status": STATUS}))
    assert section["installed"] == [
        "libc6 2.36-9 glibc",
        "libssl3 3.0.17-1~deb12u2 openssl 3.0.17-1",
        "openssl 3.0.17-1~deb12u2",
    ]
    assert section["installed_count"] == 3
    other = collect(put_all(tmp_path / "b", {"var/lib/dpkg/status": STATUS.replace("2.36-9", "2.36-10")}))
    assert section["installed_digest"] != other["installed_digest"]
    assert section["problems"] == [
        "kernel: no installed kernel was found",
        "security_pending: the package lists were never fetched: run apt-get update",
    ]


def test_what_is_installed_on_alpine_and_openwrt(tmp_path: Path) -> None:
    apk = "C:Q1\nP:libssl3\nV:3.3.2-r0\no:openssl\n\nP:musl\nV:1.2.5-r0\no:musl\nF:lib\n"
    section = collect(put_all(tmp_path / "apk", {"lib/apk/db/installed": apk}))
    assert (section["manager"], section["installed"]) == ("apk", ["libssl3 3.3.2-r0 openssl", "musl 1.2.5-r0"])
    opkg = (
        "Package: dnsmasq\nVersion: 2.90-1\nStatus: install user installed\n\nPackage: x\nVersion: 1\nStatus: a b c\n"
    )
    section = collect(put_all(tmp_path / "opkg", {"usr/lib/opkg/status": opkg}))
    assert (section["manager"], section["installed"]) == ("opkg", ["dnsmasq 2.90-1"])


def test_what_is_installed_on_fedora() -> None:
    text = (
        "openssl-libs\t1:3.2.1-2.fc40\topenssl-3.2.1-2.fc40.src.rpm\nbash\t0:5.2.26-3.fc40\tbash-5.2.26-3.fc40.src.rpm\n"
        "gpg-pubkey\t0:a-b\t(none)\nodd\t0:1-1\t(none)\nperl-x\t4:1.0-5.fc40\tperl-5.38-5.fc40.src.rpm\nbroken\n"
    )
    assert [str(package) for package in inventory.rpm_lines(text)] == [
        "openssl-libs 1:3.2.1-2.fc40 openssl",
        "bash 0:5.2.26-3.fc40",
        "odd 0:1-1",
        "perl-x 4:1.0-5.fc40 perl 5.38-5.fc40",
    ]


@pytest.mark.skipif(
    shutil.which("dpkg-query") is None or scheme_of(System()) != "deb", reason="this machine has no dpkg"
)
def test_what_is_installed_here_as_dpkg_itself_sees_it() -> None:
    argv = ["dpkg-query", "-W", "-f", "${db:Status-Status}\t${Package}\t${Version}\t${source:Package}\n"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split("\t") for line in out.splitlines()]
    told = {(row[1], row[2], row[3]) for row in rows if row[0] == "installed"}
    assert {(one.name, one.version, one.source or one.name) for one in inventory.packages(System(), "deb")} == told


@pytest.mark.parametrize(
    ("conf", "program", "masked", "expected"),
    [
        ('APT::Periodic::Unattended-Upgrade "1";', True, False, True),
        ('APT { Periodic { Unattended-Upgrade "7"; }; };', True, False, True),
        ('APT::Periodic::Unattended-Upgrade "0";', True, False, False),
        ('// APT::Periodic::Unattended-Upgrade "1";', True, False, False),
        ('APT::Periodic::Unattended-Upgrade "1"; APT::Periodic::Enable "0";', True, False, False),
        ('APT::Periodic::Unattended-Upgrade "1";', False, False, False),
        ('APT::Periodic::Unattended-Upgrade "1";', True, True, False),
        ("", True, False, False),
    ],
)
def test_unattended_upgrades_of_apt(tmp_path: Path, conf: str, program: bool, masked: bool, expected: bool) -> None:
    put_all(tmp_path, {"var/lib/dpkg/status": "", "etc/apt/apt.conf.d/20auto-upgrades": conf})
    if program:
        put_all(tmp_path, {"usr/bin/unattended-upgrade": ""})
    if masked:
        (tmp_path / "etc/systemd/system").mkdir(parents=True)
        (tmp_path / "etc/systemd/system/apt-daily-upgrade.timer").symlink_to("/dev/null")
    assert collect(tmp_path)["unattended"] is expected


def test_unattended_upgrades_of_the_others(tmp_path: Path) -> None:
    system = System(tmp_path)
    assert unattended_upgrades.is_unattended(system, "rpm") is False
    put_all(tmp_path, {"etc/dnf/automatic.conf": "[commands]\napply_updates = yes\n"})
    assert unattended_upgrades.is_unattended(system, "rpm") is False, "nothing starts it"
    wants = tmp_path / "etc/systemd/system/timers.target.wants"
    wants.mkdir(parents=True)
    (wants / "dnf-automatic.timer").symlink_to("/usr/lib/systemd/system/dnf-automatic.timer")
    assert unattended_upgrades.is_unattended(system, "rpm") is True
    put_all(tmp_path, {"etc/dnf/automatic.conf": "[commands]\napply_updates = no\n"})
    assert unattended_upgrades.is_unattended(system, "rpm") is False
    (wants / "dnf-automatic-install.timer").symlink_to("/usr/lib/systemd/system/dnf-automatic-install.timer")
    assert unattended_upgrades.is_unattended(system, "rpm") is True
    assert unattended_upgrades.is_unattended(system, "apk") is False
    put_all(tmp_path, {"etc/crontabs/root": "# 0 3 * * * apk upgrade\n"})
    assert unattended_upgrades.is_unattended(system, "apk") is False
    put_all(tmp_path, {"etc/crontabs/root": "0 3 * * * apk -U upgrade\n"})
    assert unattended_upgrades.is_unattended(system, "apk") is True


def test_kernels(tmp_path: Path) -> None:
    with pytest.raises(FactsUnavailableError, match="no installed kernel"):
        kernels.newest_and_current(System(tmp_path))
    put_all(tmp_path, {f"boot/vmlinuz-{name}": "" for name in ("6.1.0-9-amd64", "6.1.0-41-amd64", "0-rescue-abc")})
    assert kernels.releases(System(tmp_path)) == ["6.1.0-9-amd64", "6.1.0-41-amd64"]
    assert kernels.newest_and_current(System(tmp_path)) == ("6.1.0-41-amd64", None)
    alpine = tmp_path / "alpine"
    (alpine / "lib/modules/6.6.32-0-lts").mkdir(parents=True)
    assert kernels.releases(System(alpine)) == ["6.6.32-0-lts"]
    assert [kernels.flavour(name) for name in ("6.1.0-41-amd64", "6.5.6-300.fc39.x86_64", "5.15.137")] == [
        "amd64", "x86_64", ""
    ]  # fmt: skip
    key = kernels.release_key
    assert key("6.10.0") > key("6.9.99")
    assert kernels.release_key("6.1.0") > kernels.release_key("6.1.0-rc1") or kernels.release_key(
        "6.1.0-1"
    ) > kernels.release_key("6.1.0")


def test_the_running_kernel_here() -> None:
    found = kernels.releases(System())
    if not found:
        with pytest.raises(FactsUnavailableError):
            kernels.newest_and_current(System())
        return
    newest, is_current = kernels.newest_and_current(System())
    assert newest in found
    assert is_current in (True, False)
    assert is_current is False or newest == platform.release()


def test_what_apt_lists() -> None:
    text = (
        "Listing...\n"
        "openssl/stable-security,stable 3.0.17-1~deb12u2 amd64 [upgradable from: 3.0.15-1~deb12u1]\n"
        "libc6/stable-updates 2.36-10 amd64 [upgradable from: 2.36-9]\n"
        "libc6/stable-updates 2.36-10 i386 [upgradable from: 2.36-9]\n"
        "curl/jammy-security,now 7.88-2 amd64 [upgradable from: 7.88-1]\n"
        "vim/stable 2:9 amd64 [installed]\nnoise\n"
    )
    assert [(one.name, one.old, one.new, one.is_security) for one in listed(text)] == [
        ("openssl", "3.0.15-1~deb12u1", "3.0.17-1~deb12u2", True),
        ("libc6", "2.36-9", "2.36-10", False),
        ("curl", "7.88-1", "7.88-2", True),
    ]


def _kept_back(out: str) -> set[str]:
    """What apt says it would not upgrade for want of something else."""
    _, _, rest = out.partition("have been kept back:")
    return set(re.split(r"\n\S", rest, maxsplit=1)[0].split())


DNF4 = """FEDORA-2023-4b8b7a2e8d Important/Sec. openssl-libs-1:3.0.9-2.fc38.x86_64
FEDORA-2023-4b8b7a2e8d Important/Sec. openssl-1:3.0.9-2.fc38.x86_64
FEDORA-2023-0123456789 Low/Sec.       python3-pip-22.3.1-3.fc38.noarch
"""
DNF5 = """Name                   Type     Severity                          Package              Issued
FEDORA-2024-7c2b1e0d9a security Important openssl-libs-1:3.2.1-3.fc40.x86_64 2024-07-02 01:20:30
FEDORA-2024-90a1b2c3d4 security Moderate  vim-data-2:9.1.571-1.fc40.noarch   2024-06-30 02:00:00
"""


def test_what_dnf_says() -> None:
    installed = {"openssl": "1:3.0.8-1.fc38"}
    found, oldest = pending_updates.dnf_security(DNF4, installed)
    assert found == (
        PendingUpdate("openssl", "1:3.0.8-1.fc38", "1:3.0.9-2.fc38"),
        PendingUpdate("openssl-libs", "", "1:3.0.9-2.fc38"),
        PendingUpdate("python3-pip", "", "22.3.1-3.fc38"),
    )
    assert oldest is None
    found, oldest = pending_updates.dnf_security(DNF5, {})
    assert [one.name for one in found] == ["openssl-libs", "vim-data"]
    assert oldest == datetime(2024, 6, 30, tzinfo=UTC)
    text = "\nopenssl.x86_64   1:3.0.9-2.fc38   updates\nObsoleting Packages\nold.x86_64  1-1  updates\n"
    assert pending_updates.dnf_updates(text, installed) == (
        PendingUpdate("openssl", "1:3.0.8-1.fc38", "1:3.0.9-2.fc38"),
    )


def test_what_apk_and_opkg_say() -> None:
    text = "libssl3-3.3.2-r1 x86_64 {openssl} (Apache-2.0) [upgradable from: libssl3-3.3.2-r0]\nWARNING: x\n"
    assert pending_updates.apk_upgrades(text) == (PendingUpdate("libssl3", "3.3.2-r0", "3.3.2-r1"),)
    assert pending_updates.opkg_upgrades("dnsmasq - 2.89-1 - 2.90-1\nnoise\n") == (
        PendingUpdate("dnsmasq", "2.89-1", "2.90-1"),
    )


def test_lists_that_are_missing_or_old_say_nothing(tmp_path: Path) -> None:
    for scheme, database, index in (
        ("apk", "lib/apk/db/installed", "var/cache/apk/APKINDEX.0.tar.gz"),
        ("opkg", "usr/lib/opkg/status", "var/opkg-lists/base"),
    ):
        root = put_all(tmp_path / scheme, {database: ""})
        assert "never fetched" in collect(root)["problems"][-1]
        put_all(root, {index: ""})
        os.utime(root / index, (0, NOW.timestamp() - 8 * DAY))
        assert "the package lists are of 2026-11-15" in collect(root)["problems"][-1]
        os.utime(root / index, (0, NOW.timestamp() - DAY))
        section = collect(root)
        assert "on the running system only" in section["problems"][-1]
        assert "security_pending" not in section


class Told(updates.UpdatesCollector):
    """The collector with a manager's answer given to it."""

    def section(self, found: PendingUpdates, now: float) -> tuple[dict[str, Any], list[str]]:
        section: dict[str, Any] = {}
        gaps = GapRecorder()
        self._add_pending(section, found, now, gaps)
        return section, gaps.as_list()


def test_since_when_an_update_waits(tmp_path: Path) -> None:
    a, b = PendingUpdate("a", "1", "2"), PendingUpdate("b", "1", "2")
    told = Told(tmp_path)
    section, gaps = told.section(
        PendingUpdates((a, b), (a,), reason="apt does not keep the age of an update"), 10 * DAY
    )
    assert (section["pending"], section["security_pending"], section["seen_security_days"]) == (2, 1, 0)
    assert gaps == ["oldest_security_days: apt does not keep the age of an update"]
    assert told.section(PendingUpdates((a, b), (a, b)), 13 * DAY)[0]["seen_security_days"] == 3
    assert Told(tmp_path).section(PendingUpdates((b,), (b,)), 15 * DAY)[0]["seen_security_days"] == 2
    assert told.section(PendingUpdates((a,), (a,)), 20 * DAY)[0]["seen_security_days"] == 0, "it was gone in between"
    newer = PendingUpdate("a", "1", "3")
    assert told.section(PendingUpdates((newer,), (newer,)), 25 * DAY)[0]["seen_security_days"] == 0
    (tmp_path / "pending-updates.json").write_text('{"a 3": "x", ')
    assert told.section(PendingUpdates((newer,), (newer,)), 26 * DAY)[0]["seen_security_days"] == 0
    (tmp_path / "pending-updates.json").write_text(json.dumps({"a 3": "x"}))
    assert told.section(PendingUpdates((newer,), (newer,)), 27 * DAY)[0]["seen_security_days"] == 0
    issued = datetime.fromtimestamp(5 * DAY, UTC)
    assert told.section(PendingUpdates((a,), (a,), issued), 30 * DAY)[0]["oldest_security_days"] == 25
    section, gaps = told.section(PendingUpdates((a,), None, reason="apk does not tell"), DAY)
    assert "security_pending" not in section
    assert gaps == ["security_pending: apk does not tell"]


def test_what_waits_here_as_apt_itself_sees_it() -> None:
    if scheme_of(System()) != "deb" or shutil.which("apt") is None:
        pytest.skip("this machine has no apt")
    section = updates.UpdatesCollector()(System())
    sent = normalise_findings({"updates": section}).sections["updates"]
    assert sent["state"] == "ok"
    if section.get("pending") is None:
        assert any(problem.startswith("security_pending: the package lists") for problem in section["problems"])
        return
    # What is held, or being phased in, waits as well; of whatever else is not installed apt says that it keeps it back.
    options = ("Debug::NoLocking=1", "APT::Ignore-Hold=1", "APT::Get::Always-Include-Phased-Updates=1")
    argv = ["apt-get", "-q", "-s", *(word for option in options for word in ("-o", option)), "dist-upgrade"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100).stdout
    told = {(one.name.partition(":")[0], one.old, one.new, one.is_security) for one in upgrades(out)}
    found = pending_updates.list_pending_updates(System(), "deb", {})
    assert found.security is not None
    secure = set(found.security)
    assert {(one.name, one.old, one.new, one in secure) for one in found.all} >= told
    assert {one.name for one in found.all} - {one[0] for one in told} <= _kept_back(out)
    assert (section["pending"], section["security_pending"]) == (len(found.all), len(secure))


@pytest.mark.skipif(shutil.which("apt") is None, reason="no apt here")
def test_apt_is_asked_again_only_when_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = put_all(tmp_path / "root", {"var/lib/dpkg/status": STATUS, "var/lib/apt/lists/x_Packages": ""})
    calls = tmp_path / "calls"
    program = tmp_path / "bin/apt"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho . >> {calls}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    now = [(root / "var/lib/apt/lists").stat().st_mtime]
    collector = updates.UpdatesCollector(clock=lambda: now[0])

    def asked_again() -> bool:
        before = len(calls.read_text()) if calls.exists() else 0
        assert collector(System(root))["security_pending"] == 0
        return len(calls.read_text()) > before

    assert asked_again()
    assert not asked_again()
    (root / "var/lib/dpkg/status").write_text(STATUS + "\n")
    assert asked_again()
    now[0] += 7 * 3600
    assert asked_again()
    assert not asked_again()


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="PackgeVrsionSttu: \n\t-.[]()0123456789~oinld/\x00é", max_size=400))
def test_any_text_is_read_without_complaint(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    path = root / "status"
    path.write_text("Package: a\n" + text)
    for read in (inventory._deb, inventory._apk, inventory._opkg):
        for package in read(path):
            assert package.name
            assert "\n" not in str(package)
    list(inventory.rpm_lines(text))
    pending_updates.dnf_security(text, {})
    pending_updates.dnf_updates(text, {})
    pending_updates.apk_upgrades(text)
    pending_updates.opkg_upgrades(text)
    kernels.release_key(text)
