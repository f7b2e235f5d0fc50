"""The grammar of sshd_config as `read_settings` reads it, against `sshd -T` and `sshd -T -C`."""

import random
import subprocess
from pathlib import Path
from typing import Final

import pytest

from device_agent.collectors.access.ssh import parse_resolved
from device_agent.collectors.access.sshd_config import DEFAULTS, MATCH_KEYWORDS, SshdSettings, read_settings, sample_of
from device_agent.host.system import System
from tests.oracles.verdicts import Verdicts
from tests.support.root_folder import put

pytestmark = pytest.mark.oracles

SEEDS: Final = (1, 2026)
CASES: Final = 300  # of each seed
SSHD: Final = "/usr/sbin/sshd"
FLAGS: Final = ("PasswordAuthentication", "KbdInteractiveAuthentication", "PermitEmptyPasswords", "X11Forwarding")
ROOT: Final = ("yes", "no", "prohibit-password", "without-password", "forced-commands-only", "No", '"yes"')
CRITERIA: Final = (
    "User bob", "user bob,eve", "Address 192.0.2.0/24", "User bob Address 192.0.2.7", "all", "Host *.example", "User *",
    "LocalPort 2222", '"User" bob', "User !root,*", "USER 'bob'", "Group wheel",
)  # fmt: skip


def directive(rng: random.Random) -> str:
    kind = rng.random()
    keyword = rng.choice(FLAGS)
    value = rng.choice(["yes", "no", "Yes", "NO", '"yes"', "'no'"])
    if kind < 0.25:
        keyword, value = "PermitRootLogin", rng.choice(ROOT)
    elif kind < 0.4:
        keyword, value = "MaxAuthTries", rng.choice(["3", "6", '"4"'])
    elif kind < 0.5:
        keyword = rng.choice(["ChallengeResponseAuthentication", "AllowTcpForwarding"])
    keyword = rng.choice([keyword, keyword.lower(), keyword.upper()])
    tail = rng.choice(["", "", "  ", " # yes", "\t#no", "#x" if rng.random() < 0.1 else ""])
    return rng.choice(["", " ", "\t"]) + keyword + rng.choice([" ", "\t", "=", " = ", "  "]) + value + tail


def lines_of(rng: random.Random, *, has_includes: bool) -> list[str]:
    lines = [directive(rng) for _ in range(rng.randint(0, 4))]
    for _ in range(rng.choice([0, 1, 1, 2])):
        lines.append(f"{rng.choice(['Match', 'match'])} {rng.choice(CRITERIA)}{rng.choice(['', ' # why'])}")
        lines += [directive(rng) for _ in range(rng.randint(1, 3))]
        if has_includes and rng.random() < 0.2:
            lines.append("Include {root}/etc/ssh/more/*.conf")
    if has_includes and rng.random() < 0.4:
        lines.insert(rng.randint(0, len(lines)), 'Include "{root}/etc/ssh/one.conf" {root}/etc/ssh/more/*.conf')
    return lines


def settings_of(prefix: str, values: dict[str, str]) -> set[str]:
    """Returns `prefix keyword value` for what weakens the server."""
    weak = {key: values[key].lower() for key in MATCH_KEYWORDS if key in values}
    return {
        f"{prefix} {key} {value}"
        for key, value in weak.items()
        if value == "yes" or (key == "maxauthtries" and value not in {"3", "4"})
    }


def ask(config: Path, *arguments: str) -> dict[str, str] | None:
    argv = [SSHD, "-T", "-f", str(config), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return parse_resolved(done.stdout) if done.returncode == 0 else None


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reader_agrees_with_sshd(seed: int, tmp_path: Path) -> None:
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its service creates it before it starts
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    rng = random.Random(seed)
    verdicts = Verdicts("sshd_config", seed)
    root = tmp_path / "root"
    while verdicts.cases < CASES:
        files = {
            "one.conf": lines_of(rng, has_includes=False),
            "more/a.conf": lines_of(rng, has_includes=False),
            "sshd_config": [*lines_of(rng, has_includes=True), "Match all", f"HostKey {key}"],
        }
        # sshd reads the files below the root by their real paths, the reader by those inside the root.
        for name, lines in files.items():
            put(root, f"/etc/ssh/{name}", "\n".join(lines).replace("{root}", "") + "\n")
            put(tmp_path, f"real/etc/ssh/{name}", "\n".join(lines).replace("{root}", f"{tmp_path}/real") + "\n")
        config = tmp_path / "real/etc/ssh/sshd_config"
        text = config.read_text().replace(f"Match all\nHostKey {key}\n", "")
        config.write_text(f"HostKey {key}\n{text}")
        put(root, "/etc/ssh/sshd_config", text.replace(f"{tmp_path}/real", ""))
        resolved = ask(config)
        if resolved is None:
            continue
        settings = read_settings(System(root))
        found = settings_of("global", {**DEFAULTS, **settings.values})
        expected = settings_of("global", resolved)
        compare_blocks(config, settings, resolved, expected, found)
        is_unknown = bool(settings.global_gaps.gaps or settings.match_gaps.gaps)
        shown = f"{text}--- one.conf\n{files['one.conf']}\n--- a.conf\n{files['more/a.conf']}"
        verdicts.add(shown, expected, found, is_unknown=is_unknown)
    verdicts.check()


def compare_blocks(
    config: Path, settings: SshdSettings, resolved: dict[str, str], expected: set[str], found: set[str]
) -> None:
    """Adds what sshd applies to a connection that meets the criteria of a block, and what the reader says of it."""
    for block in settings.blocks:
        sample = sample_of(block.criteria)
        answer = ask(config, "-C", sample) if sample else None
        if answer is None:
            continue
        differing = {key: answer[key] for key in MATCH_KEYWORDS if answer[key] != resolved[key]}
        expected |= {text.replace(f"{sample} ", "any ") for text in settings_of(sample or "", differing)}
    values = [block.values for block in settings.blocks if sample_of(block.criteria)]
    mine = set().union(*(settings_of("any", {**block}) for block in values)) if values else set()
    found |= {text for text in mine if text in expected}
