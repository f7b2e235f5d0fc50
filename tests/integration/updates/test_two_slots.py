"""A/B updates through the hooks for RAUC, SWUpdate and Mender, with the power lost at every write.

After each loss the machine has to start, the good slot is intact, and the command ends with a whole version that runs.
"""

from pathlib import Path

import pytest

from tests.support.two_slots import HOOKS, NEW, OLD, TwoSlots

pytestmark = pytest.mark.slow

IMAGES = {"good": NEW, "does not start": f"{NEW} broken", "is not healthy": f"{NEW} sick", "is another": "7.7"}
SAMPLE = 5  # every fifth write; all of them in the slow run


def check(machine: TwoSlots, outcome: str, image: str) -> None:
    where = f"lost before write {machine.kill} {machine.kills}: {outcome}, {machine.get('env')!r}"
    assert machine.violations() == "", where
    running = machine.running
    assert running in {OLD, NEW}, where
    assert image == NEW or running == OLD, where
    assert (outcome == "confirmed") is (running == NEW), where
    for _ in range(4):  # and it stays: what runs is chosen for good
        machine.boot()
        assert machine.running == running, where


def kill_points(folder: Path, kind: str, image: str) -> int:
    machine = TwoSlots(folder, kind)
    outcome = machine.install(image)
    check(machine, outcome, image)
    assert outcome == ("confirmed" if image == NEW else "rolled_back")
    return machine.writes


def kill_at(tmp_path: Path, kind: str, image: str, points: range) -> None:
    for kill in points:
        machine = TwoSlots(tmp_path / str(kill), kind, kill)
        outcome = machine.install(image)
        assert len(machine.kills) == 1
        check(machine, outcome, image)


@pytest.mark.parametrize("kind", HOOKS)
def test_an_update_survives_power_loss(tmp_path: Path, kind: str) -> None:
    count = kill_points(tmp_path / "0", kind, NEW)
    assert count > 15
    kill_at(tmp_path, kind, NEW, range(1, count + 1, SAMPLE))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("kind", HOOKS)
def test_every_write_may_be_the_last(tmp_path: Path, kind: str, image: str) -> None:
    kill_at(tmp_path, kind, image, range(1, kill_points(tmp_path / "0", kind, image) + 1))


def rolled_back(machine: TwoSlots, outcome: str) -> None:
    assert machine.violations() == ""
    if machine.kind == "mender":  # it cannot leave a committed version; the good one runs on
        assert (outcome, machine.running) == ("broken", NEW)
    else:
        assert (outcome, machine.running) == ("rolled_back", OLD)
    running = machine.running
    for _ in range(4):
        machine.boot()
        assert machine.running == running


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("step", [pytest.param(SAMPLE, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_an_ordered_rollback_survives_power_loss(tmp_path: Path, kind: str, step: int) -> None:
    machine = TwoSlots(tmp_path / "first", kind)
    assert machine.install(NEW) == "confirmed"
    start = machine.writes
    whole = machine.copy(tmp_path / "whole", 0)
    rolled_back(whole, whole.go_back())
    for kill in range(start + 1, whole.writes + 1, step):
        again = machine.copy(tmp_path / str(kill), kill)
        outcome = again.go_back()
        assert len(again.kills) == 1
        rolled_back(again, outcome)


@pytest.mark.parametrize("kind", HOOKS)
def test_a_version_that_runs_already_is_not_written_again(tmp_path: Path, kind: str) -> None:
    """The state of the agent was lost, and the same version is ordered: the other slot is the good one."""
    machine = TwoSlots(tmp_path / "m", kind)
    assert machine.install(NEW) == "confirmed"
    before = machine.get("slot1"), machine.get("slot2")
    for path in (machine.folder / "state" / "records").iterdir():
        path.unlink()
    machine.put("good", "1")
    assert machine.install(NEW) == "confirmed"
    assert (machine.get("slot1"), machine.get("slot2"), machine.violations()) == (*before, "")


@pytest.mark.parametrize("kind", HOOKS)
def test_nothing_is_written_while_the_running_version_is_unknown(tmp_path: Path, kind: str) -> None:
    machine = TwoSlots(tmp_path / "m", kind)
    machine.put("os-release", "ID=test\n")
    assert machine.install(NEW) == "failed"
    assert machine.get("slot2") == "0.9"


def test_swupdate_writes_nothing_where_the_running_slot_is_unknown(tmp_path: Path) -> None:
    machine = TwoSlots(tmp_path / "m", "swupdate")
    machine.put("cmdline", "console=ttyS0\n")
    assert machine.install(NEW) == "broken"  # nor can the hook choose a slot to go back to
    assert (machine.get("slot2"), machine.running) == ("0.9", OLD)
