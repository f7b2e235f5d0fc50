"""The hooks for A/B images are sound; `tests/integration/updates/test_two_slots.py` shows what they do to two slots."""

import subprocess
from pathlib import Path

import pytest

from tests.support.project_tree import ROOT

HOOKS = sorted((ROOT / "deploy/update-hooks").iterdir())


@pytest.mark.parametrize("hook", HOOKS, ids=lambda path: path.name)
def test_a_hook_is_sound_and_knows_its_words(hook: Path) -> None:
    assert subprocess.run(["sh", "-n", str(hook)], check=False, timeout=30).returncode == 0
    wrong = subprocess.run([str(hook), "dance"], capture_output=True, text=True, check=False, timeout=30)
    assert wrong.returncode == 2
    assert "install FILE VERSION | version | confirm | rollback VERSION" in wrong.stderr
