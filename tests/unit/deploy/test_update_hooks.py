"""The hooks for A/B images keep to the contract, as far as it can be seen without the update systems themselves."""

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
    assert "install FILE VERSION | version | confirm | rollback" in wrong.stderr


def test_the_hook_for_rauc_goes_back_to_the_right_slot(tmp_path: Path) -> None:
    fake = tmp_path / "rauc"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CORDON_HOOK_STATE": str(tmp_path / "tried")}

    def hook(*words: str) -> str:
        argv = [str(ROOT / "deploy/update-hooks/rauc"), *words]
        return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True, timeout=30).stdout

    running = hook("version").strip()
    hook("install", "x.raucb", "another")
    hook("rollback")  # the new one was never started
    hook("install", "x.raucb", running)
    hook("rollback")  # it runs
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [
        "install x.raucb",
        "status mark-active booted",
        "install x.raucb",
        "status mark-bad booted",
        "status mark-active other",
    ]
