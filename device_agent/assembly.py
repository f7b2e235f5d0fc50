"""Puts the running agent together from its configuration; what it does not need at once is loaded when it is needed."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from device_agent.boot import boot_id
from device_agent.clock import Clock
from device_agent.domain.judgement import Judge
from device_agent.domain.report import Found
from device_agent.intrusion.watch import IntrusionWatch
from device_agent.key_ring import KeyRing
from device_agent.late import LateActions
from device_agent.scanning import ScanProcess, Scans
from device_agent.settings import Settings
from device_agent.system import System
from device_agent.tool_runs import ToolRuns

if TYPE_CHECKING:
    from device_agent.actions.base import Action
    from device_agent.collectors.base import Collector
    from device_agent.updater import Updater


class ScansHere:
    """Scans of given collectors, in this process."""

    def __init__(self, system: System, collectors: "Mapping[str, Collector]") -> None:
        from device_agent.collectors.registry import EVERY
        from device_agent.collectors.scan import Scanner

        self._scanner = Scanner(system, collectors, every=EVERY)

    def scan(self, *, is_fresh: bool) -> Found:
        """One scan."""
        from device_agent.domain.findings import findings_of, fit

        return fit(findings_of(self._scanner.scan(is_fresh=is_fresh)))

    def stop(self) -> None:
        """Nothing: each collector has its own time."""


def guard_of(settings: Settings) -> Judge:
    """Who judges commands: it needs cryptography."""
    from device_agent.trusting import TrustingGuard

    return TrustingGuard(settings.device_id, settings.commands, ring_of(settings))


def ring_of(settings: Settings) -> KeyRing:
    """The keys that commands may be signed with."""
    return KeyRing(settings.agent.state_dir, settings.commands.controller_keys)


def actions_of(settings: Settings, system: System, clock: Clock, stopping: threading.Event) -> LateActions:
    """All actions: those of updates at once where there are updates, because they have to settle what was begun."""

    def others() -> "Mapping[str, Action]":
        from device_agent.actions.integrity import Rebaseline
        from device_agent.actions.registry import actions
        from device_agent.actions.trust import trust
        from device_agent.collectors.integrity import Integrity

        integrity = Integrity(settings.integrity, settings.agent.state_dir, is_keeper=True)
        more = {"integrity.rebaseline": Rebaseline(integrity, system), **trust(ring_of(settings))}
        return {**actions(system), **more}

    return LateActions(others, at_once=_update_actions(settings, system, clock, stopping))


def updater_for(settings: Settings, system: System, clock: Clock, stopping: threading.Event) -> "Updater | None":
    """What puts updates in place; None where no repository is configured."""
    if settings.updates.url is None or settings.updates.root is None:
        return None
    from device_agent.updates.assembly import updater_of

    return updater_of(settings, system, clock, boot_id(), stopping)


def _update_actions(
    settings: Settings, system: System, clock: Clock, stopping: threading.Event
) -> "Mapping[str, Action]":
    updater = updater_for(settings, system, clock, stopping)
    if updater is None:
        return {}
    from device_agent.actions.update import GoBackUpdate, InstallUpdate
    from schemas.updates import GO_BACK, INSTALL

    return {INSTALL: InstallUpdate(updater), GO_BACK: GoBackUpdate(updater)}


def eyes_of(settings: Settings, system: System, clock: Clock) -> tuple[Scans, IntrusionWatch, ToolRuns]:
    """What looks at the device: scans, intrusion monitors, and the tools that it runs itself."""
    state_dir = settings.agent.state_dir
    runs = ToolRuns(settings.tools, state_dir)
    watch = IntrusionWatch(settings.intrusion, state_dir, system, settings.device_id, clock)
    return ScanProcess(settings, system, runs), watch, runs
