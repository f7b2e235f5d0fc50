"""What simulated devices make of updates: values in, values out. Nothing is downloaded; how it ends is configured."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from schemas.commands import Command, CommandState
from schemas.updates import (
    GO_BACK,
    INSTALL,
    InstallParams,
    RollbackParams,
    UpdatePhase,
    UpdateProgress,
    UpdateRefusalCode,
)

ACTIONS: Final = (INSTALL, GO_BACK)
SoftwarePosture = dict[str, Any]


class SimulatedUpdateOutcome(StrEnum):
    """How an update ends on a device."""

    GOOD = "good"
    """Installed, healthy, confirmed, reported."""
    UNHEALTHY = "unhealthy"
    """Installed, not healthy, and gone back from."""
    REFUSED = "refused"
    """Not to be trusted: nothing is changed."""
    BROKEN = "broken"
    """Installed, not healthy, and no way back."""
    DECLINED = "declined"
    """The person at the device says no."""
    SILENT = "silent"
    """It begins, and nothing more is heard of the update."""
    LIES = "lies"
    """It says that it is done, and its report shows the version before."""
    SICK_LATER = "sick_later"
    """Confirmed, and the health check fails in a report afterwards."""


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """One thing that a device says, and what it is from then on; `posture` is `None` where nothing changes."""

    state: CommandState
    phase: UpdatePhase
    reason: str = ""
    code: str = ""
    percent: int = 0
    before: str = ""
    posture: SoftwarePosture | None = None

    def detail(self, command: Command) -> dict[str, str]:
        """As the `detail` of a result."""
        name, version = named(command)
        return UpdateProgress(
            phase=self.phase,
            name=name,
            version=version,
            before=self.before,
            percent=self.percent,
            reason_code=self.code,
        ).detail()


def software(posture: SoftwarePosture, versions: Mapping[str, str]) -> SoftwarePosture:
    """The posture of a device that these versions were installed on by updates."""
    after = copy.deepcopy(posture)
    entries = [_entry(name, version, "", "", None) for name, version in sorted(versions.items())]
    after["software"] = {"state": "ok", "device_class": "", "hardware": [], "entries": entries, "truncated": 0}
    return after


def named(command: Command) -> tuple[str, str]:
    """Name and version that a command is about; empty where it says none that can be read."""
    try:
        if command.action == INSTALL:
            install = InstallParams.model_validate(dict(command.params))
            return install.name, install.version
        order = RollbackParams.model_validate(dict(command.params))
    except ValidationError:
        return "", ""
    return order.name, order.version


def stages(
    command: Command, posture: SoftwarePosture, outcome: SimulatedUpdateOutcome, now: datetime
) -> list[UpdateStep]:
    """Everything that a device says of an update, in order, after that it has begun."""
    name, version = named(command)
    if not name:
        return [_end(UpdatePhase.REFUSED, "the parameters make no sense", UpdateRefusalCode.OTHER)]
    before = _version(posture, name)
    if command.action == GO_BACK:
        return _return(command, posture, now)
    if before == version:
        return [UpdateStep(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, "it is there already", before=before)]
    there = _put(posture, name, version, before, UpdatePhase.CONFIRMED, command, now)
    back = _put(posture, name, before, "", UpdatePhase.ROLLED_BACK, command, now, attempted=version)
    loading = UpdateStep(CommandState.EXECUTING, UpdatePhase.DOWNLOADING, percent=50, before=before)
    placed = UpdateStep(CommandState.EXECUTING, UpdatePhase.INSTALLED, before=before)
    match outcome:
        case SimulatedUpdateOutcome.DECLINED:
            waiting = UpdateStep(CommandState.EXECUTING, UpdatePhase.WAITING, before=before)
            return [waiting, _end(UpdatePhase.DECLINED, "the person at the device said no", UpdateRefusalCode.DECLINED)]
        case SimulatedUpdateOutcome.REFUSED:
            return [
                loading,
                _end(UpdatePhase.REFUSED, "it is not signed by enough keys", UpdateRefusalCode.BAD_SIGNATURE),
            ]
        case SimulatedUpdateOutcome.SILENT:
            return [loading]
        case SimulatedUpdateOutcome.UNHEALTHY:
            end = _end(UpdatePhase.ROLLED_BACK, "its health check failed", UpdateRefusalCode.HEALTH, before, back)
            return [loading, placed, end]
        case SimulatedUpdateOutcome.BROKEN:
            sick = _put(posture, name, version, before, UpdatePhase.BROKEN, command, now, health="failed")
            end = _end(UpdatePhase.BROKEN, "not healthy, and no way back", UpdateRefusalCode.HEALTH, before, sick)
            return [loading, placed, end]
        case SimulatedUpdateOutcome.LIES:
            return [loading, UpdateStep(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, before=before)]
        case _:
            return [
                loading,
                placed,
                UpdateStep(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, before=before, posture=there),
            ]


def sick(posture: SoftwarePosture, command: Command) -> SoftwarePosture:
    """The device when what was installed fails its health check."""
    after = copy.deepcopy(posture)
    for entry in after["software"]["entries"]:
        if entry["name"] == named(command)[0]:
            entry |= {"health": "failed", "health_reason": "it stopped answering"}
    return after


def _return(command: Command, posture: SoftwarePosture, now: datetime) -> list[UpdateStep]:
    name, version = named(command)
    found = _version(posture, name)
    if found != version:
        return [UpdateStep(CommandState.SUCCEEDED, UpdatePhase.ROLLED_BACK, f"{version} is not there", before=found)]
    entry = next(one for one in posture["software"]["entries"] if one["name"] == name)
    previous = str(entry.get("previous", ""))
    after = _put(posture, name, previous, "", UpdatePhase.ROLLED_BACK, command, now, attempted=version)
    return [UpdateStep(CommandState.SUCCEEDED, UpdatePhase.ROLLED_BACK, before=found, posture=after)]


def _end(
    phase: UpdatePhase, reason: str, code: UpdateRefusalCode, before: str = "", posture: SoftwarePosture | None = None
) -> UpdateStep:
    return UpdateStep(CommandState.FAILED, phase, reason, code.value, before=before, posture=posture)


def _version(posture: SoftwarePosture, name: str) -> str:
    entries = posture.get("software", {}).get("entries", [])
    return next((str(entry["version"]) for entry in entries if entry["name"] == name), "")


def _put(
    posture: SoftwarePosture,
    name: str,
    version: str,
    previous: str,
    outcome: UpdatePhase,
    command: Command,
    now: datetime,
    *,
    attempted: str = "",
    health: str = "ok",
) -> SoftwarePosture:
    after = posture if "software" in posture else software(posture, {})
    after = copy.deepcopy(after)
    entries = [entry for entry in after["software"]["entries"] if entry["name"] != name]
    made = _entry(name, version, previous, command.command_id, now)
    made |= {"outcome": outcome.value, "attempted": attempted or version, "health": health}
    after["software"]["entries"] = sorted([*entries, made], key=lambda entry: str(entry["name"]))
    return after


def _entry(name: str, version: str, previous: str, command_id: str, now: datetime | None) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "kind": "file",
        "previous": previous,
        "health": "ok",
        "outcome": UpdatePhase.CONFIRMED.value,
        "attempted": version,
        "command_id": command_id,
        "at": None if now is None else now.isoformat().replace("+00:00", "Z"),
    }
