"""The order of versions, as `older()` of the policies and the agent have it, against dpkg and rpm."""

import random
import shutil
import subprocess
from typing import Final

import pytest

from controller.domain.policy.versions import is_older_version
from tests.oracles.verdicts import Verdicts

pytestmark = pytest.mark.oracles

SEEDS: Final = (1, 2026)
CASES: Final = 600  # of each seed
PARTS: Final = ("0", "1", "2", "9", "10", "01", "a", "b", "rc", "alpha", "git", "el9", "fc40", "deb12u1", "ubuntu0.1")
SIGNS: Final = {"deb": (".", ".", "~", "+", "-", ""), "rpm": (".", ".", "~", "^", "_", "+", "")}
# Prints -1, 0 or 1 for each pair of lines.
RPM: Final = "%{{lua: for a, b in string.gmatch([[{pairs}]], '(%S+) (%S+)') do print(rpm.vercmp(a, b) .. ' ') end}}"


def version_of(rng: random.Random, scheme: str) -> str:
    text = rng.choice(["0", "1", "2", "10", "3"])
    for _ in range(rng.randint(0, 4)):
        text += rng.choice(SIGNS[scheme]) + rng.choice(PARTS)
    epoch = rng.choice(["", "", "", "0:", "1:", "2:"])
    release = rng.choice(["1", "2", "10", "1.el9", "1~deb12u1", "0.1", "1+b1"])
    return f"{epoch}{text}-{release}" if scheme == "rpm" or rng.random() < 0.7 else f"{epoch}{text}"


def changed(rng: random.Random, version: str, scheme: str) -> str:
    """Returns a version that is alike, so that the order is decided late."""
    if rng.random() < 0.3:
        return version_of(rng, scheme)
    place = rng.randrange(version.find(":") + 2, len(version) + 1)
    return version[:place] + rng.choice(["", "0", "1", "a", ".1", "~1", "+1"]) + version[place:]


def orders(pairs: list[tuple[str, str]], scheme: str) -> list[bool | None]:
    """Returns whether the first version of each pair is older, as the program says; None if it refuses one."""
    if scheme == "deb":
        return [dpkg_order(a, b) for a, b in pairs]
    with_epoch = [tuple(text if ":" in text else f"0:{text}" for text in pair) for pair in pairs]
    lines = "\n".join(" ".join(pair) for pair in with_epoch)
    done = subprocess.run(["rpm", "--eval", RPM.format(pairs=lines)], capture_output=True, text=True, check=True,
                          timeout=60)  # fmt: skip
    return [int(line) < 0 for line in done.stdout.split()]


def dpkg_order(a: str, b: str) -> bool | None:
    done = subprocess.run(
        ["dpkg", "--compare-versions", a, "lt", b], capture_output=True, text=True, check=False, timeout=60
    )
    return None if done.stderr else done.returncode == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("scheme", "program"), [("deb", "dpkg"), ("rpm", "rpm"), ("opkg", "dpkg")])
def test_older_agrees_with_the_package_manager(scheme: str, program: str, seed: int) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    rng = random.Random(seed)
    kind = "rpm" if scheme == "rpm" else "deb"
    verdicts = Verdicts(f"versions of {scheme}", seed)
    pairs = [(first, changed(rng, first, kind)) for first in (version_of(rng, kind) for _ in range(CASES + 200))]
    for (a, b), expected in zip(pairs, orders(pairs, kind), strict=True):
        if expected is None or verdicts.cases >= CASES:
            continue
        try:
            found = is_older_version(a, b, scheme)
        except ValueError:
            verdicts.add(f"{a} {b}", (), (), is_unknown=True)
            continue
        verdicts.add(f"{a} {b}", {"older"} if expected else (), {"older"} if found else (), is_unknown=False)
    assert verdicts.cases >= CASES
    verdicts.check()
