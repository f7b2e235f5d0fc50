"""Devices that have a newer version than a rollout brings, or one that cannot be compared with it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.domain.rollout.model import RolloutTarget
from controller.domain.update_names import is_older

_NAMED: Final = 3  # devices in a remark


@dataclass(frozen=True, slots=True)
class VersionRemarks:
    """Sentences for operators, empty where there is nothing to say."""

    newer: str
    unordered: str


def version_remarks(target: RolloutTarget, installed: Sequence[tuple[str, str]]) -> VersionRemarks:
    """Compares the target with device ids and their versions."""
    newer, unordered = list[str](), list[str]()
    for device_id, version in installed:
        order = False if version == target.version else is_older(target.version, version, target.installer)
        if order is not False:
            (unordered if order is None else newer).append(f"{version} on {device_id}")
    return VersionRemarks(
        _remark(newer, f"a newer version than {target.version}"),
        _remark(unordered, f"a version that cannot be ordered against {target.version}"),
    )


def _remark(found: list[str], what: str) -> str:
    more = ", ..." if len(found) > _NAMED else ""
    return f"{len(found)} devices have {what} ({', '.join(found[:_NAMED])}{more})" if found else ""
