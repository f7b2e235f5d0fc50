"""Compares versions by the rules of their package manager; refuses what it would order wrongly."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from univers.versions import DebianVersion, InvalidVersion, RpmVersion, SemverVersion

_KEPT: Final = 8192  # entries; a fleet repeats few version pairs
_MAX_LENGTH: Final = 256  # characters of a version

# apk-tools, doc/apk-package.5: numbers, a letter, suffixes (those before a release first), a commit, a build.
_APK: Final = re.compile(
    r"^(?P<numbers>\d+(?:\.\d+)*)(?P<letter>[a-z]?)"
    r"(?P<suffixes>(?:_(?:alpha|beta|pre|rc|cvs|svn|git|hg|p)\d*)*)(?:~(?P<commit>[0-9a-f]+))?(?:-r(?P<build>\d+))?$"
)
_APK_SUFFIXES: Final = ("alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p")
_KERNEL: Final = re.compile(r"^(\d+(?:\.\d+)*)(?:-rc(\d+))?(?:-(\d+(?:\.\d+)*))?(?:[-+._~]([A-Za-z0-9][\w.+~-]*))?$")
_LIKE_A_KERNEL: Final = re.compile(r"^\d+\.\d+\.\d+-\d+-[a-z]")


@lru_cache(maxsize=_KEPT)
def is_older_version(a: str, b: str, scheme: str) -> bool:
    """Whether version `a` is before `b` in the order of `scheme` (one of `SCHEMES`).

    Raises:
        ValueError: the scheme is unknown, or a text is not a version in it.
    """
    kind = SCHEMES.get(scheme)
    if kind is None:
        raise ValueError(f"unknown version scheme {scheme!r}: one of {', '.join(SCHEMES)}")
    for text in (a, b):
        if len(text) > _MAX_LENGTH:
            raise ValueError(f"a version has at most {_MAX_LENGTH} characters")
    try:
        return bool(kind(a) < kind(b))
    except InvalidVersion as e:
        raise ValueError(str(e)) from e


def _apk(text: str) -> Any:
    match = _APK.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a version of apk")
    first, *others = match["numbers"].split(".")
    # A part after the first that begins with zero is compared as a fraction: 1.05 is before 1.5.
    parts = [(1, int(first), ""), *((0, 0, part) if part.startswith("0") else (1, int(part), "") for part in others)]
    suffixes = [
        (_APK_SUFFIXES.index(word.rstrip("0123456789")), int(word.lstrip("abcdefghijklmnopqrstuvwxyz") or 0))
        for word in match["suffixes"].split("_")[1:]
    ]
    release = (_APK_SUFFIXES.index(""), 0)
    return parts, match["letter"], [*suffixes, release], int(match["build"] or 0)


def _kernel(text: str) -> Any:
    """Orders the releases of kernels of one flavour: `6.1.0-9-amd64` before `6.1.0-41-amd64`."""
    match = _KERNEL.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not the release of a kernel")
    numbers = [int(part) for part in match[1].split(".")]
    candidate = int(match[2]) if match[2] else 2**31
    return _Flavoured(
        (numbers, candidate, [int(part) for part in (match[3] or "0").split(".")]), re.sub(r"[\d_]", "", match[4] or "")
    )


class _Flavoured:
    def __init__(self, key: tuple[list[int], int, list[int]], flavour: str) -> None:
        self._key, self._flavour = key, flavour

    def __lt__(self, other: "_Flavoured") -> bool:
        if self._key[2] != other._key[2] and self._key[:2] == other._key[:2] and self._flavour != other._flavour:
            # The builds of two distributions or flavours are numbered apart.
            raise ValueError(f"builds of the kernels {self._flavour!r} and {other._flavour!r} cannot be compared")
        return self._key < other._key


def _semver(text: str) -> Any:
    if _LIKE_A_KERNEL.match(text):
        raise ValueError(f"{text!r} looks like the release of a kernel: compare with the scheme kernel")
    return SemverVersion(text)


SCHEMES: Final[Mapping[str, Callable[[str], Any]]] = {
    "deb": DebianVersion,
    "rpm": RpmVersion,
    "apk": _apk,
    "opkg": DebianVersion,  # opkg compares as dpkg does
    "semver": _semver,
    "kernel": _kernel,
}
"""By name: makes of a text what can be compared; raises ValueError or InvalidVersion."""
