"""Power loss in the middle of an update: a real process killed at its steps always ends in one whole version."""

import subprocess
import sys

import pytest

from tests.support.project_tree import ROOT
from tests.support.update_device import WAIT


@pytest.mark.parametrize("more", [["--most", "4"], ["--most", "1", "--twice"]], ids=["once", "twice"])
def test_every_kill_ends_in_a_whole_version(more: list[str]) -> None:
    # In a process with one thread: it forks. All steps: `python -m tests.integration.updates.power_loss`.
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.updates.power_loss", *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * WAIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed at" in done.stdout
