"""Installed packages and pending updates: prepared roots, the output of each package manager, this machine."""

import contextlib
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

from device_agent.collectors.base import SectionBuilder
from device_agent.collectors.software import (
    inventory,
    kernels,
    pending_rpm,
    pending_updates,
    updates,
)
from device_agent.collectors.software.pending_model import PendingUpdate, PendingUpdates
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError
from device_agent.host.apt import listed, upgrades
from device_agent.host.packages import package_scheme
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.support.pki import NOW
from tests.support.root_folder import gap_texts, put_all

DAY = 86_400.0
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}.get(platform.machine(), "amd64")
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
    section = updates.UpdatesCollector(clock=NOW.timestamp, **options)(System(root))
    sent = normalise_findings({"updates": section}).sections["updates"]
    assert sent["state"] == "ok", sent
    return section


def test_installed_packages_of_debian(tmp_path: Path) -> None:
    section = collect(put_all(tmp_path, {"var/lib/dpkg/status": STATUS}))
    assert section["installed"] == [
        "libc6 2.36-9 glibc",
        "libssl3 3.0.17-1~deb12u2 openssl 3.0.17-1",
        "openssl 3.0.17-1~deb12u2",
    ]
    assert section["installed_count"] == 3
    other = collect(put_all(tmp_path / "b", {"var/lib/dpkg/status": STATUS.replace("2.36-9", "2.36-10")}))
    assert section["installed_digest"] != other["installed_digest"]
    assert gap_texts(section) == [
        "kernel_current: no installed kernel was found",
        *(
            f"{field}: the package lists were never fetched: run apt-get update"
            for field in ("oldest_security_days", "pending", "security_pending", "seen_security_days")
        ),
    ]


def test_installed_packages_of_alpine_and_openwrt(tmp_path: Path) -> None:
    apk = "C:Q1\nP:libssl3\nV:3.3.2-r0\no:openssl\n\nP:musl\nV:1.2.5-r0\no:musl\nF:lib\n"
    section = collect(put_all(tmp_path / "apk", {"lib/apk/db/installed": apk}))
    assert (section["manager"], section["installed"]) == ("apk", ["libssl3 3.3.2-r0 openssl", "musl 1.2.5-r0"])
    opkg = (
        "Package: dnsmasq\nVersion: 2.90-1\nStatus: install user installed\n\nPackage: x\nVersion: 1\nStatus: a b c\n"
    )
    section = collect(put_all(tmp_path / "opkg", {"usr/lib/opkg/status": opkg}))
    assert (section["manager"], section["installed"]) == ("opkg", ["dnsmasq 2.90-1"])


def test_installed_packages_of_fedora() -> None:
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
    shutil.which("dpkg-query") is None or package_scheme(System()) != "deb", reason="this machine has no dpkg"
)
def test_installed_packages_of_this_machine_match_dpkg() -> None:
    argv = ["dpkg-query", "-W", "-f", "${db:Status-Status}\t${Package}\t${Version}\t${source:Package}\n"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split("\t") for line in out.splitlines()]
    listed_by_dpkg = {(row[1], row[2], row[3]) for row in rows if row[0] == "installed"}
    packages = inventory.packages(System(), "deb").value
    assert {(p.name, p.version, p.source or p.name) for p in packages} == listed_by_dpkg


def test_installed_kernels_are_ordered_by_release(tmp_path: Path) -> None:
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


def _newest(root: Path, monkeypatch: pytest.MonkeyPatch, running: str, *others: str) -> tuple[str, bool | None]:
    put_all(root, {f"boot/vmlinuz-{name}": "" for name in (running, *others)})
    monkeypatch.setattr(System, "is_live", property(lambda _: True))
    uname = platform.uname()._replace(release=running, version="#1")
    monkeypatch.setattr(platform, "uname", lambda: uname)
    return kernels.newest_and_current(System(root))


@pytest.mark.parametrize(
    ("running", "other"),
    [
        ("6.1.0-rpi7-rpi-v8", "6.1.0-rpi8-rpi-v8"),
        ("5.10.168-ti-r80", "5.10.168-ti-r82"),
        ("6.6.37-gentoo", "6.6.37-gentoo-r1"),
        ("6.12.9-zen1-1-zen", "6.12.10-zen2-1-zen"),
        ("6.6.32-yocto-standard-gabc1234", "6.6.40-yocto-standard-g9f81b2c"),
    ],
)
def test_numbers_of_builds_are_no_flavour(
    running: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _newest(tmp_path, monkeypatch, running, other) == (other, False)


@pytest.mark.parametrize(
    ("running", "other"),
    [("6.1.0-vendor7", "6.1.0-vendor8"), ("6.6.32-yocto-gabc1234", "6.6.32-yocto-g9f81b2c")],
)
def test_kernels_whose_names_do_not_tell_the_newer_are_unknown(
    running: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FactsUnavailableError, match="which kernel is newer"):
        _newest(tmp_path, monkeypatch, running, other)


@pytest.mark.parametrize(
    ("running", "other"), [("6.6.31+rpt-rpi-v7", "6.6.31+rpt-rpi-v8"), ("6.1.0-41-686", "6.1.0-42-amd64")]
)
def test_processors_are_flavours(running: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _newest(tmp_path, monkeypatch, running, other) == (running, True)


def test_the_running_kernel_of_this_machine() -> None:
    releases = kernels.releases(System())
    if not releases:
        with pytest.raises(FactsUnavailableError):
            kernels.newest_and_current(System())
        return
    newest, is_current = kernels.newest_and_current(System())
    assert newest in releases
    assert is_current in (True, False)
    assert is_current is False or newest == platform.release()


def test_upgradable_packages_are_parsed_from_apt_list() -> None:
    text = (
        "Listing...\n"
        "openssl/stable-security,stable 3.0.17-1~deb12u2 amd64 [upgradable from: 3.0.15-1~deb12u1]\n"
        "libc6/stable-updates 2.36-10 amd64 [upgradable from: 2.36-9]\n"
        "libc6/stable-updates 2.36-10 i386 [upgradable from: 2.36-9]\n"
        "curl/jammy-security,now 7.88-2 amd64 [upgradable from: 7.88-1]\n"
        "vim/stable 2:9 amd64 [installed]\nnoise\n"
    )
    assert [(u.name, u.old, u.new, u.is_security) for u in listed(text)] == [
        ("openssl", "3.0.15-1~deb12u1", "3.0.17-1~deb12u2", True),
        ("libc6", "2.36-9", "2.36-10", False),
        ("curl", "7.88-1", "7.88-2", True),
    ]


def _kept_back(out: str) -> set[str]:
    """Returns the packages that apt keeps back because of missing dependencies."""
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


def test_pending_updates_are_parsed_from_dnf() -> None:
    installed = {"openssl": "1:3.0.8-1.fc38"}
    updates, oldest = pending_rpm.dnf_security(DNF4, installed)
    assert updates == (
        PendingUpdate("openssl", "1:3.0.8-1.fc38", "1:3.0.9-2.fc38"),
        PendingUpdate("openssl-libs", "", "1:3.0.9-2.fc38"),
        PendingUpdate("python3-pip", "", "22.3.1-3.fc38"),
    )
    assert oldest is None
    updates, oldest = pending_rpm.dnf_security(DNF5, {})
    assert [update.name for update in updates] == ["openssl-libs", "vim-data"]
    assert oldest == datetime(2024, 6, 30, tzinfo=UTC)
    text = "\nopenssl.x86_64   1:3.0.9-2.fc38   updates\nObsoleting Packages\nold.x86_64  1-1  updates\n"
    assert pending_rpm.dnf_updates(text, installed) == (PendingUpdate("openssl", "1:3.0.8-1.fc38", "1:3.0.9-2.fc38"),)


def test_pending_updates_are_parsed_from_apk_and_opkg() -> None:
    text = "libssl3-3.3.2-r1 x86_64 {openssl} (Apache-2.0) [upgradable from: libssl3-3.3.2-r0]\nWARNING: x\n"
    assert pending_updates.apk_upgrades(text) == (PendingUpdate("libssl3", "3.3.2-r0", "3.3.2-r1"),)
    assert pending_updates.opkg_upgrades("dnsmasq - 2.89-1 - 2.90-1\nnoise\n") == (
        PendingUpdate("dnsmasq", "2.89-1", "2.90-1"),
    )


def test_missing_or_old_package_lists_give_a_reason_instead_of_updates(tmp_path: Path) -> None:
    for scheme, database, index, sources, text in (
        ("apk", "lib/apk/db/installed", "var/cache/apk/APKINDEX.0.tar.gz", "etc/apk/repositories", "https://x/main"),
        ("opkg", "usr/lib/opkg/status", "var/opkg-lists/base", "etc/opkg.conf", "src/gz base https://x"),
    ):
        root = put_all(tmp_path / scheme, {database: ""})
        assert "no package source is configured" in gap_texts(collect(root))[-1]
        put_all(root, {sources: text})
        assert "never fetched" in gap_texts(collect(root))[-1]
        put_all(root, {index: ""})
        os.utime(root / index, (0, NOW.timestamp() - 8 * DAY))
        assert "the package lists are of 2026-11-15" in gap_texts(collect(root))[-1]
        os.utime(root / index, (0, NOW.timestamp() - DAY))
        section = collect(root)
        assert "on the running system only" in gap_texts(section)[-1]
        assert "security_pending" not in section


def pending_section(state_dir: Path, pending: PendingUpdates, now: float) -> tuple[dict[str, Any], list[str]]:
    builder = SectionBuilder()
    updates.UpdatesCollector(state_dir).add_pending(builder, pending, now)
    section = builder.build()
    return section, gap_texts(section)


def test_the_age_of_pending_updates_is_reported(tmp_path: Path) -> None:
    a, b = PendingUpdate("a", "1", "2"), PendingUpdate("b", "1", "2")
    pending = PendingUpdates((a, b), (a,), reason="apt does not keep the age of an update")
    section, gaps = pending_section(tmp_path, pending, 10 * DAY)
    assert (section["pending"], section["security_pending"], section["seen_security_days"]) == (2, 1, 0)
    assert pending_section(tmp_path / "no", PendingUpdates((a, b), (b,)), DAY)[0]["pending_names"] == ["b", "a"]
    assert gaps == ["oldest_security_days: apt does not keep the age of an update"]
    assert pending_section(tmp_path, PendingUpdates((a, b), (a, b)), 13 * DAY)[0]["seen_security_days"] == 3
    assert pending_section(tmp_path, PendingUpdates((b,), (b,)), 15 * DAY)[0]["seen_security_days"] == 2
    # `a` was not pending on day 15: its age starts again.
    assert pending_section(tmp_path, PendingUpdates((a,), (a,)), 20 * DAY)[0]["seen_security_days"] == 0
    newer = PendingUpdate("a", "1", "3")
    assert pending_section(tmp_path, PendingUpdates((newer,), (newer,)), 25 * DAY)[0]["seen_security_days"] == 0
    (tmp_path / "pending-updates.json").write_text('{"a 3": "x", ')
    assert pending_section(tmp_path, PendingUpdates((newer,), (newer,)), 26 * DAY)[0]["seen_security_days"] == 0
    (tmp_path / "pending-updates.json").write_text(json.dumps({"a 3": "x"}))
    assert pending_section(tmp_path, PendingUpdates((newer,), (newer,)), 27 * DAY)[0]["seen_security_days"] == 0
    issued = datetime.fromtimestamp(5 * DAY, UTC)
    assert pending_section(tmp_path, PendingUpdates((a,), (a,), issued), 30 * DAY)[0]["oldest_security_days"] == 25
    section, gaps = pending_section(tmp_path, PendingUpdates((a,), None, reason="apk has no advisories"), DAY)
    assert "security_pending" not in section
    assert (section["pending"], section["pending_names"]) == (1, ["a"])
    assert gaps == [
        f"{field}: apk has no advisories"
        for field in ("oldest_security_days", "security_pending", "seen_security_days")
    ]


def test_pending_updates_of_this_machine_match_apt() -> None:
    if package_scheme(System()) != "deb" or shutil.which("apt") is None:
        pytest.skip("this machine has no apt")
    section = updates.UpdatesCollector()(System())
    sent = normalise_findings({"updates": section}).sections["updates"]
    assert sent["state"] == "ok"
    if section.get("pending") is None:
        assert any(problem.startswith("security_pending: the package lists") for problem in gap_texts(section))
        return
    # Held and phased updates are pending too; apt lists the others that it would not install as kept back.
    options = ("Debug::NoLocking=1", "APT::Ignore-Hold=1", "APT::Get::Always-Include-Phased-Updates=1")
    argv = ["apt-get", "-q", "-s", *(word for option in options for word in ("-o", option)), "dist-upgrade"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=100).stdout
    by_apt = {(u.name.partition(":")[0], u.old, u.new, u.is_security) for u in upgrades(out)}
    pending = pending_updates.list_pending_updates(System(), "deb", {})
    assert pending.security is not None
    security = set(pending.security)
    assert {(u.name, u.old, u.new, u in security) for u in pending.all} >= by_apt
    assert {update.name for update in pending.all} - {name for name, *_ in by_apt} <= _kept_back(out)
    assert (section["pending"], section["security_pending"]) == (len(pending.all), len(security))


@pytest.mark.skipif(shutil.which("apt") is None, reason="no apt here")
def test_apt_is_queried_again_only_after_a_change_or_six_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "var/lib/apt/lists/x.example_dists_bookworm-security"
    root = put_all(
        tmp_path / "root",
        {
            "var/lib/dpkg/status": STATUS,
            "etc/apt/sources.list": "deb https://x.example bookworm-security main\n",
            f"{name}_main_binary-all_Packages": "",
            f"{name}_main_binary-{ARCHITECTURE}_Packages": "",
            f"{name}_Release": "Origin: Debian\nSuite: stable-security\nDate: Sun, 29 Nov 2026 00:53:13 UTC\n",
        },
    )
    calls = tmp_path / "calls"
    program = tmp_path / "bin/apt"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho . >> {calls}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    now = [datetime(2026, 11, 30, tzinfo=UTC).timestamp()]
    collector = updates.UpdatesCollector(clock=lambda: now[0])

    def queries_apt() -> bool:
        before = len(calls.read_text()) if calls.exists() else 0
        assert collector(System(root))["security_pending"] == 0
        return len(calls.read_text()) > before

    assert queries_apt()
    assert not queries_apt()
    (root / "var/lib/dpkg/status").write_text(STATUS + "\n")
    assert queries_apt()
    now[0] += 7 * 3600
    assert queries_apt()
    assert not queries_apt()


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="PackgeVrsionSttu: \n\t-.[]()0123456789~oinld/\x00é", max_size=400))
def test_any_text_is_parsed_without_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    path = root / "status"
    path.write_text("Package: a\n" + text)
    for parse in (inventory.read_dpkg, inventory.read_apk, inventory.read_opkg):
        for package in parse(path, GapRecorder()):
            assert package.name
            assert "\n" not in str(package)
    list(inventory.rpm_lines(text))
    with contextlib.suppress(FactsUnavailableError):  # it refuses what it does not understand
        pending_rpm.dnf_security(text, {})
    pending_rpm.dnf_updates(text, {})
    pending_updates.apk_upgrades(text)
    pending_updates.opkg_upgrades(text)
    kernels.release_key(text)
