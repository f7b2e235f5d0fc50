"""Scans in a child process: sections, state between scans, failures."""

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
from device_agent.domain.report import ReportContent
from device_agent.host.system import System
from device_agent.scanning import scan_child
from device_agent.scanning.scan_process import ScanProcess
from device_agent.settings import Settings
from schemas.posture import ReportSections

# Modules that an idle agent must not load, because of their memory.
HEAVY = ("cryptography", "schemas.posture", "device_agent.collectors.registry", "device_agent.actions.registry")


def settings(folder: Path, **more: Any) -> Settings:
    return Settings.model_validate(
        {"device_id": "edge-1", "mqtt": {"servers": ["mqtt://b"]}, "agent": {"state_dir": str(folder)}, **more}
    )


def process(folder: Path, system: System | None = None, **more: Any) -> ScanProcess:
    chosen = settings(folder)
    return ScanProcess(chosen, system or System(folder), ToolRunner(chosen.tools, folder), **more)


def sections(content: ReportContent) -> dict[str, Any]:
    ReportSections.model_validate_json(content.sections)
    parsed: dict[str, Any] = json.loads(content.sections)
    return parsed


def test_the_section_names_are_those_of_the_collectors() -> None:
    assert set(SECTIONS) == set(COLLECTORS)


def test_a_scan_of_a_prepared_root_gives_every_section_or_a_reason(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=alpine\nVERSION_ID=3.20\n")
    content = process(tmp_path).scan(force_rescan=False)
    parsed = sections(content)
    assert set(parsed) == set(SECTIONS)
    assert (parsed["os"]["id"], parsed["os"]["version"]) == ("alpine", "3.20")
    assert parsed["firewall"]["state"] in ("unknown", "notapplicable")
    assert content.digest.startswith("sha256:")


def test_a_scan_compares_with_the_scan_before(tmp_path: Path) -> None:
    scans = process(tmp_path, System())
    first = sections(scans.scan(force_rescan=False))["sockets"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        second = sections(scans.scan(force_rescan=False))["sockets"]
    assert "opened" not in first or first["opened"] == []
    assert any(line.startswith(f"tcp 127.0.0.1:{port} ") for line in second["opened"])
    # A forced rescan keeps the state too.
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
def test_a_failed_scan_makes_every_section_unknown_with_the_reason(
    tmp_path: Path, argv: tuple[str, ...], reason: str
) -> None:
    parsed = sections(process(tmp_path, argv=argv).scan(force_rescan=False))
    assert set(parsed) == set(SECTIONS)
    assert {section["state"] for section in parsed.values()} == {"unknown"}
    assert reason in parsed["disk"]["reason"]


def test_a_scan_ends_when_the_agent_stops(tmp_path: Path) -> None:
    scans = process(tmp_path, argv=("sleep", "100"))
    thread = threading.Thread(target=scans.scan, kwargs={"force_rescan": False})
    thread.start()
    scans.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_hanging_scan_is_ended_by_its_timeout(tmp_path: Path) -> None:
    parsed = sections(process(tmp_path, argv=("sleep", "100"), seconds=0.2).scan(force_rescan=False))
    assert "did not end within" in parsed["os"]["reason"]


@pytest.mark.parametrize(
    "state",
    ["nonsense", "null", "[]", '{"reusable":{}}', '{"reusable":{"keys":1},"collectors":{}}',
     '{"reusable":{},"collectors":{"sockets":7,"updates":["a"],"openscap":[],"certificates":[1,2],"integrity":"x"}}'],
)  # fmt: skip
def test_an_invalid_state_is_dropped(tmp_path: Path, state: str) -> None:
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


def test_every_collector_restores_its_own_state(tmp_path: Path) -> None:
    first, second = (Scanner(System(tmp_path), dict(COLLECTORS)) for _ in range(2))
    first.scan()
    second.restore(json.loads(json.dumps(first.state())))
    assert json.loads(json.dumps(second.state())) == json.loads(json.dumps(first.state()))


def test_settings_round_trip_through_json(tmp_path: Path) -> None:
    chosen = settings(
        tmp_path,
        report={"scan_every": "2m", "heartbeat_every": "1500ms"},
        tools={"run": ["lynis"], "run_every": "90d"},
        certificates={"paths": ["/etc/ssl"], "crl_urls": ["http://crl.example/a"]},
    )
    assert Settings.model_validate(json.loads(json.dumps(chosen.model_dump(mode="json")))) == chosen


def test_an_idle_agent_loads_no_module_that_only_scans_and_commands_need() -> None:
    source = f"import device_agent.main, device_agent.runtime, sys; print([m for m in {HEAVY} if m in sys.modules])"
    completed = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    assert completed.stdout.strip() == "[]"
