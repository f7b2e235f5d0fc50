"""Package managers, installed packages and kernels on prepared roots of many distributions."""

import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_agent.collectors.base import Collector
from device_agent.collectors.crypto import openssl
from device_agent.collectors.software import inventory, kernels, sources
from device_agent.collectors.software.updates import UpdatesCollector
from device_agent.errors import FactsUnavailableError
from device_agent.host.packages import installed, package_manager, package_scheme, why_updates_are_hidden
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.support.root_folder import gap_texts, put_all

STANZA = "Package: libssl3\nStatus: install ok installed\nVersion: 3.0.15-1~deb12u1\n"
OPKG = "Package: openssl\nVersion: 3.2.3-r0\nStatus: install ok installed\nArchitecture: cortexa7t2hf-neon\n\n"
APK = "P:openssl\nV:3.3.2-r0\n\n"
DPKG, RPM = "/var/lib/dpkg/status", "/usr/lib/sysimage/rpm/rpmdb.sqlite"


class LiveRoot(System):
    """A prepared folder taken for the running machine."""

    is_live = True


def os_release(name: str, like: str = "") -> dict[str, str]:
    return {"/etc/os-release": f'ID="{name}"\n' + (f'ID_LIKE="{like}"\n' if like else "")}


@pytest.mark.parametrize(
    ("files", "manager"),
    [
        ({**os_release("debian"), DPKG: STANZA, RPM: "x"}, "apt"),
        ({**os_release("raspbian", "debian"), DPKG: STANZA}, "apt"),
        ({**os_release("fedora"), DPKG: STANZA, RPM: "x"}, "dnf"),
        ({**os_release("almalinux", "rhel centos fedora"), DPKG: STANZA, "/var/lib/rpm/rpmdb.sqlite": "x"}, "dnf"),
        ({DPKG: "", "/var/lib/rpm/rpmdb.sqlite": "x"}, "dnf"),
        ({**os_release("alpine"), DPKG: STANZA, "/lib/apk/db/installed": APK}, "apk"),
        ({**os_release("alpine"), "/usr/lib/apk/db/installed": APK}, "apk"),
        ({**os_release("opensuse-leap", "suse opensuse"), RPM: "x"}, "zypper"),
        ({**os_release("sles"), RPM: "x"}, "zypper"),
        ({**os_release("openwrt", "lede openwrt"), "/usr/lib/opkg/status": OPKG}, "opkg"),
        ({**os_release("openwrt", "lede openwrt"), "/lib/apk/db/installed": APK, "/usr/lib/opkg/status": ""}, "apk"),
        ({**os_release("poky"), "/var/lib/opkg/status": OPKG}, "opkg"),
        ({**os_release("poky"), "/var/lib/rpm/rpmdb.sqlite": "x"}, "dnf"),
        ({**os_release("poky"), DPKG: STANZA}, "apt"),
        ({**os_release("fedora"), "/usr/share/rpm/rpmdb.sqlite": "x", "/run/ostree-booted": ""}, "rpm-ostree"),
        ({**os_release("debian"), "/var/lib/dpkg/status.d/libssl3": STANZA}, "apt"),
        ({**os_release("buildroot")}, None),
        ({**os_release("fedora"), DPKG: STANZA}, None),
    ],
)
def test_the_package_manager_goes_by_os_release(files: dict[str, str], manager: str | None, tmp_path: Path) -> None:
    system = System(put_all(tmp_path, files))
    scheme = package_scheme(system)
    assert (scheme and package_manager(system, scheme)) == manager


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({**os_release("debian"), "/var/lib/dpkg/status.d/libssl3": STANZA}, "distroless"),
        ({**os_release("fedora"), "/usr/share/rpm/rpmdb.sqlite": "x", "/run/ostree-booted": ""}, "rpm-ostree"),
        ({**os_release("rhel", "fedora"), RPM: "x", "/ostree/repo/config": ""}, "rpm-ostree"),
        ({**os_release("sle-micro", "suse"), RPM: "x"}, "transactional-update"),
        ({**os_release("opensuse-microos", "suse opensuse"), RPM: "x"}, "transactional-update"),
        ({**os_release("debian"), DPKG: STANZA}, ""),
        ({**os_release("sles", "suse"), RPM: "x"}, ""),
    ],
)
def test_systems_that_are_updated_as_a_whole_say_so(files: dict[str, str], reason: str, tmp_path: Path) -> None:
    system = System(put_all(tmp_path, files))
    scheme = package_scheme(system)
    assert scheme
    hidden = why_updates_are_hidden(system, scheme)
    assert reason in hidden
    assert bool(reason) == bool(hidden)
    section = UpdatesCollector()(system)
    assert "security_pending" not in section
    if reason:
        assert f"security_pending: {hidden}" in gap_texts(section)


@pytest.mark.parametrize("collect", [UpdatesCollector(), sources.collect])
def test_a_system_without_a_package_manager_says_so(collect: Collector, tmp_path: Path) -> None:
    system = System(put_all(tmp_path, os_release("buildroot")))
    with pytest.raises(FactsUnavailableError, match="no known package manager on buildroot"):
        collect(system)


@pytest.mark.parametrize(
    ("files", "package", "version"),
    [
        ({**os_release("poky"), "/var/lib/opkg/status": OPKG}, "openssl", "3.2.3-r0"),
        ({**os_release("openwrt"), "/usr/lib/opkg/status": OPKG}, "openssl", "3.2.3-r0"),
        ({**os_release("alpine"), "/usr/lib/apk/db/installed": APK}, "openssl", "3.3.2-r0"),
        ({**os_release("debian"), "/var/lib/dpkg/status.d/libssl3": STANZA}, "libssl3", "3.0.15-1~deb12u1"),
        (
            {
                **os_release("debian"),
                "/var/lib/dpkg/status.d/base": STANZA.replace("libssl3", "base-files"),
                "/var/lib/dpkg/status.d/bGlic3NsMw": STANZA,
                "/var/lib/dpkg/status.d/bGlic3NsMw.md5sums": "0 usr/lib/x\n",
            },
            "libssl3",
            "3.0.15-1~deb12u1",
        ),
    ],
)
def test_packages_are_read_where_the_distribution_keeps_them(
    files: dict[str, str], package: str, version: str, tmp_path: Path
) -> None:
    system = System(put_all(tmp_path, files))
    scheme = package_scheme(system)
    assert scheme
    reading = inventory.packages(system, scheme)
    assert (package, version) in [(one.name, one.version) for one in reading.value]
    assert reading.gaps == ()
    found = installed(system, package)
    assert found is not None
    assert found.version == version
    assert openssl.collect(system)["package"] == {"name": package, "version": version, "scheme": scheme}


@pytest.mark.parametrize(
    "text",
    [
        STANZA.replace("Package:", "Packxge:"),
        STANZA.replace("Version:", "Versxion:"),
        STANZA + STANZA.replace("libssl3", "telnetd"),
        STANZA.replace("Version: 3", "Version: 3 x"),
        STANZA.replace("install ok installed", "instxll"),
        STANZA + "\n\x00garbled\n",
    ],
)
@pytest.mark.parametrize("where", [DPKG, "/var/lib/dpkg/status.d/a"])
def test_an_entry_of_the_database_that_is_not_understood_is_a_gap(where: str, text: str, tmp_path: Path) -> None:
    system = System(put_all(tmp_path, {**os_release("debian"), where: text}))
    assert inventory.packages(system, "deb").gaps, text


def test_a_very_long_field_of_the_database_is_no_gap(tmp_path: Path) -> None:
    system = System(put_all(tmp_path, {**os_release("debian"), DPKG: f"Depends: {'a, ' * 9000}b\n{STANZA}"}))
    reading = inventory.packages(system, "deb")
    assert ([package.name for package in reading.value], reading.gaps) == (["libssl3"], ())


def test_the_database_of_this_machine_is_read_as_its_program_reads_it() -> None:
    if package_scheme(System()) != "deb":
        pytest.skip("this machine has no dpkg")
    gaps = GapRecorder()
    by_hand = set(inventory.read_dpkg(Path("/var/lib/dpkg/status"), gaps))
    assert by_hand == set(inventory.packages(System(), "deb").value)
    assert gaps.gaps == ()


UNAME = {
    "pi bullseye v7l": ("6.1.21-v7l+", ["6.1.21+", "6.1.21-v7+", "6.1.21-v7l+", "6.1.21-v8+"], True),
    "pi bullseye v6": ("6.1.21+", ["6.1.21+", "6.1.21-v7+", "6.1.21-v7l+", "6.1.21-v8+"], True),
    "pi bullseye v8": ("6.1.21-v8+", ["6.1.21+", "6.1.21-v7+", "6.1.21-v7l+", "6.1.21-v8+"], True),
    "pi bullseye, newer": ("6.1.21-v7+", ["6.1.58+", "6.1.58-v7+", "6.1.58-v7l+"], False),
    "pi bookworm": ("6.6.51+rpt-rpi-v8", ["6.6.51+rpt-rpi-2712", "6.6.51+rpt-rpi-v8", "6.6.31+rpt-rpi-v8"], True),
    "pi 5": ("6.6.51+rpt-rpi-2712", ["6.6.51+rpt-rpi-2712", "6.12.25+rpt-rpi-v8"], True),
    "pi 5, newer": ("6.6.51+rpt-rpi-2712", ["6.6.51+rpt-rpi-2712", "6.12.25+rpt-rpi-2712"], False),
    "debian beside rt": ("6.1.0-41-amd64", ["6.1.0-41-amd64", "6.1.0-41-rt-amd64"], True),
    "debian rt": ("6.1.0-41-rt-amd64", ["6.1.0-42-amd64", "6.1.0-41-rt-amd64"], True),
    "debian rt, newer": ("6.1.0-9-rt-amd64", ["6.1.0-9-rt-amd64", "6.1.0-41-rt-amd64"], False),
    "debian cloud": ("6.1.0-41-cloud-amd64", ["6.1.0-42-amd64", "6.1.0-41-cloud-amd64"], True),
    "debian 13": ("6.12.43+deb13-amd64", ["6.12.43+deb13-amd64", "6.12.48+deb13-rt-amd64"], True),
    "debian 13, newer": ("6.12.43+deb13-amd64", ["6.12.43+deb13-amd64", "6.12.48+deb13-amd64"], False),
    "debian backports": ("6.1.0-41-amd64", ["6.1.0-41-amd64", "6.12.9+bpo-amd64"], False),
    "ubuntu": ("5.15.0-100-generic", ["5.15.0-101-lowlatency", "5.15.0-100-generic", "5.15.0-99-generic"], True),
    "ubuntu aws": ("6.8.0-1015-aws", ["6.8.0-1015-aws", "6.8.0-60-generic"], True),
    "fedora": ("6.5.6-300.fc39.x86_64", ["6.5.6-300.fc39.x86_64", "6.5.6-301.fc39.x86_64+debug"], True),
    "fedora, newer": ("6.5.6-300.fc39.x86_64", ["6.5.6-300.fc39.x86_64", "6.11.4-301.fc41.x86_64"], False),
    "rhel rt": ("5.14.0-427.el9.x86_64+rt", ["5.14.0-427.el9.x86_64+rt", "5.14.0-503.el9.x86_64"], True),
    "rhel 8": (
        "4.18.0-553.el8_10.x86_64",
        ["4.18.0-553.el8_10.x86_64", "4.18.0-513.9.1.el8_9.x86_64"],
        True,
    ),
    "opensuse": ("6.4.0-150600.23.7-default", ["6.4.0-150600.23.25-default"], False),
    "alpine": ("6.6.32-0-virt", ["6.6.32-0-virt", "6.6.40-0-lts"], True),
}


@pytest.mark.parametrize("name", UNAME)
def test_kernels_are_compared_within_their_flavour(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, releases, expected = UNAME[name]
    put_all(tmp_path, {f"/lib/modules/{release}/modules.dep": "" for release in releases})
    monkeypatch.setattr(platform, "uname", lambda: SimpleNamespace(release=running, version="#1 SMP"))
    newest, is_current = kernels.newest_and_current(LiveRoot(tmp_path))
    assert is_current is expected
    assert (newest == running) is expected


@pytest.mark.parametrize("running", ["6.1.0-41-rt-amd64", "5.10.104-tegra", "6.6.87.2-microsoft-standard-WSL2"])
def test_a_kernel_that_no_package_installed_is_neither_current_nor_old(
    running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path, {"/boot/vmlinuz-6.1.0-41-amd64": ""})
    monkeypatch.setattr(platform, "uname", lambda: SimpleNamespace(release=running, version="#1 SMP"))
    with pytest.raises(FactsUnavailableError, match="no installed kernel of the running kernel's kind"):
        kernels.newest_and_current(LiveRoot(tmp_path))
