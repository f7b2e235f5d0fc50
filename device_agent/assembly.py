"""Builds the parts of the running agent from its settings; what is not needed at the start is imported later."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.collectors.tools.tool_runner import ToolRunner
from device_agent.commands.lazy_loading import LazyActions
from device_agent.domain.report import ReportContent
from device_agent.domain.verdict import EnvelopeVerifier
from device_agent.host.clock import Clock
from device_agent.host.system import System
from device_agent.intrusion.watch import IntrusionWatch
from device_agent.keyring import Keyring
from device_agent.scanning.scan_process import ScanProcess, ScanRunner
from device_agent.settings import Settings, read_key_passphrase

if TYPE_CHECKING:
    from device_agent.actions.base import Action
    from device_agent.collectors.base import Collector
    from device_agent.reporting.signer import ReportSigner


class InProcessScanRunner:
    """Runs given collectors in this process."""

    def __init__(self, system: System, collectors: "Mapping[str, Collector]") -> None:
        from device_agent.collectors.registry import EVERY
        from device_agent.collectors.scan import Scanner

        self._scanner = Scanner(system, collectors, every=EVERY)

    def scan(self, *, force_rescan: bool) -> ReportContent:
        from device_agent.domain.report_limits import normalise_findings, truncate_to_size

        return truncate_to_size(normalise_findings(self._scanner.scan(force_rescan=force_rescan)))

    def stop(self) -> None:
        """Does nothing: each collector has its own time limit."""


def make_command_verifier(settings: Settings) -> EnvelopeVerifier:
    """Returns the verifier of commands; imports cryptography."""
    from device_agent.commands.keyring_verifier import KeyringVerifier

    return KeyringVerifier(settings.device_id, settings.commands, load_keyring(settings))


def load_signer(settings: Settings, renewed: Path | None = None) -> "ReportSigner | None":
    """Returns the signer of this device's reports; None where they are not signed.

    `renewed`: the file of the renewed pair, when it is no longer the one of `settings`.

    Raises:
        SettingsError: the key cannot be used.
    """
    mqtt = settings.mqtt
    if not settings.report.sign_reports or mqtt.key is None:
        return None
    from device_agent.reporting.signer import load_report_signer

    passphrase = read_key_passphrase(mqtt)
    return load_report_signer(renewed or mqtt.key, passphrase)


def load_keyring(settings: Settings) -> Keyring:
    """Returns the keys of the controller that commands are verified with."""
    return Keyring(settings.agent.state_dir, settings.commands.controller_keys)


def make_actions(
    settings: Settings, system: System, clock: Clock, stopping: threading.Event, request_restart: Callable[[], None]
) -> LazyActions:
    """Returns all actions; those of updates are eager, because they have to recover interrupted updates."""

    def load() -> "Mapping[str, Action]":
        from device_agent.actions.integrity import RebaselineIntegrity
        from device_agent.actions.registry import actions
        from device_agent.actions.trust import key_actions
        from device_agent.collectors.tools.file_integrity import IntegrityCollector

        integrity = IntegrityCollector(settings.integrity, settings.agent.state_dir, is_baseline_owner=True)
        more = {"integrity.rebaseline": RebaselineIntegrity(integrity, system), **key_actions(load_keyring(settings))}
        return {**actions(system), **more}

    return LazyActions(load, eager=_update_actions(settings, system, clock, stopping, request_restart))


def _update_actions(
    settings: Settings, system: System, clock: Clock, stopping: threading.Event, request_restart: Callable[[], None]
) -> "Mapping[str, Action]":
    if settings.updates.url is None:
        return {}
    from device_agent.updates.factory import make_updater

    updater = make_updater(settings, system, clock, stopping, request_restart)
    if updater is None:
        return {}
    from device_agent.actions.update import InstallUpdate, RollbackUpdate
    from schemas.updates import INSTALL, ROLL_BACK

    return {INSTALL: InstallUpdate(updater), ROLL_BACK: RollbackUpdate(updater)}


def make_scanners(settings: Settings, system: System, clock: Clock) -> tuple[ScanRunner, IntrusionWatch, ToolRunner]:
    """Returns the runner of scans, the watch over intrusion monitors, and the runner of hardening tools."""
    state_dir = settings.agent.state_dir
    tools = ToolRunner(settings.tools, state_dir)
    watch = IntrusionWatch(settings.intrusion, state_dir, system, settings.device_id, clock)
    return ScanProcess(settings, system, tools), watch, tools
