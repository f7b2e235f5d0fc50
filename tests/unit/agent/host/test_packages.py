"""Versions of packages are ordered by their own package manager, or not at all."""

import itertools
import shutil
from pathlib import Path

import pytest

from device_agent.host.packages import compare_package_versions

# deb-version(7) and rpm-version(7): epochs, tildes, letters, releases.
ASCENDING = {
    "deb": ("1.0~rc1-1", "1.0", "1.0-1", "1.0a", "1.0+b1", "1.10", "2.0", "1:0.5"),
    "rpm": ("1.0~rc1-1", "1.0-1", "1.0-2", "1.0a-1", "1.10-1", "2.0-1", "1:0.5-1"),
}
PROGRAM = {"deb": "dpkg", "rpm": "rpm"}


@pytest.mark.parametrize("scheme", ["deb", "rpm"])
def test_the_package_manager_orders_its_versions(scheme: str) -> None:
    if shutil.which(PROGRAM[scheme]) is None:
        pytest.skip(f"{PROGRAM[scheme]} is not installed")
    for (a, one), (b, other) in itertools.combinations(enumerate(ASCENDING[scheme]), 2):
        assert compare_package_versions(scheme, one, other) == (a > b) - (a < b), (one, other)
        assert compare_package_versions(scheme, other, one) == (b > a) - (b < a), (other, one)


def test_a_version_of_rpm_without_a_release_stands_for_all_of_them() -> None:
    if shutil.which("rpm") is None:
        pytest.skip("rpm is not installed")
    assert compare_package_versions("rpm", "1.0-7", "1.0") == 0
    assert compare_package_versions("rpm", "1.0-7", "1.1") == -1


@pytest.mark.parametrize(
    ("scheme", "version"), [("deb", "a_b"), ("deb", "1.0 x"), ("rpm", '1")os.exit("'), ("rpm", "1-2-3")]
)
def test_what_is_no_version_has_no_order(scheme: str, version: str) -> None:
    assert compare_package_versions(scheme, version, "1.0-1") is None


# `apk version -t` prints a sign, `?` for what is no version; `opkg compare-versions` tells by its exit status.
APK = """case "$3 $4" in
"1.0_git20240101-r0 1.0-r0") echo '>';; "1.0_rc1-r0 1.0-r0") echo '<';; "1.0-r0 1.00-r0") echo '=';; *) echo '?';; esac
"""
OPKG = """case "$2 $3 $4" in "1.0~rc1 << 1.0" | "1.0 >> 1.0~rc1") exit 0;; "x "*) exit 2;; *) exit 1;; esac
"""


@pytest.mark.parametrize(
    ("scheme", "one", "other", "order"),
    [
        ("apk", "1.0_git20240101-r0", "1.0-r0", 1),
        ("apk", "1.0_rc1-r0", "1.0-r0", -1),
        ("apk", "1.0-r0", "1.00-r0", 0),
        ("apk", "one", "1.0-r0", None),
        ("opkg", "1.0~rc1", "1.0", -1),
        ("opkg", "1.0", "1.0~rc1", 1),
        ("opkg", "x", "1.0", None),
    ],
)
def test_apk_and_opkg_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, one: str, other: str, order: int | None
) -> None:
    for name, text in (("apk", APK), ("opkg", OPKG)):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert compare_package_versions(scheme, one, other) == order


@pytest.mark.parametrize("scheme", ["apk", "opkg", "deb", "rpm"])
def test_without_its_program_there_is_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compare_package_versions(scheme, "1.0", "2.0") is None
    assert compare_package_versions(scheme, "1.0", "1.0") == 0
