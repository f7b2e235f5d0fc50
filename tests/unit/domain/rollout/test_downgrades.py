"""A rollout takes no device back to an older version unless it was asked to, and says what it cannot order."""

from dataclasses import replace

import pytest

from controller.domain.rollout import member
from controller.domain.rollout.downgrades import version_remarks
from controller.domain.rollout.model import CommandProgress, MemberState
from tests.support.rollout_members import DEVICE, NEW, NOW, OLD, TARGET, first_of, ordered, rollout_with


@pytest.mark.parametrize(
    ("installer", "target", "installed", "state"),
    [
        ("fileset", "2.0", "1.10", MemberState.ORDERED),
        ("fileset", "2.0", "2.1", MemberState.SKIPPED),
        ("script", "2.0.0-rc.1", "2.0.0", MemberState.SKIPPED),
        ("apt", "2.0", "1:1.0", MemberState.SKIPPED),
        ("apt", "2.0", "2.0~rc1", MemberState.ORDERED),
        ("apk", "1.0-r0", "1.0_git20240101-r0", MemberState.SKIPPED),
        ("dnf", "1.0-2", "1.0-1", MemberState.ORDERED),
        ("fileset", "2.0", "2024a", MemberState.ORDERED),  # no order: the remark of the rollout says so
        ("fileset", "2.0", "", MemberState.ORDERED),
    ],
)
@pytest.mark.parametrize("allow_downgrade", [False, True])
def test_device_with_a_newer_version_is_skipped_at_its_turn(
    installer: str, target: str, installed: str, state: MemberState, allow_downgrade: bool
) -> None:
    rollout, device = first_of(rollout_with(1, 1, allow_downgrade=allow_downgrade))
    rollout = replace(rollout, target=replace(TARGET, version=target, installer=installer))
    _, after = member.schedule(rollout, device, DEVICE, replace(OLD, version=installed), NOW)
    assert after.state is (MemberState.ORDERED if allow_downgrade else state)
    assert ("newer than" in after.reason) is (after.state is MemberState.SKIPPED)


def test_device_that_got_a_newer_version_after_an_order_that_it_did_not_begin_is_not_ordered_again() -> None:
    rollout, device = ordered(*first_of(rollout_with(1, 1)))
    progress = CommandProgress(device.command_id, "failed", "it is 1970", "refused", reason_code="clock")
    rollout, device = member.on_command_progress(rollout, device, progress, NOW)
    rollout, device = member.time_out(rollout, device, NOW + member.CLOCK_RETRY)
    newer = replace(OLD, version="2.1")
    rollout = replace(rollout, target=replace(TARGET, installer="fileset"))
    rollout, device = member.schedule(rollout, device, DEVICE, newer, NOW)
    assert (device.state, device.was_received) == (MemberState.UNKNOWN, False)
    assert "newer than" in device.reason
    # What it does with the first order is still looked at.
    assert member.on_report(rollout, device, NEW, NOW)[1].state is MemberState.CONFIRMED


def test_remarks_name_the_first_devices() -> None:
    found = version_remarks(
        replace(TARGET, version="2.0", installer="fileset"),
        [("a", "1.0"), ("b", "2.0"), ("c", "3.0"), *((f"d{n}", "2024a") for n in range(5))],
    )
    assert found.newer == "1 devices have a newer version than 2.0 (3.0 on c)"
    assert found.unordered.startswith("5 devices have a version that cannot be ordered against 2.0 (2024a on d0, ")
    assert found.unordered.endswith("2024a on d2, ...)")
