"""Ties the agent together: a thread to look, one to tell, one to keep the connection, one to do commands."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from device_agent import __version__
from device_agent.assembly import InProcessScanRunner, actions_of, eyes_of, guard_of, load_signer
from device_agent.collectors.tools.tool_runner import ToolRunner
from device_agent.commands.executor import CommandExecutor
from device_agent.commands.journal import Journal
from device_agent.commands.lazy_loading import LazyCommandVerifier
from device_agent.domain.report import ReportSender
from device_agent.errors import AgentError, JournalError, SettingsError
from device_agent.host.boot import boot_id
from device_agent.host.clock import Clock
from device_agent.host.memory import give_back, keep_small, settle
from device_agent.host.notify import SystemdNotifier
from device_agent.host.system import System
from device_agent.intrusion.watch import IntrusionWatch
from device_agent.mqtt_client import MqttClient, StatusPayloads
from device_agent.reporting.report_store import ReportStore
from device_agent.reporting.reporter import Reporter
from device_agent.scanning.scan_process import ScanRunner
from device_agent.settings import Settings, doubts, read_secret
from schemas.events import Status
from schemas.topics import DownChannel

if TYPE_CHECKING:
    from device_agent.actions.base import RemediationAction
    from device_agent.collectors.base import Collector
    from device_agent.identity.renewal import DeviceRenewal

_STOP_SECONDS: Final = 5.0  # for the command that runs, and for the threads
_TICK_SECONDS: Final = 1.0  # between two looks whether to reload, and signs of life
_log = logging.getLogger(__name__)


def sender_of(device_id: str) -> ReportSender:
    """Who reports from this machine."""
    return ReportSender(device_id=device_id, boot_id=boot_id(), agent=__version__)


@dataclass(frozen=True, slots=True)
class ConfigReload:
    """How a running agent gets a new configuration: `wanted` is set by whoever wants it, `load` reads it."""

    wanted: threading.Event
    load: Callable[[], Settings]


class Agent:
    """The running agent; `with` starts and stops it."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        scans: ScanRunner,
        actions: "Mapping[str, RemediationAction]",
        *,
        watch: IntrusionWatch | None = None,
        runs: ToolRunner | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        """Put it together; `watch`: intrusion monitors, `runs`: its own tools, `stopping`: set at its end.

        Raises:
            AgentError: the state folder or a file of the connection cannot be used.
        """
        self._settings = settings
        self._clock = clock
        self._stopping, self._scan_wanted = stopping or threading.Event(), threading.Event()
        self._force = False
        self._sender = sender = sender_of(settings.device_id)
        self._journal = Journal(settings.agent.state_dir)
        self._scans = scans
        password = read_secret(settings.mqtt.password_file) if settings.mqtt.password_file else None
        will = self._status("offline", with_time=False)
        status = StatusPayloads(will=will, online=self._online, offline=self._offline)
        try:
            # On an empty state folder numbers start at the time, so that they are above those of an earlier life.
            store = ReportStore(settings.agent.state_dir, first_seq=max(0, int(clock.now().timestamp())))
            self._link, self._renewing = self._connected_by(password, status)
        except JournalError:
            self._journal.close()
            raise
        except OSError as e:  # ssl.SSLError is one
            self._journal.close()
            raise SettingsError(f"mqtt: certificate, key or ca cannot be used: {e}") from e
        publish, sealer = self._link.publish, load_signer(settings)
        self._reporter = Reporter(sender, settings.report, store, publish, clock, sealer)
        self._commands = CommandExecutor(
            LazyCommandVerifier(lambda: guard_of(settings)),
            actions,
            self._journal,
            publish,
            clock=clock,
            refused=self._reporter.command_refused,
            succeeded=self.rescan,
        )
        self._threads = [
            threading.Thread(target=self._scan_loop, name="scan", daemon=True),
            threading.Thread(target=self._report_loop, name="report", daemon=True),
        ]
        self._watch, self._runs = watch, runs
        if watch is not None:
            self._threads.append(threading.Thread(target=self._watch_loop, name="watch", daemon=True))

    def _connected_by(self, password: str | None, status: StatusPayloads) -> "tuple[MqttClient, DeviceRenewal | None]":
        settings = self._settings
        if not settings.identity.renew or settings.mqtt.certificate is None:
            return MqttClient(settings.device_id, settings.mqtt, password, status, self), None
        from device_agent.identity.renewal import DeviceRenewal  # X.509 is large: only where it is needed

        renewing = DeviceRenewal(settings, self._clock)
        link = MqttClient(settings.device_id, settings.mqtt, password, status, self, credentials=renewing.credentials)
        renewing.use(link.publish, link.reconnect)
        return link, renewing

    def _sign_with(self, renewed: Path) -> None:
        """The old certificate may end, or be revoked, long before the agent is put together anew."""
        try:
            self._reporter.sign_with(load_signer(self._settings, renewed))
        except SettingsError as e:
            _log.error("reports are signed with the former key: %s", e)

    def __enter__(self) -> Self:
        self._reporter.on_challenge = self.rescan
        if self._renewing is not None:
            self._renewing.on_renewed = self._sign_with
        for thread in self._threads:
            thread.start()
        self._commands.start()
        self._link.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._scan_wanted.set()
        self._reporter.wake.set()
        if self._runs is not None:
            self._runs.stop()
        self._scans.stop()
        self._commands.stop(_STOP_SECONDS)
        self._link.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        # A scan may take long; it looks itself whether it still counts.
        for thread in self._threads[1:]:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._journal.close()

    def rescan(self) -> None:
        """Look again now, and send a full report whatever is found."""
        self._force = True
        self._scan_wanted.set()

    def connected(self) -> None:
        """The link is up."""
        self._reporter.online()
        self._commands.tell()

    def disconnected(self) -> None:
        """The link is down."""
        self._reporter.offline()

    def received(self, channel: DownChannel, payload: bytes) -> None:
        """The controller spoke."""
        if channel is DownChannel.COMMAND:
            self._commands.received(payload)
        elif channel is DownChannel.CERTIFICATE:
            if self._renewing is not None:
                self._renewing.answered(payload)
        else:
            self._reporter.receipt(payload)

    def _scan_loop(self) -> None:
        is_first = True
        while not self._stopping.is_set():
            self._scan_wanted.clear()
            force, self._force = self._force, False
            nonce = self._reporter.nonce  # what is found from here on is news to whoever sent it
            found = replace(self._scans.scan(is_fresh=force), answers=nonce)
            if self._stopping.is_set():
                return  # the journal may belong to another by now
            self._reporter.found(found, force=force)
            if is_first:
                settle()
                is_first = False
            elif force:
                give_back()  # what a command needed
            self._scan_wanted.wait(self._settings.report.scan_every)

    def _report_loop(self) -> None:
        while not self._stopping.is_set():
            self._reporter.wake.clear()
            wait = self._reporter.tick()
            if self._renewing is not None and self._link.is_connected:
                self._renewing.step()
            if not self._reporter.wake.wait(min(wait, self._settings.report.heartbeat_every)):
                self._commands.tell()

    def _watch_loop(self) -> None:
        assert self._watch is not None
        while not self._stopping.wait(self._settings.intrusion.poll):
            self._watch.step(self._link.publish, is_online=self._link.is_connected)
        self._watch.close()

    @property
    def is_well(self) -> bool:
        """Whether every thread lives."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def is_idle(self) -> bool:
        """Whether no command is under way, so that the agent may be put together anew."""
        return not self._journal.unfinished()

    @property
    def has_moved(self) -> bool:
        """Whether the certificate lies elsewhere since a renewal, so that everything that looks at it needs to know."""
        return self._renewing is not None and self._renewing.has_moved

    @property
    def status(self) -> str:
        """In a few words, for whoever supervises it."""
        return "connected to the broker" if self._link.is_connected else "not connected to a broker"

    def _online(self) -> bytes:
        return self._status("online", with_time=True)

    def _offline(self) -> bytes:
        return self._status("offline", with_time=True)

    def _status(self, state: Any, *, with_time: bool) -> bytes:
        at = self._clock.now() if with_time else None
        status = Status(state=state, boot_id=self._sender.boot_id, at=at)
        return status.model_dump_json(exclude_none=True).encode()


def run(
    settings: Settings,
    system: System,
    stop: threading.Event,
    *,
    collectors: "Mapping[str, Collector] | None" = None,
    actions: "Mapping[str, RemediationAction] | None" = None,
    reload: ConfigReload | None = None,
) -> bool:
    """Run the agent until `stop` is set, with the collectors and actions it was built with, or others.

    With `reload` a new configuration is taken when that is asked for; a wrong one changes nothing. Returns whether an
    update of the agent asked for a restart by the launcher.

    Raises:
        AgentError: it cannot start, or one of its threads broke.
    """
    keep_small()
    restart = threading.Event()
    broken: list[str] = []

    def request_restart() -> None:
        restart.set()
        stop.set()

    def hook(args: threading.ExceptHookArgs) -> None:
        _log.error("thread %s broke", args.thread.name if args.thread else "?", exc_info=args.exc_value)
        broken.append(f"{args.exc_type.__name__}: {args.exc_value}")
        stop.set()

    notifier = SystemdNotifier.of(os.environ)
    before, threading.excepthook = threading.excepthook, hook
    try:
        fresh: Settings | None = settings
        agent = _assemble(settings, system, collectors, actions, request_restart)
        while fresh is not None:
            settings = fresh
            with agent:
                _log.info("agent %s runs as %s", __version__, settings.device_id)
                for doubt in doubts(settings):
                    _log.warning("%s", doubt)
                notifier.ready(f"reports as {settings.device_id}")
                fresh = _serve(agent, stop, reload, notifier)
                if fresh is None:
                    notifier.stopping()
            if fresh is not None:
                agent, fresh = _renewed(fresh, settings, system, collectors, actions, request_restart)
    finally:
        threading.excepthook = before
    if broken:
        raise AgentError(broken[0])
    return restart.is_set()


def _assemble(
    settings: Settings,
    system: System,
    collectors: "Mapping[str, Collector] | None",
    actions: "Mapping[str, RemediationAction] | None",
    request_restart: Callable[[], None],
) -> Agent:
    clock, stopping = Clock(), threading.Event()
    if actions is None:
        actions = actions_of(settings, system, clock, stopping, request_restart)
    if collectors is not None:
        return Agent(settings, clock, InProcessScanRunner(system, collectors), actions, stopping=stopping)
    scans, watch, runs = eyes_of(settings, system, clock)
    return Agent(settings, clock, scans, actions, watch=watch, runs=runs, stopping=stopping)


def _serve(
    agent: Agent, stop: threading.Event, reload: ConfigReload | None, notifier: SystemdNotifier
) -> Settings | None:
    """Wait for the end (None), or for a new configuration."""
    while not stop.wait(_TICK_SECONDS):
        if agent.is_well:
            notifier.alive(time.monotonic(), agent.status)
        # What a command has begun belongs to the agent that took it.
        if reload is None or not (reload.wanted.is_set() or agent.has_moved) or not agent.is_idle:
            continue
        reload.wanted.clear()
        notifier.reloading()
        try:
            return reload.load()
        except AgentError as e:
            _log.error("the configuration stays as it was: %s", e)
            notifier.ready("the new configuration is wrong, the old one stays")
    return None


def _renewed(
    fresh: Settings,
    old: Settings,
    system: System,
    collectors: "Mapping[str, Collector] | None",
    actions: "Mapping[str, RemediationAction] | None",
    request_restart: Callable[[], None],
) -> tuple[Agent, Settings]:
    try:
        return _assemble(fresh, system, collectors, actions, request_restart), fresh
    except AgentError as e:
        _log.error("the configuration stays as it was: %s", e)
        return _assemble(old, system, collectors, actions, request_restart), old
