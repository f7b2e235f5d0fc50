"""The order of versions without a package manager: what has none is said to have none."""

import itertools

import pytest

from schemas.version_order import compare_plain_versions, has_plain_order

# semver.org 2.0.0, 11, and numbers with dots.
ASCENDING = (
    "0.9", "1.0.0-alpha",
    "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
    "1.0.0", "1.2", "1.10", "22.04", "2024.05.01",
)  # fmt: skip


def test_numbers_and_semantic_versions_are_ordered() -> None:
    for (a, one), (b, other) in itertools.product(enumerate(ASCENDING), repeat=2):
        assert compare_plain_versions(one, other) == (a > b) - (a < b), (one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.0.0"), ("1.0.0+a", "1.0.0+b"), ("01.2", "1.2"), ("1.0~x", "1.0~x")]
)
def test_equal_versions(one: str, other: str) -> None:
    assert compare_plain_versions(one, other) == 0


@pytest.mark.parametrize(
    "version",
    ["1.0~rc1", "1.0rc1", "1:1.0", "1.0_git20240101", "1.0-1", "1.2.3_p1", "2024a", "v1.0", "1.0b", "6.1.0-9-amd64",
     "1.0.0-01", "15-SP5", "", "latest", "1.0.0-", "1..0"],
)  # fmt: skip
def test_what_each_scheme_reads_otherwise_has_no_order(version: str) -> None:
    assert not has_plain_order(version)
    assert compare_plain_versions(version, "1.0") is None
    assert compare_plain_versions("1.0", version) is None
