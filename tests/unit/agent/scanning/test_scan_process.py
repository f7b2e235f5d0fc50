"""Scans in a process of their own: what they find, what they remember, what becomes of one that fails."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from device_agent.collectors.base import SECTIONS
from device_agent.collectors.registry import COLLECTORS
from device_agent.collectors.scan import Scanner
from device_agent.collectors.tools.tool_runner import ToolRunner
from device_agent.commands.lazy_loading import LazyActions
from device_agent.domain.report import ReportContent
from device_agent.host.system import System
from device_agent.identity.certificate_child import main as leaf_child
from device_agent.scanning import scan_child
from device_agent.scanning.scan_process import ScanProcess
from device_agent.settings import Settings
from schemas.posture import ReportSections

# What an agent that only waits has no use for, and what it would cost: cryptography, the models of every section.
HEAVY = ("cryptography", "schemas.posture", "device_agent.collectors.registry", "device_agent.actions.registry")


def settings(folder: Path, **more: Any) -> Settings:
    return Settings.model_validate(
        {"device_id": "edge-1", "mqtt": {"servers": ["mqtt://b"]}, "agent": {"state_dir": str(folder)}, **more}
    )


def process(folder: Path, system: System | None = None, **more: Any) -> ScanProcess:
    chosen = settings(folder)
    return ScanProcess(chosen, system or System(folder), ToolRunner(chosen.tools, folder), **more)


def sections(found: ReportContent) -> dict[str, Any]:
    ReportSections.model_validate_json(found.sections)
    told: dict[str, Any] = json.loads(found.sections)
    return told


def test_the_names_are_those_of_the_collectors() -> None:
    assert set(SECTIONS) == set(COLLECTORS)


def test_a_scan_of_a_prepared_root_finds_every_section_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=alpine\nVERSION_ID=3.20\n")
    found = process(tmp_path).scan(force_rescan=False)
    told = sections(found)
    assert set(told) == set(SECTIONS)
    assert (told["os"]["id"], told["os"]["version"]) == ("alpine", "3.20")
    assert told["firewall"]["state"] in ("unknown", "notapplicable")
    assert found.digest.startswith("sha256:")


def test_a_scan_knows_what_the_one_before_found(tmp_path: Path) -> None:
    scans = process(tmp_path, System())
    first = sections(scans.scan(force_rescan=False))["sockets"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        second = sections(scans.scan(force_rescan=False))["sockets"]
    assert "opened" not in first or first["opened"] == []
    assert any(line.startswith(f"tcp 127.0.0.1:{port} ") for line in second["opened"])
    # Nor does one with a fresh look forget it.
    assert sections(scans.scan(force_rescan=True))["sockets"]["closed"] != []


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("false",), "false ended with status 1"),
        (("echo", "{}"), "'sections'"),
        (("echo", "nonsense"), "Expecting value"),
        (("/nowhere/python",), "python is not installed"),
        ((sys.executable, "-c", "import sys; sys.exit('it broke')"), "it broke"),
    ],
)
def test_a_scan_that_fails_leaves_everything_unknown_with_the_reason(
    tmp_path: Path, argv: tuple[str, ...], reason: str
) -> None:
    told = sections(process(tmp_path, argv=argv).scan(force_rescan=False))
    assert set(told) == set(SECTIONS)
    assert {one["state"] for one in told.values()} == {"unknown"}
    assert reason in told["disk"]["reason"]


def test_a_scan_ends_when_the_agent_does(tmp_path: Path) -> None:
    scans = process(tmp_path, argv=("sleep", "100"))
    thread = threading.Thread(target=scans.scan, kwargs={"force_rescan": False})
    thread.start()
    scans.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_scan_that_hangs_is_ended(tmp_path: Path) -> None:
    told = sections(process(tmp_path, argv=("sleep", "100"), seconds=0.2).scan(force_rescan=False))
    assert "did not end within" in told["os"]["reason"]


@pytest.mark.parametrize(
    "state",
    ["nonsense", "null", "[]", '{"reusable":{}}', '{"reusable":{"keys":1},"collectors":{}}',
     '{"reusable":{},"collectors":{"sockets":7,"updates":["a"],"openscap":[],"certificates":[1,2],"integrity":"x"}}'],
)  # fmt: skip
def test_a_state_of_another_version_is_dropped(tmp_path: Path, state: str) -> None:
    request = {
        "settings": settings(tmp_path).model_dump(mode="json"),
        "root": str(tmp_path),
        "is_root_user": False,
        "force_rescan": False,
        "tools": {},
        "state": state,
    }
    answer = scan_child.scan(request)
    assert set(json.loads(answer["sections"])) == set(SECTIONS)
    assert json.loads(answer["state"])["collectors"]


def test_every_collector_goes_on_from_what_it_gave(tmp_path: Path) -> None:
    first, second = (Scanner(System(tmp_path), dict(COLLECTORS)) for _ in range(2))
    first.scan()
    second.restore(json.loads(json.dumps(first.state())))
    assert json.loads(json.dumps(second.state())) == json.loads(json.dumps(first.state()))


def test_settings_survive_the_way_to_another_process(tmp_path: Path) -> None:
    chosen = settings(
        tmp_path,
        report={"scan_every": "2m", "heartbeat_every": "1500ms"},
        tools={"run": ["lynis"], "run_every": "90d"},
        certificates={"paths": ["/etc/ssl"], "crl_urls": ["http://crl.example/a"]},
    )
    assert Settings.model_validate(json.loads(json.dumps(chosen.model_dump(mode="json")))) == chosen


def test_a_waiting_agent_has_loaded_nothing_of_what_only_scans_and_commands_need() -> None:
    source = f"import device_agent.main, device_agent.runtime, sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_actions_are_made_once_when_one_is_looked_for() -> None:
    made = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"rescan": object()}

    late = LazyActions(make)
    assert made == []
    assert (list(late), len(late), late.get("nothing")) == (["rescan"], 1, None)
    early = LazyActions(make, eager={"update.install": late["rescan"]})
    assert early["update.install"] is late["rescan"]
    assert made == [1]
    assert sorted(early) == ["rescan", "update.install"]
    made.pop()
    assert late["rescan"] is late["rescan"]
    assert made == [1]


def test_what_is_no_certificate_has_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.pem").write_text("no")
    assert leaf_child(str(tmp_path / "no.pem")) == 1
    assert leaf_child(str(tmp_path / "missing.pem")) == 1
    assert capsys.readouterr().out == ""
