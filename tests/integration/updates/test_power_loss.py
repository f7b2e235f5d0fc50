"""Power loss during an update: after a kill at any step the next start ends with one complete version."""

import subprocess
import sys

import pytest

from tests.support.project_tree import ROOT

SECONDS = 240.0


@pytest.mark.timeout(SECONDS + 10)
@pytest.mark.parametrize(
    "more",
    [
        pytest.param(["--most", "1"], id="one kill"),
        pytest.param(["--most", "10"], id="once", marks=pytest.mark.slow),
        pytest.param(["--most", "3", "--twice"], id="twice", marks=pytest.mark.slow),
    ],
)
def test_every_kill_ends_in_a_complete_version(more: list[str]) -> None:
    # A process with one thread, because it forks. All steps: `make power-loss`.
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.updates.power_loss", *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed at" in done.stdout
