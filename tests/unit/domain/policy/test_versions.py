"""Order of versions by the rules of their package manager."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from univers.versions import AlpineLinuxVersion

from controller.domain.policy.versions import is_older_version


@pytest.mark.parametrize(
    ("a", "b", "scheme"),
    [
        ("3.0.9", "3.0.10", "semver"),
        ("3.0.16-1~deb12u1", "3.0.17-1~deb12u2", "deb"),
        ("1:1.2~rc1-1", "1:1.2-1", "deb"),
        ("1.2.3-r1", "1.2.3-r2", "apk"),
        ("13.2.1_git20240309-r0", "13.2.1_git20240310-r0", "apk"),
        ("1.2.4-r9", "1.2.4_git20230717-r4", "apk"),
        ("1.2_rc2-r0", "1.2-r0", "apk"),
        ("1.2_rc1_p2", "1.2_rc2", "apk"),
        ("1.2a", "1.2b-r0", "apk"),
        ("1.05", "1.5", "apk"),
        ("2.36-9", "2.36-9+deb12u7", "opkg"),
        ("6.1.0-9-amd64", "6.1.0-41-amd64", "kernel"),
        ("6.6.0-rc3", "6.6.0", "kernel"),
        ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-503.11.1.el9_5.x86_64", "kernel"),
        ("6.1.21-v8+", "6.6.31+rpt-rpi-v8", "kernel"),
        ("1.0-1.el9", "1.0^git1-1.el9", "rpm"),
    ],
)
def test_versions_are_ordered_by_their_scheme(a: str, b: str, scheme: str) -> None:
    assert is_older_version(a, b, scheme)
    assert not is_older_version(b, a, scheme)
    assert not is_older_version(a, a, scheme)


@pytest.mark.parametrize(
    ("a", "scheme"),
    [
        ("1.0", "dep"),
        ("", "deb"),
        ("not a version !!", "semver"),
        ("6.1.0-41-amd64", "semver"),
        ("1.0-x", "apk"),
        ("1" * 300, "deb"),
        ("x", "kernel"),
    ],
)
def test_invalid_version_or_scheme_is_an_error(a: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        is_older_version(a, "1.0", scheme)


def test_builds_of_kernels_of_other_flavours_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        is_older_version("6.1.0-9-amd64", "6.1.0-10-rt-amd64", "kernel")


APK = st.from_regex(r"[1-9][0-9]?(\.[1-9][0-9]?){0,3}[a-c]?(_(alpha|beta|pre|rc|p)[1-9])?(-r[1-9])?", fullmatch=True)


@given(APK, APK)
def test_versions_of_apk_are_ordered_as_another_library_orders_them(a: str, b: str) -> None:
    """The other library knows no suffixes of commits, so none are drawn."""
    assert is_older_version(a, b, "apk") == (AlpineLinuxVersion(a) < AlpineLinuxVersion(b))
