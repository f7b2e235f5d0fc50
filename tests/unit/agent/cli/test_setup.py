"""The commands doctor, install and passphrase, the one-file agent, and the notifications of systemd."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from device_agent.cli.doctor import as_json, as_text, diagnose
from device_agent.cli.install import unit_text
from device_agent.cli.setup import CHARACTERS, make_passphrase
from device_agent.collectors.base import Section, SectionBuilder
from device_agent.host.notify import SystemdNotifier
from device_agent.host.system import System
from device_agent.main import main
from device_agent.settings import load
from tests.support.project_tree import ROOT

pytestmark = pytest.mark.slow

SECONDS: Final = 60


def test_a_passphrase_has_the_stated_entropy(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(set(CHARACTERS)) == 32
    texts = set()
    for bits in (80, 81, 128, 1024):
        text, stated = make_passphrase(bits)
        letters = text.replace("-", "")
        assert set(letters) <= set(CHARACTERS)
        assert stated == 5 * len(letters) >= bits > stated - 5
        texts.add(text)
    assert len(texts) == 4
    assert main(["passphrase"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"([0-9a-z]{5}-){5}[0-9a-z]\n", printed.out)
    assert printed.err == "130 bits of entropy\n"
    assert main(["passphrase", "--bits", "40"]) == 2


def _root(folder: Path, *, has_systemd: bool) -> Path:
    if has_systemd:
        (folder / "usr/lib/systemd").mkdir(parents=True)
        (folder / "usr/lib/systemd/systemd").touch()
    return folder


def test_install_writes_unit_and_configuration_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _root(tmp_path, has_systemd=True)
    argv = ["install", "--root", str(root), "--device-id", "edge-17", "--server", "mqtts://b.example:8883"]
    assert main([*argv, "--exec", "/usr/local/bin/cordon-agent"]) == 0
    unit, config = root / "etc/systemd/system/cordon-agent.service", root / "etc/cordon/agent.toml"
    assert "\nExecStart=/usr/local/bin/cordon-agent --log-format json run" in unit.read_text()
    assert "/opt/cordon" not in unit.read_text()
    assert config.stat().st_mode & 0o777 == 0o600
    assert (root / "var/lib/cordon-agent").stat().st_mode & 0o777 == 0o700
    settings = load(config)
    assert (settings.device_id, settings.mqtt.servers) == ("edge-17", ("mqtts://b.example:8883",))
    assert (settings.commands.allow, settings.commands.controller_keys) == ((), ())
    config.write_text("mine")
    capsys.readouterr()
    assert main(argv) == 2
    assert "already there, nothing was changed" in capsys.readouterr().err
    assert config.read_text() == "mine"
    assert main([*argv, "--force"]) == 0
    assert load(config).device_id == "edge-17"


def test_install_without_systemd_writes_no_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _root(tmp_path, has_systemd=False)
    assert main(["install", "--root", str(root), "--exec", "/usr/bin/cordon-agent"]) == 0
    assert "no systemd here" in capsys.readouterr().out
    assert not (root / "etc/systemd").exists()
    for wrong in (["--exec", "has space"], ["--server", "http://x"]):
        assert main(["install", "--root", str(root), "--force", *wrong]) == 2


def test_install_writes_the_shipped_unit() -> None:
    assert unit_text() == (ROOT / "deploy" / "systemd" / "cordon-agent.service").read_text()


def test_doctor_has_a_diagnosis_for_every_section() -> None:
    def forbidden(_system: System) -> Section:
        raise PermissionError(13, "needs root", "/x")

    def good(_system: System) -> Section:
        return SectionBuilder(id="debian", kernel="6.1").build()

    diagnoses = diagnose(System(is_root_user=False), {"os": good, "firewall": forbidden})
    assert [(item.section, item.state, item.reason) for item in diagnoses] == [
        ("firewall", "unknown", "/x: needs root"),
        ("os", "ok", ""),
    ]
    text = as_text(System(is_root_user=False), diagnoses)
    assert "1 of 2 sections found." in text
    assert "More facts are available as root: firewall." in text
    parsed = json.loads(as_json(System(), diagnoses))
    assert [item["section"] for item in parsed["sections"]] == ["firewall", "os"]
    assert set(parsed["programs"]) == {"present", "absent"}


def test_systemd_is_notified(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}
        notifier = SystemdNotifier.from_environment({**environment, "WATCHDOG_PID": str(os.getpid())})
        notifier.ready("here")
        assert systemd.recv(999) == b"READY=1\nSTATUS=here"
        for now in (10.0, 10.5, 11.0):
            notifier.watchdog(now, "well")
        notifier.stopping()
        received = [systemd.recv(999) for _ in range(3)]
        assert received == [b"WATCHDOG=1\nSTATUS=well"] * 2 + [b"STOPPING=1"]
        SystemdNotifier.from_environment({**environment, "WATCHDOG_PID": "1"}).watchdog(0.0, "not ours")
        SystemdNotifier.from_environment({}).ready("no socket")
        SystemdNotifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "none")}).stopping()
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(999)


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("agent") / "cordon-agent.pyz"
    argv = [sys.executable, str(ROOT / "tools" / "build_agent.py"), str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert re.search(r"cordon-agent\.pyz: \d+\.\d MB", done.stdout)
    return target


def _run(one_file: Path, cache: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    # An interpreter that sees neither the project nor its libraries.
    argv = [sys._base_executable, "-I", str(one_file), *words]  # type: ignore[attr-defined]  # not in typeshed
    environment = {"PATH": os.environ["PATH"], "CORDON_AGENT_CACHE": str(cache)}
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment, cwd=one_file.parent
    )


def test_the_one_file_agent_needs_no_installation(one_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = _run(one_file, cache, "report")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sections"]["os"]["state"] == "ok"
    (unpacked,) = cache.iterdir()
    assert not (unpacked / "controller").exists()
    again = _run(one_file, cache, "passphrase")
    assert (again.returncode, list(cache.iterdir())) == (0, [unpacked])
    root = _root(tmp_path / "root", has_systemd=True)
    assert _run(one_file, cache, "install", "--root", str(root)).returncode == 0
    assert f"ExecStart={one_file} " in (root / "etc/systemd/system/cordon-agent.service").read_text()


def test_the_one_file_agent_refuses_a_cache_that_others_can_write(one_file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    done = _run(one_file, cache, "passphrase")
    assert done.returncode == 1
    assert "may be written by, somebody else" in done.stderr
