"""Security updates are known only where something tells them, and only as long as the lists are recent.

The roots of apt are read by the real apt; stand-ins print what dnf and zypper print.
"""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from device_agent.collectors.software.updates import UpdatesCollector
from device_agent.host.apt import listed, upgrades
from device_agent.host.system import System
from tests.support.pki import NOW
from tests.support.root_folder import gap_texts, put, put_all

DAY = 86_400.0
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}.get(platform.machine(), "amd64")
needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt here")


def package(name: str, version: str, **more: str) -> str:
    fields = {"Package": name, "Architecture": ARCHITECTURE, "Maintainer": "x <x@example.org>", "Version": version}
    fields |= {"Description": "x", **more}
    return "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n"


def available(*packages: tuple[str, str]) -> str:
    found = {"Filename": "x.deb", "Size": "1", "SHA256": "0" * 64}
    return "".join(package(name, version, **found) for name, version in packages)


def source(suite: str, origin: str = "Debian", *packages: tuple[str, str], site: str = "deb.example.org",
           date: str = "Sun, 22 Nov 2026 00:53:13 UTC") -> dict[str, str]:  # fmt: skip
    """Returns the files of a fetched list."""
    name = f"/var/lib/apt/lists/{site}_dists_{suite.replace('/', '_')}"
    return {
        f"{name}_InRelease": f"Origin: {origin}\nLabel: {origin}\nSuite: {suite}\nCodename: {suite}\nDate: {date}\n",
        f"{name}_main_binary-{ARCHITECTURE}_Packages": available(*packages),
        f"{name}_main_binary-all_Packages": "",
    }


def apt_root(folder: Path, sources: str, *lists: Mapping[str, str], installed: str = "3.0.9-1") -> Path:
    files = {
        "/etc/os-release": "ID=debian\n",
        "/etc/apt/sources.list": sources,
        "/var/lib/dpkg/status": package("openssl", installed, Status="install ok installed")
        + package("other", "1-1", Status="install ok installed"),
    }
    for one in lists:
        files.update(one)
    return put_all(folder, files)


def collect(root: Path, now: float = NOW.timestamp()) -> dict[str, Any]:
    return UpdatesCollector(clock=lambda: now)(System(root))


MAIN, SECURE = (f"deb http://deb.example.org {suite} main\n" for suite in ("bookworm", "bookworm-security"))
OLD, NEW = ("openssl", "3.0.9-1"), ("openssl", "3.0.11-1")


@needs_apt
@pytest.mark.parametrize(
    ("sources", "lists", "expected"),
    [
        (MAIN + SECURE, (source("bookworm"), source("bookworm-security")), 0),
        (MAIN + SECURE, (source("bookworm"), source("bookworm-security", "Debian", NEW)), 1),
        # A point release has the fix and more.
        (
            MAIN + SECURE,
            (source("bookworm", "Debian", ("openssl", "3.0.13-1")), source("bookworm-security", "Debian", NEW)),
            1,
        ),
        (MAIN + SECURE, (source("bookworm", "Debian", ("other", "1-2")), source("bookworm-security")), 0),
        # Ubuntu Pro.
        (
            "deb http://deb.example.org jammy-apps-security main\n",
            (source("jammy-apps-security", "UbuntuESMApps", NEW),),
            1,
        ),
        (
            "deb http://deb.example.org jammy-infra-security main\n",
            (source("jammy-infra-security", "UbuntuESM", NEW),),
            1,
        ),
        ("deb http://deb.example.org buster/updates main\n", (source("buster/updates", "Debian", NEW),), 1),
        # A long quiet suite of the release beside a recent one of security.
        (
            MAIN + SECURE,
            (source("bookworm", date="Sat, 11 Jul 2026 10:16:00 UTC"), source("bookworm-security")),
            0,
        ),
    ],
)
def test_security_updates_of_apt(
    tmp_path: Path, sources: str, lists: tuple[Mapping[str, str], ...], expected: int
) -> None:
    section = collect(apt_root(tmp_path, sources, *lists))
    assert section["security_pending"] == expected, gap_texts(section)
    assert "pending" in section


RASPBIAN = "deb http://raspbian.example.org/ trixie main\n"
NO_SOURCE = "no source of security updates is configured"


@needs_apt
@pytest.mark.parametrize(
    ("sources", "lists", "reason"),
    [
        (MAIN, (source("bookworm", "Debian", NEW),), NO_SOURCE),
        (RASPBIAN, (source("trixie", "Raspbian", NEW, site="raspbian.example.org"),), NO_SOURCE),
        ("deb http://deb.example.org kali-rolling main\n", (source("kali-rolling", "Kali"),), NO_SOURCE),
        (MAIN + "#" + SECURE, (source("bookworm"), source("bookworm-security")), NO_SOURCE),
        (
            MAIN + SECURE,
            (source("bookworm"),),
            "the list bookworm-security of http://deb.example.org was never fetched",
        ),
        (
            MAIN + SECURE + "deb http://docker.example.org bookworm main\n",
            (
                source("bookworm"),
                source("bookworm-security"),
                source("bookworm", "Docker", ("other", "2-1"), site="docker.example.org"),
            ),
            "other waits in a source that does not tell security updates",
        ),
        (
            MAIN + SECURE,
            (source("bookworm"), source("bookworm-security", date="Tue, 10 Nov 2026 00:00:00 UTC")),
            "deb.example.org_dists_bookworm-security_InRelease is older than a week",
        ),
        (
            MAIN + SECURE,
            (source("bookworm"), source("bookworm-security", date="yesterday")),
            "deb.example.org_dists_bookworm-security_InRelease has no date",
        ),
        (
            MAIN + SECURE,
            (source("bookworm"), source("bookworm-security", date="Tue, 01 Jan 2030 00:00:00 UTC")),
            "is of the future",
        ),
    ],
)
def test_security_updates_of_apt_that_nothing_tells(
    tmp_path: Path, sources: str, lists: tuple[Mapping[str, str], ...], reason: str
) -> None:
    section = collect(apt_root(tmp_path, sources, *lists))
    assert "security_pending" not in section
    assert any(text.startswith("security_pending: ") and reason in text for text in gap_texts(section))


@needs_apt
def test_a_security_source_from_which_apt_installs_nothing_tells_nothing(tmp_path: Path) -> None:
    root = apt_root(tmp_path, MAIN + SECURE, source("bookworm"), source("bookworm-security", "Debian", NEW))
    put(root, "/etc/apt/preferences.d/x", "Package: *\nPin: release n=bookworm-security\nPin-Priority: -1\n")
    section = collect(root)
    assert "security_pending" not in section
    reason = "apt installs nothing from bookworm-security: its priority is -1"
    assert f"security_pending: {reason}" in gap_texts(section)


@needs_apt
def test_a_list_that_was_never_fetched_hides_pending_updates(tmp_path: Path) -> None:
    extra = "deb http://vendor.example.org x main\n"
    section = collect(apt_root(tmp_path, MAIN + SECURE + extra, source("bookworm"), source("bookworm-security")))
    assert section["security_pending"] == 0
    assert "pending" not in section
    assert any("the list x of http://vendor.example.org was never fetched" in text for text in gap_texts(section))


def test_lists_that_stopped_refreshing_are_old_whatever_the_times_of_folders(tmp_path: Path) -> None:
    """A failing `apt-get update` writes the folders, and not the lists."""
    files = {"/var/lib/dpkg/status": "", "/var/lib/apt/lists/partial/x": "", "/var/lib/apt/lists/a_Packages": ""}
    root = put_all(tmp_path, files)
    reason = "no Release file says when the package lists were made: run apt-get update"
    assert f"security_pending: {reason}" in gap_texts(collect(root))
    put(root, "/var/lib/apt/lists/a_Release", "Date: Sat, 11 Jul 2026 10:16:00 UTC\n")
    assert any("the package lists are of 2026-07-11" in text for text in gap_texts(collect(root)))
    stamp = put(root, "/var/lib/apt/periodic/update-success-stamp")
    os.utime(stamp, (0, NOW.timestamp() - 8 * DAY))
    assert any("the package lists are of 2026-11-" in text for text in gap_texts(collect(root)))
    os.utime(stamp, (0, NOW.timestamp() - DAY))
    assert not any("the package lists are of" in text for text in gap_texts(collect(root)))


def test_suites_of_security_under_other_names_are_recognised() -> None:
    suites = ("jammy-security", "jammy-apps-security", "jammy-infra-security", "stable-security", "now")
    text = "".join(f"a{n}/{suite} 2 amd64 [upgradable from: 1]\n" for n, suite in enumerate(suites))
    assert [upgrade.is_security for upgrade in listed(text)] == [True, True, True, True, False]
    origins = ("Debian-Security:12/stable-security", "UbuntuESMApps:22.04/jammy-apps-security", "Debian:12/stable")
    text = "".join(f"Inst a{n} [1] (2 {origin} [amd64])\n" for n, origin in enumerate(origins))
    assert [upgrade.is_security for upgrade in upgrades(text)] == [True, True, False]


class LiveRoot(System):
    """A prepared folder taken for the running machine."""

    is_live = True


CHECK = "\nopenssl-libs.x86_64  1:3.5.1-4.el9  baseos\nkernel.x86_64  5.14.0-630.el9  baseos\n"
ERRATA = '<repomd><data type="updateinfo"/></repomd>'
ADVISORY = "RHSA-2026:1 Important/Sec. openssl-libs-1:3.5.1-4.el9.x86_64\n"
ZYPPER_UPDATES = (
    '<stream><update-status><update-list><update kind="package" name="libopenssl3" edition="3.1-2" arch="x86_64" '
    'edition-old="3.1-1"><summary/></update></update-list></update-status></stream>\n'
)
ZYPPER_PATCHES = (
    '<stream><update-list><update kind="patch" name="SUSE-2026-1" edition="1" category="security" status="needed">'
    '<issue-date time_t="1790000000" text="x"/></update>'
    '<update kind="patch" name="SUSE-2026-0" edition="1" category="security" status="applied"></update></update-list>'
)


def rpm_root(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repos: Mapping[str, str | None],
    advisories: str,
    check: str = CHECK,
) -> System:
    """Returns a system with repositories (id: its repomd.xml, None if never fetched) and a dnf that prints this."""
    root = put_all(tmp_path / "root", {"/etc/os-release": "ID=centos\n", "/var/lib/rpm/rpmdb.sqlite": "x"})
    text = "".join(f"[{name}]\nbaseurl=https://x.example/{name}\ngpgcheck=1\n" for name in repos)
    put(root, "/etc/yum.repos.d/all.repo", text + "[off]\nbaseurl=https://x.example/off\nenabled=0\n")
    for name, metadata in repos.items():
        if metadata is not None:
            file = put(root, f"/var/cache/dnf/{name}-0123456789abcdef/repodata/repomd.xml", metadata)
            os.utime(file, (0, NOW.timestamp() - DAY))
    programs = tmp_path / "bin"
    put(programs, "updateinfo", advisories)
    put(programs, "check", check)
    script = 'case "$*" in\n*updateinfo*) cat "$(dirname "$0")/updateinfo";;\n'
    script += '*check-update*) cat "$(dirname "$0")/check"; exit 100;;\n*) exit 1;;\nesac\n'
    put(programs, "dnf", f"#!/bin/sh\n{script}", 0o755)
    put(programs, "rpm", "#!/bin/sh\nprintf 'openssl-libs\\t1:3.0.7-2.el9\\topenssl-3.0.7-2.el9.src.rpm\\n'\n", 0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return LiveRoot(root)


def collect_rpm(system: System) -> dict[str, Any]:
    return UpdatesCollector(clock=NOW.timestamp)(system)


@pytest.mark.parametrize(
    ("repos", "advisories", "check", "expected"),
    [
        ({"baseos": ERRATA}, ADVISORY, CHECK, 1),
        ({"baseos": ERRATA}, "", CHECK, 0),
        ({"baseos": ERRATA, "fedora": "<repomd/>"}, "", CHECK, 0),
        ({"baseos": ERRATA, "vendor": "<repomd/>"}, ADVISORY, CHECK.replace("  baseos", "  vendor", 1), 1),
        ({"baseos": ERRATA}, "", "", 0),
        ({"baseos": "<repomd/>"}, "", CHECK, "no enabled repository has errata"),
        ({"baseos": "<repomd/>", "appstream": "<repomd/>"}, "", "", "no enabled repository has errata"),
        (
            {"baseos": ERRATA, "vendor": "<repomd/>"},
            "",
            CHECK.replace("  baseos", "  vendor", 1),
            "updates wait in repository vendor, which has no errata",
        ),
        ({"baseos": ERRATA, "updates": None}, "", CHECK, "the package lists of updates were never fetched"),
        ({}, "", CHECK, "no repository is enabled"),
    ],
)
def test_security_updates_of_dnf_are_known_where_there_are_errata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repos: Mapping[str, str | None], advisories: str, check: str,
    expected: int | str,
) -> None:  # fmt: skip
    section = collect_rpm(rpm_root(tmp_path, monkeypatch, repos, advisories, check))
    if isinstance(expected, int):
        assert section["security_pending"] == expected, gap_texts(section)
    else:
        assert "security_pending" not in section
        assert any(text.startswith("security_pending: ") and expected in text for text in gap_texts(section))


def test_one_repository_of_dnf_that_stopped_refreshing_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = rpm_root(tmp_path, monkeypatch, {"baseos": ERRATA, "appstream": ERRATA}, "")
    assert collect_rpm(system)["security_pending"] == 0
    for file in system.root.glob("var/cache/dnf/appstream-*/repodata/repomd.xml"):
        os.utime(file, (0, NOW.timestamp() - 30 * DAY))
    assert any("the package lists of appstream are of" in text for text in gap_texts(collect_rpm(system)))


@pytest.mark.parametrize(
    ("metadata", "expected"), [(ERRATA, 1), ("<repomd/>", "no enabled repository has errata"), (None, "never fetched")]
)
def test_pending_updates_of_zypper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str | None, expected: int | str
) -> None:
    system = rpm_root(tmp_path, monkeypatch, {}, "")
    put(system.root, "/etc/os-release", 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n')
    put(system.root, "/etc/zypp/repos.d/oss.repo", "[oss]\nenabled=1\nbaseurl=https://x.example/\n")
    if metadata is not None:
        file = put(system.root, "/var/cache/zypp/raw/oss/repodata/repomd.xml", metadata)
        os.utime(file, (0, NOW.timestamp() - DAY))
    for name, text in (("updates", ZYPPER_UPDATES), ("patches", ZYPPER_PATCHES)):
        put(tmp_path, f"bin/{name}", text)
    script = 'case "$*" in\n*list-updates*) cat "$(dirname "$0")/updates";;\n'
    script += '*"list-patches --category security"*) cat "$(dirname "$0")/patches";;\n*) exit 1;;\nesac\n'
    put(tmp_path, "bin/zypper", f"#!/bin/sh\n{script}", 0o755)
    section = collect_rpm(system)
    if isinstance(expected, int):
        assert (section["manager"], section["pending"], section["security_pending"]) == ("zypper", 1, expected)
        assert section["packages"] == [{"name": "SUSE-2026-1", "installed": "", "candidate": "1"}]
        assert section["oldest_security_days"] == (NOW.timestamp() - 1_790_000_000) // DAY + 1
    else:
        assert "security_pending" not in section
        assert any(expected in text for text in gap_texts(section))


def test_one_index_of_apk_that_stopped_refreshing_is_enough(tmp_path: Path) -> None:
    root = put_all(tmp_path, {"/etc/os-release": "ID=alpine\n", "/lib/apk/db/installed": ""})
    put(root, "/etc/apk/repositories", "https://x.example/main\n@edge https://x.example/edge\n/media/apks\n")
    files = [put(root, f"/var/cache/apk/APKINDEX.{name}.tar.gz") for name in ("a", "b", "c")]
    for file, days in zip(files, (1, 1, 900), strict=True):
        os.utime(file, (0, NOW.timestamp() - days * DAY))
    assert any("on the running system only" in text for text in gap_texts(collect(root))), "c is of an old repository"
    os.utime(files[1], (0, NOW.timestamp() - 30 * DAY))
    assert any("the package lists of repositories:2 are of" in text for text in gap_texts(collect(root)))


@pytest.mark.parametrize("folder", ["/var/opkg-lists", "/var/lib/opkg/lists"])
def test_one_list_of_opkg_that_stopped_refreshing_is_enough(tmp_path: Path, folder: str) -> None:
    root = put_all(tmp_path, {"/etc/os-release": "ID=poky\n", "/var/lib/opkg/status": ""})
    put(root, "/etc/opkg/base-feeds.conf", "src/gz base https://x.example/base\nsrc/gz all https://x.example/all\n")
    files = [put(root, f"{folder}/{name}") for name in ("base", "all")]
    for file in files:
        os.utime(file, (0, NOW.timestamp() - DAY))
    assert any("on the running system only" in text for text in gap_texts(collect(root)))
    os.utime(files[1], (0, NOW.timestamp() - 30 * DAY))
    assert any("the package lists of all are of" in text for text in gap_texts(collect(root)))
    files[1].unlink()
    assert any("the package lists of all were never fetched" in text for text in gap_texts(collect(root)))
