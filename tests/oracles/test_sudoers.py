"""The grammar of sudoers as `read_lines` reads it, against `cvtsudoers`."""

import json
import random
import shutil
import subprocess
from typing import Final

import pytest

from device_agent.collectors.access import sudoers
from device_agent.collectors.access.sudoers_grammar import read_lines
from device_agent.host.reading import GapRecorder
from tests.oracles.verdicts import Verdicts

pytestmark = pytest.mark.oracles

SEEDS: Final = (1, 2026)
CASES, DAMAGED = 400, 300  # of each seed

USERS: Final = ("ada", "bob", "#1000", "%wheel", "%#10", "+net", '"ada lo"', "OPS", "ALL", "x\\,y", '"%domain users"')
HOSTS: Final = ("ALL", "host1", "192.0.2.0/24", "host1, host2", "!host3")
RUNAS: Final = ("", "(ALL)", "(ALL:ALL)", "(root)", "(:adm)", "(ada, #0)")
TAGS: Final = (
    "",
    "",
    "NOPASSWD:",
    "NOPASSWD: ",
    "NOPASSWD : ",
    "PASSWD: ",
    "SETENV: ",
    "NOEXEC: NOPASSWD: ",
    "NOPASSWD:SETENV: ",
)
COMMANDS: Final = (
    "ALL",
    "/bin/ls",
    "/bin/ls -l",
    "/bin/a\\:b",
    "sudoedit /etc/x",
    "!/bin/su",
    '/bin/x ""',
    "/sbin/",
    "/bin/x\\,y",
)
DEFAULTS: Final = (
    "Defaults env_reset", "Defaults !authenticate", "Defaults authenticate", "Defaults:ada !authenticate",
    "Defaults:%wheel !requiretty, !authenticate", "Defaults exempt_group=admin", 'Defaults exempt_group = "ops"',
    "Defaults@host1 !authenticate", "Defaults>root !authenticate", 'Defaults badpass_message="no !authenticate"',
    'Defaults secure_path="/usr/sbin:/usr/bin"', 'Defaults\tenv_keep += "A B"', "Defaults !!authenticate",
)  # fmt: skip
COMMENTS: Final = ("# ada ALL=(ALL) NOPASSWD: ALL", "#comment", "", "#includes are text")


def line_of(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(DEFAULTS) + rng.choice(["", "  ", " # NOPASSWD: ALL"])
    if kind < 0.3:
        return rng.choice(COMMENTS)
    blank = rng.choice([" ", "  ", "\t"])
    users = rng.choice([", ", ",", " , "]).join(rng.sample(USERS, rng.choice([1, 1, 1, 2, 3])))
    entries = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        commands = ", ".join(
            f"{rng.choice(RUNAS)} {rng.choice(TAGS)}{rng.choice(COMMANDS)}".strip()
            for _ in range(rng.choice([1, 1, 2]))
        )
        entries.append(f"{rng.choice(HOSTS)}{rng.choice(['=', ' = ', '= '])}{commands}")
    text = f"{users}{blank}{rng.choice([' : ', ':']).join(entries)}{rng.choice(['', ' ', ' # why', '#why'])}"
    return text.replace(", ", ", \\\n    ", 1) if rng.random() < 0.1 else text


def text_of(rng: random.Random) -> str:
    lines = [line_of(rng) for _ in range(rng.randint(1, 6))]
    lines.insert(0, "User_Alias OPS = ada, %adm : DEVS = eve")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reader_agrees_with_cvtsudoers(seed: int) -> None:
    assert shutil.which("cvtsudoers"), "sudo is not installed"
    rng = random.Random(seed)
    verdicts = Verdicts("sudoers", seed)
    while verdicts.cases < CASES:
        text = text_of(rng)
        lines = [(f"line {number}", line) for number, line in sudoers._logical_lines(text)]
        expected = names_of_program(text)
        if expected is None:
            continue
        gaps = GapRecorder()
        verdicts.add(text, expected, read_lines(lines, gaps), is_unknown=bool(gaps.gaps))
    verdicts.check()


def names_of_program(text: str) -> set[str] | None:
    """Returns the names in the program's own reading of the whole text; None if it refuses or complains."""
    status, names = ask_program(text)
    return None if status else names


def ask_program(text: str) -> tuple[int, set[str] | None]:
    """Returns the program's status, and the names as it reads them; None without a whole answer."""
    argv = ["cvtsudoers", "-f", "json", "-c", "/dev/null", "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=30, check=False)
    try:
        policy = json.loads(done.stdout)
    except ValueError:
        return done.returncode, None
    return done.returncode, None if done.stderr else sudoers._names_of(policy)


DAMAGE: Final = ("x", "A", " ", ":", "=", ",", "(", ")", '"', "!", "%", "/", "")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_line_is_read_as_cvtsudoers_reads_it_or_a_gap(seed: int) -> None:
    rng = random.Random(seed)
    verdicts = Verdicts("damaged sudoers", seed)
    while verdicts.cases < DAMAGED:
        line = line_of(rng).replace(", \\\n", ",")
        granted = names_of_program(line + "\n")
        if not granted:
            continue
        at = rng.randrange(len(line) + 1)
        damaged = line[:at] + rng.choice(DAMAGE) + line[at + rng.randint(0, 2) :]
        logical = list(sudoers._logical_lines(damaged + "\n"))
        status, expected = ask_program(damaged + "\n")
        gaps = GapRecorder()
        found = read_lines([("line 1", text) for _, text in logical], gaps)
        if status:  # refused, so it is a gap, or the names are found all the same
            is_seen = bool(gaps.gaps or found)
            verdicts.add(damaged, {"refused"}, {"refused"} if is_seen else set(), is_unknown=False)
        elif expected is not None:
            verdicts.add(damaged, expected, found, is_unknown=bool(gaps.gaps))
    verdicts.check()
