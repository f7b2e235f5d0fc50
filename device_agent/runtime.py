"""The running agent: its threads (scan, report, watch, commands, MQTT) and the configuration reload around them."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from device_agent import __version__
from device_agent.assembly import InProcessScanRunner, load_signer, make_actions, make_command_verifier, make_scanners
from device_agent.collectors.tools.tool_runner import ToolRunner
from device_agent.commands.executor import CommandExecutor
from device_agent.commands.journal import Journal
from device_agent.commands.lazy_loading import LazyCommandVerifier
from device_agent.domain.report import ReportSender
from device_agent.errors import AgentError, SettingsError
from device_agent.host.clock import Clock
from device_agent.host.memory import freeze_gc, limit_malloc_arenas, trim_heap
from device_agent.host.notify import SystemdNotifier
from device_agent.host.system import System, boot_id
from device_agent.intrusion.watch import IntrusionWatch
from device_agent.mqtt_client import MqttClient, StatusPayloads
from device_agent.reporting.report_store import ReportStore
from device_agent.reporting.reporter import Reporter
from device_agent.scanning.scan_process import ScanRunner
from device_agent.settings import Settings, read_password, warnings
from schemas.events import Status
from schemas.topics import DownChannel, UpChannel

if TYPE_CHECKING:
    from device_agent.actions.base import Action
    from device_agent.collectors.base import Collector
    from device_agent.identity.renewal import CertificateRenewer

_STOP_SECONDS: Final = 5.0  # for the running command, and for the threads
_POLL_SECONDS: Final = 1.0  # between two checks for a reload, and between watchdog notifications
_log = logging.getLogger(__name__)


def report_sender(device_id: str) -> ReportSender:
    """Returns the sender of this machine's reports: device, boot and agent version."""
    return ReportSender(device_id=device_id, boot_id=boot_id(), agent=__version__)


@dataclass(frozen=True, slots=True)
class ConfigReload:
    """A configuration reload: `requested` is set from outside, `load` reads the new settings (AgentError).

    `has_another_pair`: whether the configured key pair was replaced, which is read without a request.
    """

    requested: threading.Event
    load: Callable[[], Settings]
    has_another_pair: Callable[[], bool]

    def is_due(self) -> bool:
        return self.requested.is_set() or self.has_another_pair()


class Agent:
    """The parts of the agent under one configuration; `with` starts and stops its threads."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        scans: ScanRunner,
        actions: "Mapping[str, Action]",
        *,
        watch: IntrusionWatch | None = None,
        tools: ToolRunner | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        """Opens the state folder and prepares the connection; `stopping` is set when the agent stops.

        Raises:
            AgentError: the state folder or a file of the connection cannot be used.
        """
        self._settings, self._clock = settings, clock
        self._scans, self._watch, self._tools = scans, watch, tools
        self._stopping, self._scan_requested = stopping or threading.Event(), threading.Event()
        self._force_rescan = False
        self._sender = report_sender(settings.device_id)
        state_dir = settings.agent.state_dir
        self._journal = Journal(state_dir)
        with ExitStack() as on_error:
            on_error.callback(self._journal.close)
            # On an empty state folder the sequence starts at the time, above the numbers before the folder was lost.
            store = ReportStore(state_dir, first_seq=max(0, int(clock.now().timestamp())))
            self._mqtt, self._renewer = self._make_mqtt_client()
            publish = self._mqtt.publish
            self._reporter = Reporter(
                self._sender, settings.report, store, publish, clock, self.rescan, load_signer(settings),
                partial(self._mqtt.max_payload, UpChannel.POSTURE),
            )  # fmt: skip
            self._commands = CommandExecutor(
                LazyCommandVerifier(lambda: make_command_verifier(settings)),
                actions,
                self._journal,
                publish,
                clock=clock,
                on_forged=self._reporter.on_forged_command,
                on_changed=self.rescan,
            )
            on_error.pop_all()
        loops = {"scan": self._scan_loop, "report": self._report_loop}
        if watch is not None:
            loops["watch"] = self._watch_loop
        self._threads = [threading.Thread(target=loop, name=name, daemon=True) for name, loop in loops.items()]

    def _make_mqtt_client(self) -> "tuple[MqttClient, CertificateRenewer | None]":
        settings, mqtt = self._settings, self._settings.mqtt
        password = read_password(mqtt)
        will = self._status("offline", with_time=False)
        status = StatusPayloads(will_payload=will, online_payload=self._online, offline_payload=self._offline)
        try:
            if not settings.identity.renew or mqtt.certificate is None:
                return MqttClient(settings.device_id, mqtt, password, status, self), None
            from device_agent.identity.renewal import load_renewal  # X.509 is large: only where it is needed

            renewer, credentials = load_renewal(settings, self._clock, self._sign_with)
            return MqttClient(settings.device_id, mqtt, password, status, self, credentials=credentials), renewer
        except OSError as e:  # ssl.SSLError is one
            raise SettingsError(f"mqtt: certificate, key or ca cannot be used: {e}") from e

    def _sign_with(self, renewed: Path) -> None:
        # The old certificate may expire, or be revoked, long before the agent is reassembled.
        try:
            self._reporter.set_signer(load_signer(self._settings, renewed))
        except SettingsError as e:
            _log.error("reports are signed with the former key: %s", e)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self._commands.start()
        self._mqtt.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._scan_requested.set()
        self._reporter.wake.set()
        if self._tools is not None:
            self._tools.stop()
        self._scans.stop()
        self._commands.stop(_STOP_SECONDS)
        self._mqtt.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        # The scan thread is not joined: a scan may take long, and its result is dropped once the agent stops.
        for thread in self._threads[1:]:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._journal.close()

    def rescan(self) -> None:
        """Starts a scan now, followed by a full report even if nothing changed."""
        self._force_rescan = True
        self._scan_requested.set()

    def on_connected(self) -> None:
        """Resumes reporting."""
        self._reporter.on_connected()
        self._commands.resend_unconfirmed_results()

    def on_disconnected(self) -> None:
        """Pauses reporting."""
        self._reporter.on_disconnected()

    def on_message(self, channel: DownChannel, payload: bytes) -> None:
        """Dispatches a message of the controller."""
        if channel is DownChannel.COMMAND:
            self._commands.on_envelope(payload)
        elif channel is DownChannel.CERTIFICATE:
            if self._renewer is not None:
                self._renewer.on_answer(payload, self._mqtt)
        else:
            self._reporter.on_receipt(payload)

    def _scan_loop(self) -> None:
        is_first = True
        while not self._stopping.is_set():
            self._scan_requested.clear()
            force, self._force_rescan = self._force_rescan, False
            nonce = self._reporter.nonce  # a scan that begins from here on answers it
            content = replace(self._scans.scan(force_rescan=force), challenge_nonce=nonce)
            if self._stopping.is_set():
                return  # another process may hold the state folder by now
            self._reporter.on_scan(content, force=force)
            if is_first:
                freeze_gc()
                is_first = False
            elif force:
                trim_heap()  # of what a command needed
            self._scan_requested.wait(self._settings.report.scan_every)

    def _report_loop(self) -> None:
        while not self._stopping.is_set():
            self._reporter.wake.clear()
            seconds = self._reporter.send_due()
            if self._renewer is not None and self._mqtt.is_connected:
                self._renewer.step(self._mqtt)
            if not self._reporter.wake.wait(min(seconds, self._settings.report.heartbeat_every)):
                self._commands.resend_unconfirmed_results()

    def _watch_loop(self) -> None:
        assert self._watch is not None
        while not self._stopping.wait(self._settings.intrusion.poll):
            self._watch.step(self._mqtt.publish, is_online=self._mqtt.is_connected)
        self._watch.close()

    @property
    def is_healthy(self) -> bool:
        """Whether every thread is alive."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def is_idle(self) -> bool:
        """Whether no command is running, so that the agent may be reassembled."""
        return not self._journal.unfinished()

    @property
    def certificate_path_changed(self) -> bool:
        """Whether a renewal moved the certificate, so that collectors and connection need new settings."""
        return self._renewer is not None and self._renewer.certificate_path_changed

    @property
    def status(self) -> str:
        """The connection state, for the service manager."""
        return "connected to the broker" if self._mqtt.is_connected else "not connected to a broker"

    def _online(self) -> bytes:
        return self._status("online", with_time=True)

    def _offline(self) -> bytes:
        return self._status("offline", with_time=True)

    def _status(self, state: Literal["online", "offline"], *, with_time: bool) -> bytes:
        at = self._clock.now() if with_time else None
        status = Status(state=state, boot_id=self._sender.boot_id, at=at)
        return status.model_dump_json(exclude_none=True).encode()


@dataclass(frozen=True, slots=True)
class _Assembler:
    """What stays the same when the agent is reassembled; without collectors and actions those of the settings."""

    system: System
    collectors: "Mapping[str, Collector] | None"
    actions: "Mapping[str, Action] | None"
    request_restart: Callable[[], None]

    def assemble(self, settings: Settings) -> Agent:
        clock, stopping = Clock(), threading.Event()
        actions = self.actions
        if actions is None:
            actions = make_actions(settings, self.system, clock, stopping, self.request_restart)
        if self.collectors is not None:
            runner = InProcessScanRunner(self.system, self.collectors)
            return Agent(settings, clock, runner, actions, stopping=stopping)
        scans, watch, tools = make_scanners(settings, self.system, clock)
        return Agent(settings, clock, scans, actions, watch=watch, tools=tools, stopping=stopping)

    def reassemble(self, new: Settings, old: Settings) -> tuple[Agent, Settings]:
        try:
            return self.assemble(new), new
        except AgentError as e:
            _log.error("the configuration stays as it was: %s", e)
            return self.assemble(old), old


def run(
    settings: Settings,
    system: System,
    stop: threading.Event,
    *,
    collectors: "Mapping[str, Collector] | None" = None,
    actions: "Mapping[str, Action] | None" = None,
    reload: ConfigReload | None = None,
) -> bool:
    """Runs the agent until `stop` is set; returns whether an update of the agent asks for a restart by the launcher.

    Args:
        settings: at the start.
        system: the machine to scan and change.
        stop: set from outside, when a restart is requested, or when a thread failed.
        collectors: default: those that the settings ask for, in a process of their own.
        actions: default: all actions of this version.
        reload: takes a new configuration while the agent runs; a wrong one changes nothing.

    Raises:
        AgentError: the agent cannot start, or one of its threads failed.
    """
    limit_malloc_arenas()
    restart = threading.Event()

    def request_restart() -> None:
        restart.set()
        stop.set()

    assembler = _Assembler(system, collectors, actions, request_restart)
    notifier = SystemdNotifier.from_environment(os.environ)
    with _stop_on_thread_failure(stop) as failures:
        new: Settings | None = settings
        agent = assembler.assemble(settings)
        while new is not None:
            settings = new
            with agent:
                _log.info("agent %s runs as %s", __version__, settings.device_id)
                for warning in warnings(settings):
                    _log.warning("%s", warning)
                notifier.ready(f"reports as {settings.device_id}")
                new = _serve(agent, stop, reload, notifier)
                if new is None:
                    notifier.stopping()
            if new is not None:
                agent, new = assembler.reassemble(new, settings)
    if failures:
        raise failures[0]
    return restart.is_set()


@contextmanager
def _stop_on_thread_failure(stop: threading.Event) -> Iterator[list[AgentError]]:
    failures: list[AgentError] = []

    def hook(args: threading.ExceptHookArgs) -> None:
        _log.error("thread %s failed", args.thread.name if args.thread else "?", exc_info=args.exc_value)
        error = args.exc_value
        # One of ours keeps its exit status: an unusable state folder is told from a fault of the agent.
        failures.append(error if isinstance(error, AgentError) else AgentError(f"{args.exc_type.__name__}: {error}"))
        stop.set()

    before, threading.excepthook = threading.excepthook, hook
    try:
        yield failures
    finally:
        threading.excepthook = before


def _serve(
    agent: Agent, stop: threading.Event, reload: ConfigReload | None, notifier: SystemdNotifier
) -> Settings | None:
    """Returns the new configuration of a reload, or None when the agent has to stop."""
    while not stop.wait(_POLL_SECONDS):
        if agent.is_healthy:
            notifier.watchdog(time.monotonic(), agent.status)
        # A running command belongs to the agent that accepted it.
        if reload is None or not (reload.is_due() or agent.certificate_path_changed) or not agent.is_idle:
            continue
        reload.requested.clear()
        notifier.reloading()
        try:
            return reload.load()
        except AgentError as e:
            _log.error("the configuration stays as it was: %s", e)
            notifier.ready("the new configuration is wrong, the old one stays")
    return None
