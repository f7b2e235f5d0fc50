"""The order of versions that no package manager owns: file sets, scripts, images, the agent, operating systems."""

import re
from typing import Any, Final

_NUMBERS: Final = r"\d{1,18}(?:\.\d{1,18})*"
_PLAIN: Final = re.compile(_NUMBERS)
_IDENTIFIER: Final = r"(?:0|[1-9]\d{0,17}|\d*[A-Za-z-][0-9A-Za-z-]*)"
# semver.org 2.0.0, 9 and 10: three numbers, a pre-release after -, and a build after + that has no order.
_SEMVER: Final = re.compile(
    rf"(\d{{1,18}}\.\d{{1,18}}\.\d{{1,18}})(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9A-Za-z.-]+)?"
)
_LIKE_A_KERNEL: Final = re.compile(r"\d+\.\d+\.\d+-\d+-[a-z]")  # its builds follow the release, a pre-release does not
_AFTER_PRERELEASES: Final = ((2, 0, ""),)


def compare_plain_versions(one: str, other: str) -> int | None:
    """Returns -1, 0 or 1, or None where no order is defined.

    Ordered are numbers with dots (`1.10` is after `1.9`, `1.0` equal to `1.0.0`) and the versions of semver.org
    (`1.0.0-rc.1` is before `1.0.0`). Letters elsewhere, epochs, tildes and revisions mean something
    else in each scheme.
    """
    if one == other:
        return 0
    left, right = _key(one), _key(other)
    if left is None or right is None:
        return None
    return int(left > right) - int(left < right)


def has_plain_order(version: str) -> bool:
    """Whether versions can be compared with this one."""
    return _key(version) is not None


def _key(version: str) -> Any:
    if _PLAIN.fullmatch(version):
        return _numbers(version), _AFTER_PRERELEASES
    match = _SEMVER.fullmatch(version)
    if match is None or _LIKE_A_KERNEL.match(version):
        return None
    return _numbers(match[1]), _prerelease(match[2]) if match[2] else _AFTER_PRERELEASES


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def _prerelease(text: str) -> tuple[tuple[int, int, str], ...]:
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in text.split("."))
