"""Which services of a configuration `xinetd.entries` finds, against the services in xinetd's own state dump."""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from device_agent.host import xinetd
from device_agent.host.inetd import program_behind
from device_agent.host.system import System
from tests.oracles.verdicts import Verdicts
from tests.support.root_folder import put

pytestmark = pytest.mark.oracles

SEEDS: Final = (3, 2026)
CASES: Final = 300  # of each seed
# Debian's package conflicts with other inetds, so that it is unpacked instead of installed.
UNPACKED: Final = Path(__file__).parents[2] / ".cache/xinetd/usr/sbin/xinetd"
PLACE: Final = "/run/cordon"  # in the test's own mount namespace
PROGRAMS: Final = ("in.telnetd", "in.ftpd", "sshd", "busybox")
# One process of xinetd for each configuration, in a network and a file system of its own, dumps its state and ends.
SCRIPT: Final = """
mount -t tmpfs none /run
mkdir -p /run/cordon/bin
for name in in.telnetd in.ftpd sshd busybox; do cp /bin/true /run/cordon/bin/$name; done
for case in "$2"/*/; do
    rm -rf /run/cordon/d /run/xinetd.dump /run/log
    cp -r "$case/run/cordon/d" /run/cordon/d
    : > /run/log
    "$1" -dontfork -filelog /run/log -f "$case/etc/xinetd.conf" 2>/dev/null &
    pid=$!
    for _ in $(seq 400); do
        grep -q 'Started working' /run/log && break; kill -0 $pid 2>/dev/null || break; sleep 0.01
    done
    kill -USR1 $pid 2>/dev/null
    for _ in $(seq 400); do
        grep -qs 'END OF DUMP' /run/xinetd.dump && break; kill -0 $pid 2>/dev/null || break; sleep 0.01
    done
    kill $pid 2>/dev/null; wait $pid
    cp /run/xinetd.dump "$case/dump" 2>/dev/null
done
true
"""


ODD_LINES: Final = (
    "disable = yes # not needed", "disable = maybe", "disable += yes", "disable =", "flags = DISABLE",
    "flags = REUSE", "id = other", "id = {name}-2", "# disable = yes", "bogus = 1", "wait = perhaps",
    "instances = 5", "log_on_failure += HOST", "only_from = 127.0.0.1", "disable = yes = yes", "  \t",
    "disable\t=\tyes", "flags = BOGUS", "type = NONE", "nice = 5", "disable = no", "Disable = yes",
    "disable-x = yes", "env = A=B", "disable == yes",
)  # fmt: skip
JUNK: Final = ("junk", "}", "# comment", "service", "service x {", "defaults")


def program() -> Path | None:
    found = shutil.which("xinetd", path=os.defpath + ":/usr/sbin:/sbin")
    return Path(found) if found else UNPACKED if UNPACKED.exists() else None


def service_of(rng: random.Random, name: str, port: int) -> list[str]:
    is_wrapped = rng.random() < 0.2
    server = "busybox" if is_wrapped else rng.choice(PROGRAMS[:3])
    lines = [
        *("type = UNLISTED", "socket_type = stream", "protocol = tcp", "wait = no", "user = root", f"port = {port}"),
        f"server = {PLACE}/bin/{server}",
    ]
    if is_wrapped:
        lines.append("server_args = telnetd -i")
    elif rng.random() < 0.3:
        lines.append("server_args = -a b")
    lines += rng.choice(
        [[], [], ["disable = no"], ["disable = yes"], ["disable = Yes"], ["disable = NO"], ["disable =yes"]]
    )
    if rng.random() < 0.35:
        lines.append(rng.choice(ODD_LINES).format(name=name))
    rng.shuffle(lines)
    indent = rng.choice(["", "\t", "    "])
    opening = rng.choice(["{", "{", "{", " {  ", "\t{"])
    keyword = rng.choice(["", "", "", " ", "\t"]) + rng.choice(["service"] * 9 + ["Service"])
    title = f"{keyword} {rng.choice([name] * 9 + [name.upper()])}"
    return [title, opening, *(indent + line for line in lines), rng.choice(["}", "}", " }"]), ""]


def config_of(rng: random.Random) -> dict[str, str]:
    """Returns the files of a configuration by path."""
    names = ["telnet", "ftp", "odd", "shell2"]
    port = iter(range(20000 + rng.randrange(1000) * 10, 40000))
    main: list[str] = []
    if rng.random() < 0.5:
        lines = ["log_type = FILE /run/log2"]
        for key in ("enabled", "disabled"):
            if rng.random() < 0.4:
                chosen = " ".join(rng.sample([*names, "other", "telnet-2", "Ftp"], rng.randint(0, 3)))
                lines.append(f"{key} {rng.choice(['=', '=', '+=', '-='])} {chosen}")
        main += ["defaults", "{", *("\t" + line for line in lines), "}"]
    included = rng.choice([[], [f"includedir {PLACE}/d"], [f"include {PLACE}/d/extra"]])
    for name in rng.sample(names, rng.randint(1, 3)):
        main += (
            [rng.choice(["junk", "}", "# comment", "service", "service x {", "defaults"])]
            if rng.random() < 0.006
            else []
        )
        main += service_of(rng, name, next(port))
    main = [*included, *main] if rng.random() < 0.5 else [*main, *included]
    files = {"/etc/xinetd.conf": "\n".join(main) + "\n", f"{PLACE}/d/.keep": ""}
    for file in rng.sample(["extra", "x.bak", "old~", "b"], rng.randint(0, 3)):
        body = service_of(rng, f"in-{file.strip('~').partition('.')[0]}", next(port))
        files[f"{PLACE}/d/{file}"] = "\n".join(body) + "\n"
    return files


def running(dump: str) -> set[str]:
    """Returns service and program of every service in a state dump."""
    found = set()
    for block in re.split(r"^Service = ", dump, flags=re.MULTILINE)[1:]:
        server = re.search(r"^\t\tServer = (.*)$", block, re.MULTILINE)
        argv = re.search(r"^\t\tServer argv = (.*)$", block, re.MULTILINE)
        name = re.search(r"^\tService configuration: (.*)$", block, re.MULTILINE)
        assert name, block
        words = [*([server[1].strip()] if server else []), *(argv[1].split() if argv else [])]
        found.add(f"{name[1].strip()} {program_behind(words)}")
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reader_agrees_with_xinetd(seed: int, tmp_path: Path) -> None:
    binary = program()
    if binary is None or os.geteuid() != 0:
        pytest.skip("xinetd is not there, or this is not root, who may make namespaces")
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces are not permitted here")
    rng = random.Random(seed)
    configs: list[Mapping[str, str]] = [config_of(rng) for _ in range(CASES)]
    for number, files in enumerate(configs):
        for path, text in files.items():
            put(tmp_path / f"{number:04}", path, text)
    argv = ["unshare", "--net", "--mount", "bash", "-c", SCRIPT, "bash", str(binary), str(tmp_path)]
    subprocess.run(argv, check=True, capture_output=True, timeout=900)
    verdicts = Verdicts("xinetd", seed)
    for number, files in enumerate(configs):
        root = tmp_path / f"{number:04}"
        dump = root / "dump"
        if not dump.exists():
            continue  # it ended at once, for want of services or because of its defaults
        reading = xinetd.read_entries(System(root))
        found = {f"{entry.service} {entry.program}" for entry in reading.value}
        verdicts.add(
            "\n".join(f"--- {path}\n{text}" for path, text in files.items()),
            running(dump.read_text()),
            found,
            is_unknown=bool(reading.gaps),
        )
    assert verdicts.cases > CASES / 2
    verdicts.check()
