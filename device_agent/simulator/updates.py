"""What simulated devices make of updates: values in, values out. Nothing is downloaded; how it ends is configured."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from schemas.commands import Command, CommandState
from schemas.updates import GO_BACK, INSTALL, GoBack, Install, Progress, RefusalCode, UpdatePhase

ACTIONS: Final = (INSTALL, GO_BACK)
Posture = dict[str, Any]


class Outcome(StrEnum):
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
class Stage:
    """One thing that a device says, and what it is from then on; `posture` is `None` where nothing changes."""

    state: CommandState
    phase: UpdatePhase
    reason: str = ""
    code: str = ""
    percent: int = 0
    before: str = ""
    posture: Posture | None = None

    def detail(self, command: Command) -> dict[str, str]:
        """As the `detail` of a result."""
        name, version = named(command)
        return Progress(
            phase=self.phase,
            name=name,
            version=version,
            before=self.before,
            percent=self.percent,
            reason_code=self.code,
        ).detail()


def software(posture: Posture, versions: Mapping[str, str]) -> Posture:
    """The posture of a device that these versions were installed on by updates."""
    after = copy.deepcopy(posture)
    entries = [_entry(name, version, "", "", None) for name, version in sorted(versions.items())]
    after["software"] = {"state": "ok", "device_class": "", "hardware": [], "entries": entries, "truncated": 0}
    return after


def named(command: Command) -> tuple[str, str]:
    """Name and version that a command is about; empty where it says none that can be read."""
    try:
        if command.action == INSTALL:
            install = Install.model_validate(dict(command.params))
            return install.name, install.version
        order = GoBack.model_validate(dict(command.params))
    except ValidationError:
        return "", ""
    return order.name, order.version


def stages(command: Command, posture: Posture, outcome: Outcome, now: datetime) -> list[Stage]:
    """Everything that a device says of an update, in order, after that it has begun."""
    name, version = named(command)
    if not name:
        return [_end(UpdatePhase.REFUSED, "the parameters make no sense", RefusalCode.OTHER)]
    before = _version(posture, name)
    if command.action == GO_BACK:
        return _return(command, posture, now)
    if before == version:
        return [Stage(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, "it is there already", before=before)]
    there = _put(posture, name, version, before, UpdatePhase.CONFIRMED, command, now)
    back = _put(posture, name, before, "", UpdatePhase.ROLLED_BACK, command, now, attempted=version)
    loading = Stage(CommandState.EXECUTING, UpdatePhase.DOWNLOADING, percent=50, before=before)
    placed = Stage(CommandState.EXECUTING, UpdatePhase.INSTALLED, before=before)
    match outcome:
        case Outcome.DECLINED:
            waiting = Stage(CommandState.EXECUTING, UpdatePhase.WAITING, before=before)
            return [waiting, _end(UpdatePhase.DECLINED, "the person at the device said no", RefusalCode.DECLINED)]
        case Outcome.REFUSED:
            return [loading, _end(UpdatePhase.REFUSED, "it is not signed by enough keys", RefusalCode.BAD_SIGNATURE)]
        case Outcome.SILENT:
            return [loading]
        case Outcome.UNHEALTHY:
            end = _end(UpdatePhase.ROLLED_BACK, "its health check failed", RefusalCode.HEALTH, before, back)
            return [loading, placed, end]
        case Outcome.BROKEN:
            sick = _put(posture, name, version, before, UpdatePhase.BROKEN, command, now, health="failed")
            end = _end(UpdatePhase.BROKEN, "not healthy, and no way back", RefusalCode.HEALTH, before, sick)
            return [loading, placed, end]
        case Outcome.LIES:
            return [loading, Stage(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, before=before)]
        case _:
            return [loading, placed, Stage(CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, before=before, posture=there)]


def sick(posture: Posture, command: Command) -> Posture:
    """The device when what was installed fails its health check."""
    after = copy.deepcopy(posture)
    for entry in after["software"]["entries"]:
        if entry["name"] == named(command)[0]:
            entry |= {"health": "failed", "health_reason": "it stopped answering"}
    return after


def _return(command: Command, posture: Posture, now: datetime) -> list[Stage]:
    name, version = named(command)
    found = _version(posture, name)
    if found != version:
        return [Stage(CommandState.SUCCEEDED, UpdatePhase.ROLLED_BACK, f"{version} is not there", before=found)]
    entry = next(one for one in posture["software"]["entries"] if one["name"] == name)
    previous = str(entry.get("previous", ""))
    after = _put(posture, name, previous, "", UpdatePhase.ROLLED_BACK, command, now, attempted=version)
    return [Stage(CommandState.SUCCEEDED, UpdatePhase.ROLLED_BACK, before=found, posture=after)]


def _end(phase: UpdatePhase, reason: str, code: RefusalCode, before: str = "", posture: Posture | None = None) -> Stage:
    return Stage(CommandState.FAILED, phase, reason, code.value, before=before, posture=posture)


def _version(posture: Posture, name: str) -> str:
    entries = posture.get("software", {}).get("entries", [])
    return next((str(entry["version"]) for entry in entries if entry["name"] == name), "")


def _put(
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
