"""`cordon demo-update` as a process: both rollouts are as expected, and nothing is left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WAIT = 150.0  # seconds; the real agent looks at the packages of a real machine first
ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "controller.main", "demo-update", "--fast", "--devices", "12", "--output", "json"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_good_and_a_bad_rollout(tmp_path: Path) -> None:
    home = tmp_path / "tmp"
    home.mkdir()
    environment = {**os.environ, "TMPDIR": str(home)}
    ended = subprocess.run(
        COMMAND, check=False, capture_output=True, text=True, timeout=WAIT, env=environment, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout.splitlines()[-1])
    assert answer["ok"] is True
    assert (answer["simulated"], answer["real_agents"]) == (12, 1)
    assert [step["name"] for step in answer["steps"] if step["ok"]] == [
        "broker", "repository", "setup", "good", "good_seen", "bad", "bad_seen",
    ]  # fmt: skip
    good, bad = answer["rollouts"]
    assert [ring["confirmed"] for ring in good["rings"]] == [3, 3, 7]
    assert good["approved_by"] == "operator:second-operator"
    assert (bad["state"], bad["ring"], bad["rings"][2]["pending"]) == ("stopped", "canary", 7)
    assert bad["rings"][0]["reverted"] == 3
    assert "r-0001 soaking: test 3/3; canary 0/3; fleet 0/7" in ended.stderr
    assert not list(home.iterdir())
