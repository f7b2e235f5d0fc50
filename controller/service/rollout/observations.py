"""Observations of devices for rollouts: their commits, installed versions, command progress; and published targets."""

import asyncio
import json
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from controller.domain.commands import MAX_OPEN
from controller.domain.device import Device
from controller.domain.effects import CommandRecord
from controller.domain.policy.model import ContainmentLevel
from controller.domain.rollout.model import CommandProgress, InstalledVersion, RolloutDevice, RolloutTarget
from controller.domain.rollout.window import zone_of
from controller.ports.rollouts import TargetError
from controller.ports.updates import PublishedUpdate, UpdateRepository, UpdatesError
from controller.service.unit_of_work import UnitOfWork
from schemas.sections.installed import SoftwareSection
from schemas.updates import INSTALL, ROLL_BACK, UpdateProgress, UpdateRefusalCode

_ACTIONS: Final = frozenset({INSTALL, ROLL_BACK})
_UNKNOWN: Final = InstalledVersion()
_ABSENT: Final = InstalledVersion(is_absent=True)
_TOLERANCE: Final = 60.0  # seconds by which clocks differ that are right


class RolloutObservations:
    """Collects what is committed about the devices of open rollouts until the engine's next pass takes it."""

    def __init__(self) -> None:
        self._rollouts: dict[str, set[str]] = {}  # by device
        self._commands: list[CommandRecord] = []
        self._reports: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self.arrived = asyncio.Event()

    def on_commit(self, batch: UnitOfWork) -> None:
        watched = self._rollouts
        if not watched:
            return
        self._commands += [one for one in batch.commands.values() if one.action in _ACTIONS]
        for device_id in batch.devices:
            if device_id in watched:
                self._changed.add(device_id)
        for device_id, report in batch.reports.items():
            if device_id in watched:
                self._reports[device_id] = report.body
        if self._commands or self._reports or self._changed:
            self.arrived.set()

    def watch(self, rollout_id: str, device_ids: Collection[str]) -> None:
        """Starts collecting; each of the devices counts as changed once."""
        for device_id in device_ids:
            self._rollouts.setdefault(device_id, set()).add(rollout_id)
        self._changed.update(device_ids)
        self.arrived.set()

    def unwatch(self, rollout_id: str, device_ids: Iterable[str]) -> None:
        for device_id in device_ids:
            rest = self._rollouts.get(device_id, set())
            rest.discard(rollout_id)
            if not rest:
                self._rollouts.pop(device_id, None)

    def unwatch_all(self) -> None:
        self._rollouts.clear()

    @property
    def devices(self) -> Collection[str]:
        """The devices of open rollouts."""
        return self._rollouts.keys()

    def rollouts_of(self, device_id: str) -> Collection[str]:
        """Ids of the open rollouts that the device is in."""
        return self._rollouts.get(device_id, ())

    def take(self) -> tuple[list[CommandRecord], dict[str, bytes], set[str]]:
        """Commands in the order of their commits, the last report of each device, and devices that changed."""
        taken = self._commands, self._reports, self._changed
        self._commands, self._reports, self._changed = [], {}, set()
        return taken


def installed_version(report: bytes | None, name: str) -> InstalledVersion:
    """The installed version of `name` in an accepted full report; unknown without a readable section about updates."""
    if report is None:
        return _UNKNOWN
    try:
        found = json.loads(report)["sections"].get("software")
        if found is None:
            return _ABSENT
        if found.get("state") != "ok":
            return _UNKNOWN
        section = SoftwareSection.model_validate(found)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        return _UNKNOWN
    entry = next((one for one in section.entries if one.name == name), None)
    common: dict[str, Any] = {"device_class": section.device_class, "hardware": section.hardware}
    if entry is None:
        # The entry may be among those that were cut off.
        return _UNKNOWN if section.truncated else InstalledVersion(is_known=True, **common)
    return InstalledVersion(
        is_known=True,
        version=entry.version,
        health=entry.health,
        outcome=entry.outcome.value,
        attempted=entry.attempted,
        reason=entry.reason or entry.health_reason,
        command_id=entry.command_id,
        **common,
    )


def command_progress(record: CommandRecord) -> CommandProgress:
    """The progress of an update by its command.

    A device that says before the deadline of an order that it has passed has a wrong clock: its reason is `clock`.
    """
    progress = UpdateProgress.from_detail(dict(record.detail))
    if progress is None:
        code = dict(record.detail).get("reason_code", "")  # of a command that was not begun
        return CommandProgress(record.command_id, record.state, record.reason, reason_code=code)
    code = progress.reason_code
    if code == UpdateRefusalCode.DEADLINE and record.updated_at < _deadline_of(record):
        code = UpdateRefusalCode.CLOCK
    return CommandProgress(
        record.command_id,
        record.state,
        record.reason,
        progress.phase.value,
        progress.percent,
        progress.before,
        code,
    )


def _deadline_of(record: CommandRecord) -> float:
    """Returns the end of an order in Unix seconds; 0 where none is known."""
    try:
        return datetime.fromisoformat(str(dict(record.params)["deadline"])).timestamp() - _TOLERANCE
    except (KeyError, ValueError):
        return 0.0


def is_reachable(device: Device) -> bool:
    """Whether a command would probably reach the device now."""
    return device.online is not False and not device.stale


def rollout_device(device: Device, default_zone: str) -> RolloutDevice:
    """The device as a rollout sees it."""
    return RolloutDevice(
        device_id=device.device_id,
        device_class=device.device_class,
        is_reachable=is_reachable(device),
        is_isolated=device.level is ContainmentLevel.ISOLATED,
        is_busy=len(device.commands) >= MAX_OPEN,
        zone=zone_of(device.tags, default_zone),
    )


class PublishedTargets:
    """`RolloutTargets` over the repository of updates, which may be absent."""

    def __init__(self, repository: UpdateRepository | None) -> None:
        self._repository = repository

    async def find(self, text: str) -> RolloutTarget:
        return pick(await self._read(), text)

    async def is_published(self, target: RolloutTarget) -> bool:
        return any((one.path, one.sha256) == (target.path, target.sha256) for one in await self._read())

    async def _read(self) -> tuple[PublishedUpdate, ...]:
        if self._repository is None:
            raise TargetError("there is no repository of updates: `cordon update init` makes one")
        try:
            return await asyncio.to_thread(self._repository.published)
        except UpdatesError as e:
            raise TargetError(str(e)) from e


def pick(published: tuple[PublishedUpdate, ...], text: str) -> RolloutTarget:
    """Selects the published update that `text` means.

    Raises:
        TargetError: there is none, or more than one.
    """
    fits = [one for one in published if text in (one.path, f"{one.target.name}/{one.target.version}", one.target.name)]
    if not fits:
        raise TargetError(f"{text} is not published: `cordon update list` shows the published ones as NAME/VERSION")
    if len(fits) > 1:
        names = ", ".join(one.path for one in fits)
        raise TargetError(f"{text} means {len(fits)} targets: name one of {names}")
    found = fits[0]
    target = found.target
    return RolloutTarget(
        path=found.path,
        name=target.name,
        version=target.version,
        sha256=found.sha256,
        length=found.length,
        classes=tuple(target.classes),
        hardware=tuple(target.hardware),
        has_health_check=not target.health.is_empty,
        installer=target.installer.value,
    )
