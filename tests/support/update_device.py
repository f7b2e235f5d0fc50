"""A device that installs updates: the command verifier, journal and updater of the agent, without a broker."""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.actions.update import InstallUpdate, RollbackUpdate
from device_agent.collectors.software.installed_targets import InstalledTargetsCollector
from device_agent.commands.executor import CommandExecutor
from device_agent.commands.journal import Journal
from device_agent.domain.command_verifier import CommandVerifier
from device_agent.host.clock import Clock
from device_agent.host.system import System
from device_agent.settings import Settings
from device_agent.updates.factory import make_updater
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command, CommandResult, ParamValue
from schemas.sections.installed import SoftwareSection, UpdatedSoftware
from schemas.signing import sign
from schemas.topics import UpChannel
from schemas.updates import INSTALL, ROLL_BACK, InstallParams, RollbackParams

WAIT: Final = 60.0  # seconds until a test fails; no measurement
DEVICE: Final = "edge-1"


class ShiftedClock(Clock):
    """The real clock with an offset."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        """Returns the shifted time."""
        return datetime.now(UTC) + self.shift


def settings_for(base: Path, url: str, root: Path, **updates: Any) -> Settings:
    """Returns settings with updates from this repository."""
    return Settings.model_validate(
        {
            "device_id": DEVICE,
            "mqtt": {"servers": ["mqtt://127.0.0.1:1"]},
            "agent": {"state_dir": str(base)},
            "updates": {"url": url, "root": str(root), "min_bytes_per_second": 0, **updates},
        }
    )


class UpdateDevice:
    """Starts and stops as the agent does; `results` are published, `broker` says whether they are delivered."""

    def __init__(
        self,
        base: Path,
        url: str,
        root: bytes,
        *,
        key: Ed25519PrivateKey | None = None,
        step: Callable[[str], None] = lambda _name: None,
        system: System | None = None,
        **updates: Any,
    ) -> None:
        base.mkdir(parents=True, exist_ok=True)
        (base / "root.json").write_bytes(root)
        self.base = base
        self.settings = settings_for(base / "state", url, base / "root.json", **updates)
        self.clock = ShiftedClock()
        self.key = key or Ed25519PrivateKey.generate()
        self.results: list[CommandResult] = []
        self.broker = True
        self.step = step
        self.system = system or System(is_root_user=False)
        self._ended: queue.Queue[CommandResult] = queue.Queue()
        self._counter = 0
        self.start()

    def start(self, boot_id: str = "boot-1") -> None:
        """Starts the parts as the agent does."""
        self.stopping = threading.Event()
        updater = make_updater(
            self.settings,
            self.system,
            self.clock,
            self.stopping,
            self.stopping.set,
            current_boot_id=boot_id,
            crash_point=self._step,
        )
        assert updater is not None
        self.updater = updater
        self.journal = Journal(self.settings.agent.state_dir)
        self.commands = CommandExecutor(
            CommandVerifier.from_keys(DEVICE, [self.key.public_key()], [INSTALL, ROLL_BACK]),
            {INSTALL: InstallUpdate(updater), ROLL_BACK: RollbackUpdate(updater)},
            self.journal,
            self._publish,
            clock=self.clock,
            on_forged=lambda _reason: None,
            on_changed=lambda: None,
        )
        self.commands.start()

    def stop(self) -> None:
        """Stops the parts as the agent does."""
        self.stopping.set()
        self.commands.stop(WAIT)
        self.journal.close()

    def install(self, order: InstallParams) -> CommandResult:
        """Sends the command, and waits for its final result."""
        self.send(INSTALL, order.params())
        return self.ended()

    def go_back(self, name: str, version: str) -> CommandResult:
        """Sends the command, and waits for its final result."""
        self.send(ROLL_BACK, RollbackParams(name=name, version=version).params())
        return self.ended()

    def send(
        self, action: str, params: Mapping[str, ParamValue], *, command_id: str = "", counter: int | None = None
    ) -> str:
        """Sends a signed command; returns its id."""
        self._counter += 1
        command = Command(
            command_id=command_id or f"c{self._counter}",
            device_id=DEVICE,
            action=action,
            params=dict(params),
            issued_at=self.clock.now(),
            expires_at=self.clock.now() + timedelta(minutes=10),
            counter=self._counter if counter is None else counter,
        )
        self.commands.on_envelope(sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, self.key))
        return command.command_id

    def ended(self) -> CommandResult:
        """Returns the next final result."""
        return self._ended.get(timeout=WAIT)

    def phases(self) -> list[str]:
        """Returns the published phases in order."""
        return [result.detail["phase"] for result in self.results if "phase" in result.detail]

    def section(self) -> SoftwareSection:
        """Returns the section of the next report."""
        section = InstalledTargetsCollector(self.updater)(System())
        return SoftwareSection.model_validate_json(json.dumps(section))

    def entry(self, name: str = "edge-app") -> UpdatedSoftware:
        """Returns the entry of a name in the next report."""
        return next(entry for entry in self.section().entries if entry.name == name)

    @property
    def current(self) -> Path:
        """The installed files of `edge-app`."""
        return self.settings.agent.state_dir / "updates" / "sets" / "edge-app" / "current"

    def _step(self, name: str) -> None:
        self.step(name)

    def _publish(self, channel: UpChannel, payload: bytes, confirmed: Callable[[bool], None] | None = None) -> bool:
        assert channel is UpChannel.RESULT
        result = CommandResult.model_validate_json(payload)
        self.results.append(result)
        if result.state.is_end:
            self._ended.put(result)
        if confirmed is not None and self.broker:
            confirmed(True)
        return self.broker
