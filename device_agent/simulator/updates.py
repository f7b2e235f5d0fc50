"""Simulated updates: nothing is downloaded, the outcome is configured. Pure."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from device_agent.simulator.postures import Posture
from schemas.commands import Command, CommandState
from schemas.updates import (
    INSTALL,
    ROLL_BACK,
    InstallParams,
    RollbackParams,
    UpdatePhase,
    UpdateProgress,
    UpdateRefusalCode,
)

ACTIONS: Final = (INSTALL, ROLL_BACK)


class SimulatedUpdateOutcome(StrEnum):
    """The outcome of an update on a device."""

    GOOD = "good"
    """Installed, healthy, confirmed, reported."""
    UNHEALTHY = "unhealthy"
    """Installed, unhealthy, rolled back."""
    REFUSED = "refused"
    """Not trusted: nothing is changed."""
    BROKEN = "broken"
    """Installed, unhealthy, and not rolled back."""
    DECLINED = "declined"
    """The person at the device declines."""
    SILENT = "silent"
    """The download starts, and no further progress is reported."""
    LIES = "lies"
    """Reported as confirmed, while the report shows the previous version."""
    SICK_LATER = "sick_later"
    """Confirmed; the health check fails in a later report."""


@dataclass(frozen=True, slots=True)
class UpdateStep:
    """A command result of the device, and its posture from then on (None: unchanged)."""

    state: CommandState
    phase: UpdatePhase
    reason: str = ""
    code: str = ""
    percent: int = 0
    before: str = ""
    posture: Posture | None = None

    def detail(self, command: Command) -> dict[str, str]:
        """Returns the `detail` of the command result."""
        name, version = command_target(command)
        return UpdateProgress(
            phase=self.phase,
            name=name,
            version=version,
            before=self.before,
            percent=self.percent,
            reason_code=self.code,
        ).detail()


def software(posture: Posture, versions: Mapping[str, str]) -> Posture:
    """Returns the posture with these versions (by name) installed by updates."""
    after = copy.deepcopy(posture)
    entries = [_entry(name, version, "", "", None) for name, version in sorted(versions.items())]
    after["software"] = {"state": "ok", "device_class": "", "hardware": [], "entries": entries, "truncated": 0}
    return after


def command_target(command: Command) -> tuple[str, str]:
    """Returns name and version of a command's target; empty texts when its parameters are invalid."""
    try:
        if command.action == INSTALL:
            install = InstallParams.model_validate(dict(command.params))
            return install.name, install.version
        rollback = RollbackParams.model_validate(dict(command.params))
    except ValidationError:
        return "", ""
    return rollback.name, rollback.version


def update_steps(
    command: Command, posture: Posture, outcome: SimulatedUpdateOutcome, now: datetime
) -> list[UpdateStep]:
    """Returns the steps of an update after its start, in order."""
    name, version = command_target(command)
    if not name:
        return [_failed(UpdatePhase.REFUSED, "the parameters are invalid", UpdateRefusalCode.OTHER)]
    before = _version(posture, name)
    if command.action == ROLL_BACK:
        return _rollback_steps(command, posture, now)
    if before == version:
        return [UpdateStep(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, "already installed", before=before)]
    downloading = UpdateStep(CommandState.EXECUTING, UpdatePhase.DOWNLOADING, percent=50, before=before)
    installed = UpdateStep(CommandState.EXECUTING, UpdatePhase.INSTALLED, before=before)
    match outcome:
        case SimulatedUpdateOutcome.DECLINED:
            waiting = UpdateStep(CommandState.EXECUTING, UpdatePhase.WAITING, before=before)
            reason = "the person at the device declined"
            return [waiting, _failed(UpdatePhase.DECLINED, reason, UpdateRefusalCode.DECLINED)]
        case SimulatedUpdateOutcome.REFUSED:
            reason = "it is not signed by enough keys"
            return [downloading, _failed(UpdatePhase.REFUSED, reason, UpdateRefusalCode.BAD_SIGNATURE)]
        case SimulatedUpdateOutcome.SILENT:
            return [downloading]
        case SimulatedUpdateOutcome.UNHEALTHY:
            after = _with_software(posture, name, before, "", UpdatePhase.ROLLED_BACK, command, now, attempted=version)
            reason = "its health check failed"
            end = _failed(UpdatePhase.ROLLED_BACK, reason, UpdateRefusalCode.HEALTH, before, after)
            return [downloading, installed, end]
        case SimulatedUpdateOutcome.BROKEN:
            after = _with_software(posture, name, version, before, UpdatePhase.BROKEN, command, now, health="failed")
            reason = "unhealthy, and the rollback failed"
            end = _failed(UpdatePhase.BROKEN, reason, UpdateRefusalCode.HEALTH, before, after)
            return [downloading, installed, end]
        case SimulatedUpdateOutcome.LIES:
            return [downloading, UpdateStep(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, before=before)]
        case _:
            after = _with_software(posture, name, version, before, UpdatePhase.CONFIRMED, command, now)
            end = UpdateStep(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, before=before, posture=after)
            return [downloading, installed, end]


def unhealthy_posture(posture: Posture, command: Command) -> Posture:
    """Returns the posture in which the command's target fails its health check."""
    after = copy.deepcopy(posture)
    for entry in after["software"]["entries"]:
        if entry["name"] == command_target(command)[0]:
            entry |= {"health": "failed", "health_reason": "it stopped answering"}
    return after


def _rollback_steps(command: Command, posture: Posture, now: datetime) -> list[UpdateStep]:
    name, version = command_target(command)
    before = _version(posture, name)
    if before != version:
        reason = f"{version} is not installed"
        return [UpdateStep(CommandState.SUCCEEDED, UpdatePhase.ROLLED_BACK, reason, before=before)]
    entry = next(entry for entry in posture["software"]["entries"] if entry["name"] == name)
    previous = str(entry.get("previous", ""))
    after = _with_software(posture, name, previous, "", UpdatePhase.ROLLED_BACK, command, now, attempted=version)
    return [UpdateStep(CommandState.SUCCEEDED, UpdatePhase.ROLLED_BACK, before=before, posture=after)]


def _failed(
    phase: UpdatePhase, reason: str, code: UpdateRefusalCode, before: str = "", posture: Posture | None = None
) -> UpdateStep:
    return UpdateStep(CommandState.FAILED, phase, reason, code.value, before=before, posture=posture)


def _version(posture: Posture, name: str) -> str:
    entries = posture.get("software", {}).get("entries", [])
    return next((str(entry["version"]) for entry in entries if entry["name"] == name), "")


def _with_software(
    posture: Posture,
    name: str,
    version: str,
    previous: str,
    outcome: UpdatePhase,
    command: Command,
    now: datetime,
    *,
    attempted: str = "",
    health: str = "ok",
) -> Posture:
    after = copy.deepcopy(posture if "software" in posture else software(posture, {}))
    entries = [entry for entry in after["software"]["entries"] if entry["name"] != name]
    new = _entry(name, version, previous, command.command_id, now)
    new |= {"outcome": outcome.value, "attempted": attempted or version, "health": health}
    after["software"]["entries"] = sorted([*entries, new], key=lambda entry: str(entry["name"]))
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
