"""The grammar of apt's sources and settings as the agent reads them, against apt itself."""

import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from device_agent.collectors.software import apt_conf, sources_apt
from device_agent.host.apt import apt_get, parse_targets
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.oracles.verdicts import Verdicts
from tests.support.root_folder import put, put_all

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt"),
]

SEEDS: Final = (1, 2026)
CASES: Final = 260  # of each seed
URLS: Final = (
    "http://deb.example.org/debian", "https://two.example.org/debian/", "http://[2001:db8::10]:8080/debian",
    "mirror+http://m.example.org/list", "file:/srv/apt", "cdrom://Debian/", "https://u:p@x.example/%7ea",
    "http://$(ARCH).example.org/", "not-an-address", "tor+http://x.onion/", '"http://quoted.example/a b"',
)  # fmt: skip
SUITES: Final = (
    "bookworm main",
    "stable main contrib",
    "./",
    "a/b/",
    "x",
    "x/ main",
    "bookworm-security  main\t",
    '"s u" m',
)
OPTIONS: Final = (
    "", "", "[trusted=yes]", "[ trusted=yes ]", "[arch=amd64 trusted=yes]", "[trusted=no]", "[arch=amd64,arm64]",
    "[trusted=1]", "[trusted=TRUE]", "[trusted=enable allow-insecure=yes]", "[trusted=maybe]", "[trusted]",
    "[signed-by=/a.gpg]", "[trusted=yes", '[signed-by="/a b.gpg" trusted=on]', "[]", "[lang-=de]", "[ arch=amd64]",
)  # fmt: skip
AFTER: Final = ("", "", "  ", " # why", "#why", "\r")
BEFORE: Final = ("", "", " ", "\t", "# ", "#")
ENABLED: Final = ("yes", "no", "Yes", "NO", "0", "1", "off", "false", "without", "disable", "maybe", "", "2", "00")
TRUSTED: Final = ("yes", "no", "YES", "1", "0", "on", "with", "enable", "off")
SETTINGS: Final = (
    "Acquire::https::Verify-Peer", "Acquire::https::deb.example.org::Verify-Host", "APT::Get::AllowUnauthenticated",
    "acquire::AllowInsecureRepositories", "APT::Periodic::Enable", "Unattended-Upgrade::Allowed-Origins",
)  # fmt: skip
VALUES: Final = ('"true"', '"false"', "0", '"1"', '"no way"', '""', "yes", '"a;b"', '"a//b"', '"{x}"')


def line_of(rng: random.Random) -> str:
    kind = rng.choice(["deb", "deb", "deb", "deb", "deb-src", "rpm", "Deb"] if rng.random() < 0.15 else ["deb"])
    blank = rng.choice([" ", " ", "  ", "\t"])
    url = rng.choice(URLS[:4] if rng.random() < 0.7 else URLS)
    suite = rng.choice(SUITES[:4] if rng.random() < 0.7 else SUITES)
    option = rng.choice(OPTIONS[:9] if rng.random() < 0.8 else OPTIONS)
    words = [kind, option, url, suite] if option else [kind, url, suite]
    return rng.choice(BEFORE) + blank.join(words) + rng.choice(AFTER)


def stanza_of(rng: random.Random) -> str:
    absolute = rng.random() < 0.2
    count = 1 if absolute else rng.choice([1, 1, 2])
    fields = [
        ("Types", rng.choice(["deb", "deb", "deb deb-src", "deb-src deb"])),
        (
            rng.choice(["URIs", "uris", "URIS"]),
            "\n ".join(rng.sample(URLS[:4], count)),
        ),
        ("Suites", "./" if absolute else rng.choice(["bookworm", "a b", "bookworm\n bookworm-updates"])),
        *([] if absolute else [("Components", rng.choice(["main", "main\n contrib", "main\n# c\n contrib"]))]),
        *([("Enabled", rng.choice(ENABLED))] if rng.random() < 0.5 else []),
        *([(rng.choice(["Trusted", "trusted"]), rng.choice(TRUSTED))] if rng.random() < 0.4 else []),
        *([("Signed-By", "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc")] if rng.random() < 0.1 else []),
    ]
    rng.shuffle(fields)
    lines = "".join(f"{name}:{rng.choice([' ', '  ', ''])}{value}\n" for name, value in fields)
    if rng.random() < 0.2:
        lines = lines.replace("\n", "\n# Enabled: no\n", 1)
    return lines + rng.choice(["\n", "\n\n", "\n# a comment\n\n"])


def conf_of(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(1, 5)):
        name, value = rng.choice(SETTINGS), rng.choice(VALUES)
        first, _, rest = name.partition("::")
        kind = rng.random()
        if kind < 0.4:
            parts.append(f"{name} {value};")
        elif kind < 0.6:
            parts.append(f"{first} {{ {rest} {value}; }};")
        elif kind < 0.7:
            parts.append(f"{name}:: {value};")
        elif kind < 0.8:
            parts.append(f'{name} {{ {value}; "b"; }};')
        elif kind < 0.9:
            parts.append(rng.choice(["// ", "# ", "/* x */ ", "/* "]) + f"{name} {value};" + rng.choice(["", " */"]))
        else:
            parts.append(rng.choice([f"#clear {name};", f"{name} {value}", f"{name}\n  {value} ;", f"{name} a b;"]))
    return rng.choice(["\n", "\n", " "]).join(parts) + "\n"


def environment(root: Path) -> Mapping[str, str]:
    """Returns an environment in which apt reads nothing of this machine."""
    return {"APT_CONFIG": str(root / "conf"), "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def empty_root(root: Path) -> System:
    conf = f'Dir "{root}";\nDir::Etc "etc/apt";\nDir::State::status "{root}/var/lib/dpkg/status";\n'
    put_all(root, {"conf": conf, "/var/lib/dpkg/status": "", "/var/lib/apt/lists/partial/x": ""})
    for folder in ("apt.conf.d", "sources.list.d", "preferences.d"):
        (root / "etc/apt" / folder).mkdir(parents=True, exist_ok=True)
    return System(root)


def answer(root: Path, argv: list[str]) -> str | None:
    """Returns what the program prints; None if it refuses."""
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(root), timeout=60, check=False)
    return None if done.returncode or "E: " in done.stderr else done.stdout


def apt_sources(system: System) -> set[str] | None:
    """Returns `address trusted` for each source that apt uses; to be called trusted, a list has to be there."""
    columns = apt_get(system, "--no-release-info", "indextargets", "--format")
    wanted = "\t".join(f"$({name})" for name in ("SITE", "RELEASE", "METAKEY", "FILENAME", "SOURCESENTRY", "REPO_URI"))
    output = answer(system.root, [*columns, wanted])
    if output is None:
        return None
    targets = parse_targets(output)
    for target in targets:
        put(system.root, f"/var/lib/apt/lists/{target.list_prefix}Release", "Origin: x\n")
    for line in output.splitlines():
        Path(line.split("\t")[3]).touch()
    trusted = answer(system.root, [*apt_get(system, "indextargets", "--format"), "$(REPO_URI)\t$(TRUSTED)"])
    for path in (system.root / "var/lib/apt/lists").glob("*_*"):
        path.unlink()
    if trusted is None:
        return None
    flags = dict.fromkeys(line for line in trusted.splitlines() if line.endswith("\tyes"))
    return {f"source {target.uri}" for target in targets} | {"trusted " + flag.removesuffix("\tyes") for flag in flags}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("file", "make"), [("/etc/apt/sources.list", line_of), ("/etc/apt/sources.list.d/a.sources", stanza_of)]
)
def test_the_reader_agrees_with_apt_about_sources(tmp_path: Path, seed: int, file: str, make: object) -> None:
    assert callable(make)
    rng = random.Random(seed)
    verdicts = Verdicts(f"sources of apt in {file.rpartition('.')[2]} files", seed)
    system = empty_root(tmp_path)
    for _ in range(8 * CASES):
        if verdicts.cases >= CASES // 2:
            break
        text = "\n".join(make(rng) for _ in range(rng.randint(1, 3))) + "\n"
        put(tmp_path, file, text)
        expected = apt_sources(system)
        if expected is None:
            continue
        gaps = GapRecorder()
        rows = [row for row in sources_apt.entries(system, gaps) if row["enabled"]]
        found = {f"source {uri_of(row['url'])}" for row in rows}
        found |= {f"trusted {uri_of(row['url'])}" for row in rows if any("trusted=" in flag for flag in row["flags"])}
        shown = f"{text}apt: {sorted(expected)}\nreader: {sorted(found)} {gaps.gaps}"
        verdicts.add(shown, expected, found, is_unknown=bool(gaps.gaps))
    assert verdicts.cases >= CASES // 2
    verdicts.check()


def uri_of(url: str) -> str:
    """Returns an address as apt completes it."""
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip() if "$(ARCH)" in url else ""  # fmt: skip
    return url.replace("$(ARCH)", architecture).rstrip("/") + "/"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reader_agrees_with_apt_about_settings(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    verdicts = Verdicts("apt.conf", seed)
    system = empty_root(tmp_path)
    names = {name.lower() for name in SETTINGS}
    built_in = flat(apt_conf.parse_dump(answer(tmp_path, ["apt-config", "dump"]) or "", GapRecorder()), names)
    for _ in range(8 * CASES):
        if verdicts.cases >= CASES:
            break
        texts = {name: conf_of(rng) for name in rng.sample(["10a", "20b.conf", "30.c.conf", "40d.dpkg-old", "50e~"], 2)}
        for path in (tmp_path / "etc/apt/apt.conf.d").iterdir():
            path.unlink()
        put_all(tmp_path / "etc/apt/apt.conf.d", texts)
        output = answer(tmp_path, ["apt-config", "dump"])
        if output is None:
            continue
        expected = apt_conf.parse_dump(output, GapRecorder())
        reading = apt_conf.read_settings(system)
        by_apt, by_reader = flat(expected, names) - built_in, flat(reading.value, names) - built_in
        shown = f"{texts}\napt: {by_apt}\nreader: {by_reader} {reading.gaps}"
        verdicts.add(shown, by_apt, by_reader, is_unknown=bool(reading.gaps))
    assert verdicts.cases >= CASES
    verdicts.check()


def flat(settings: apt_conf.AptSettings, names: set[str]) -> set[str]:
    values = {f"{name}={value}" for name, value in settings.values.items() if name in names and value}
    return values | {f"{name}::={item}" for name in names for item in settings.lists.get(name, ())}
