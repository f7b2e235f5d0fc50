"""Packages, kernel, architecture and OpenSSL of an image."""

from pathlib import Path

import pytest

from device_agent.collectors.crypto import openssl
from device_agent.collectors.software import inventory, operating_system
from device_agent.errors import FactsUnavailableError
from device_agent.host import image_packages
from device_agent.host.os_release import read_os_release
from device_agent.host.packages import installed
from device_agent.host.system import System
from tests.platforms.rpm_database import write_rpm_database
from tests.support.root_folder import put, put_all


def _fedora(root: Path) -> System:
    put(root, "/etc/os-release", "ID=fedora\n")
    write_rpm_database(root / "usr/lib/sysimage/rpm", ["openssl-libs 1:3.2.4-3.fc41 openssl", "bash 5.2.32-1.fc41"])
    return System.image(root)


def test_rpm_of_this_machine_reads_a_copy_of_the_database_of_the_image(tmp_path: Path) -> None:
    image = _fedora(tmp_path)
    before = sorted(path.name for path in (tmp_path / "usr/lib/sysimage/rpm").iterdir())
    lines = [str(package) for package in inventory.packages(image, "rpm").value]
    assert lines == ["bash 0:5.2.32-1.fc41", "openssl-libs 1:3.2.4-3.fc41 openssl"]
    package = installed(image, "openssl-libs")
    assert package is not None
    assert package.version == "1:3.2.4-3.fc41"
    assert installed(image, "openssl") is None
    assert sorted(path.name for path in (tmp_path / "usr/lib/sysimage/rpm").iterdir()) == before


def test_a_database_that_is_a_link_out_of_the_image_is_not_read(tmp_path: Path) -> None:
    write_rpm_database(tmp_path / "outside", ["thief 1-1"])
    (tmp_path / "image/usr/lib/sysimage").mkdir(parents=True)
    (tmp_path / "image/usr/lib/sysimage/rpm").symlink_to(tmp_path / "outside")
    put(tmp_path, "image/etc/os-release", "ID=fedora\n")
    image = System.image(tmp_path / "image")
    with pytest.raises(FactsUnavailableError):
        inventory.packages(image, "rpm")
    assert installed(image, "thief") is None


def test_a_damaged_or_too_large_database_is_unknown_without_a_name_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "/etc/os-release", "ID=fedora\n")
    put(tmp_path, "/usr/lib/sysimage/rpm/rpmdb.sqlite", "no database")
    image = System.image(tmp_path)
    with pytest.raises(FactsUnavailableError) as damaged:
        inventory.packages(image, "rpm")
    assert "cordon-rpm" not in str(damaged.value)
    monkeypatch.setattr(image_packages, "_MAX_RPM_BYTES", 4)
    with pytest.raises(FactsUnavailableError, match="larger than 4 bytes"):
        inventory.packages(image, "rpm")


@pytest.mark.parametrize(
    ("header", "machine"),
    [
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00", "x86_64"),
        (b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x28\x00", "arm"),
        (b"\x7fELF\x01\x02\x01" + bytes(9) + b"\x00\x02\x00\x08", "mips"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x15\x00", "ppc64le"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00", "riscv64"),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xff\xff", None),
        (b"\x7fELF", None),
        (b"#!/bin/sh\n", None),
    ],
)
def test_the_architecture_is_that_of_the_programs(tmp_path: Path, header: bytes, machine: str | None) -> None:
    put(tmp_path, "/etc/os-release", "ID=x\n")
    put(tmp_path, "/usr/bin/busybox", header)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/sh").symlink_to("/bin/busybox")
    section = operating_system.collect(System.image(tmp_path))
    assert section.get("machine") == machine
    assert ("machine" in {gap["fact"] for gap in section["gaps"]}) == (machine is None)


def test_openssl_of_an_image_without_packages_is_known_by_its_library(tmp_path: Path) -> None:
    put_all(tmp_path, {"/etc/os-release": "ID=buildroot\n", "/etc/ssl/openssl.cnf": ""})
    put(tmp_path, "/usr/lib/libcrypto.so.1.1", b"\0OpenSSL 1.1.1w  11 Sep 2023\0")
    put(tmp_path, "/usr/lib/libcrypto.so.3", b"\0part of OpenSSL 9.9.9 text\0OpenSSL 3.0.15 3 Sep 2024\0")
    section = openssl.collect(System.image(tmp_path))
    assert (section["version"], section["library"]) == ("3.0.15", "")
    assert "package" not in section


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ID=\"debian\"\nVERSION_ID='12'\n", {"ID": "debian", "VERSION_ID": "12"}),
        ('NAME="A \\"quoted\\" name"\n#ID=x\n', {"NAME": 'A "quoted" name'}),
        ("ID=open\n ID=wrt \n", {"ID": "wrt"}),
        ('ID="unfinished\n', {"ID": "unfinished"}),
        ("ID=\n", {"ID": ""}),
    ],
)
def test_os_release_is_read_as_a_shell_reads_it(tmp_path: Path, text: str, fields: dict[str, str]) -> None:
    put(tmp_path, "/etc/os-release", text)
    assert read_os_release(System(tmp_path)) == fields
