"""A rollout of one target, and its devices in the states that the tests of rollouts begin with."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controller.domain.rollout import member, revert
from controller.domain.rollout.lifecycle import begin
from controller.domain.rollout.model import (
    CommandProgress,
    InstalledVersion,
    MemberTransition,
    Rollout,
    RolloutDevice,
    RolloutMember,
    RolloutTarget,
    RolloutTerms,
)
from controller.domain.rollout.window import parse_window

NOW = 1_800_000_000.0
TARGET = RolloutTarget("app/2.0/app.tar.gz", "app", "2.0", "0" * 64, 10, ("gateway",), ("rpi4",))
DEVICE = RolloutDevice("t1", "gateway", is_reachable=True, is_isolated=False, is_busy=False, zone="UTC")
OLD = InstalledVersion(is_known=True, version="1.0", health="ok", device_class="gateway", hardware=("rpi4",))
NEW = replace(OLD, version="2.0", outcome="confirmed", command_id="c1")


def rollout_with(*sizes: int, **terms: Any) -> tuple[Rollout, list[RolloutMember]]:
    """A rollout whose ring n has devices `rNdM`; its times are short."""
    rings = [(f"r{ring}", [f"r{ring}d{number}" for number in range(size)]) for ring, size in enumerate(sizes)]
    all_terms = RolloutTerms(**{"soak": 60.0, "timeout": 600.0, "min_sample": 2, **terms})
    rollout, members = begin("r-1", TARGET, all_terms, rings, by="operator:a", reason="", now=NOW)
    return rollout, list(members)


def first_of(made: tuple[Rollout, list[RolloutMember]]) -> MemberTransition:
    rollout, members = made
    return rollout, members[0]


def ordered(rollout: Rollout, device: RolloutMember) -> MemberTransition:
    view = replace(DEVICE, device_id=device.device_id)
    return member.on_command_issued(*member.schedule(rollout, device, view, OLD, NOW), "c1", NOW)


def confirmed(rollout: Rollout, device: RolloutMember) -> MemberTransition:
    return member.on_report(*ordered(rollout, device), NEW, NOW)


def progressed(rollout: Rollout, device: RolloutMember, state: str, phase: str = "") -> MemberTransition:
    return member.on_command_progress(rollout, device, CommandProgress(device.command_id, state, "", phase), NOW)


def reverting(rollout: Rollout, device: RolloutMember) -> MemberTransition:
    view = replace(DEVICE, device_id=device.device_id)
    return revert.on_command_issued(*revert.schedule(rollout, device, view, NOW), "c2", NOW)


HOUR, DAY = 3_600.0, 86_400.0
NIGHT = datetime.fromtimestamp(NOW, UTC).replace(hour=2, minute=0, second=0).timestamp()


def in_window(window: str = "02:00-05:00", **terms: object) -> tuple[Rollout, RolloutMember]:
    return first_of(rollout_with(1, 1, window=parse_window(window), **terms))
