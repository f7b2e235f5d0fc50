"""Runs the simulator from the command line; `device_agent.simulator.control` describes its input and output."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from device_agent.errors import SettingsError
from device_agent.host.secrets import read_given_secret
from device_agent.settings import MqttSettings, load, read_password
from device_agent.simulator.control import (
    MAX_LINE,
    ControlRequest,
    FleetReadiness,
    LineWriter,
    read_script,
    run_control_stream,
    run_script,
)
from device_agent.simulator.device import DeviceBehaviour
from device_agent.simulator.fleet import ACTIONS, FleetSettings, SimulatedFleet
from device_agent.simulator.observations import Observation, ObservationKind
from device_agent.simulator.updates import SimulatedUpdateOutcome
from schemas.backoff import Backoff
from schemas.broker_address import BrokerAddress
from schemas.durations import parse_duration

_SUMMARY_SECONDS: Final = 10.0


def simulate(arguments: argparse.Namespace) -> None:
    """Runs the fleet until it is stopped.

    Raises:
        AgentError: an argument or a file is invalid.
    """
    settings = fleet_settings(arguments)
    script = read_script(arguments.script) if arguments.script else []
    duration = _seconds("--for", arguments.duration) if arguments.duration else None
    kinds = _kinds(arguments.observe) if arguments.observe or arguments.control else frozenset[ObservationKind]()
    stop, ready = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    writer = LineWriter(sys.stdout, kinds, stop.set)
    writes_lines = bool(kinds)

    def on_ready() -> None:
        ready.set()
        if writes_lines:
            writer.write_line({"seen": "ready", "devices": settings.devices})

    readiness = FleetReadiness(settings.device_ids(), on_ready)

    def observe(observation: Observation) -> None:
        writer(observation)
        readiness(observation)

    fleet = SimulatedFleet(settings, observe)
    with fleet:
        _start_threads(arguments, fleet, writer, script, stop, ready)
        _wait(fleet, stop, duration, writes_summary=not writes_lines)
    if writes_lines:
        writer.write_line({"seen": "stopped"})


def fleet_settings(arguments: argparse.Namespace) -> FleetSettings:
    """Returns the settings from the command line.

    Raises:
        SettingsError: a value is invalid, or no server is given.
    """
    config = load(arguments.config) if arguments.config else None
    mqtt = config.mqtt if config else None
    servers = _servers(arguments.servers) if arguments.servers else (mqtt.broker_addresses if mqtt else ())
    if not servers:
        raise SettingsError("simulate: --servers or --config must name a broker")
    keys = tuple(arguments.controller_key) or (config.commands.controller_keys if config else ())
    return FleetSettings(
        devices=arguments.devices,
        servers=servers,
        prefix=arguments.prefix,
        protocol=arguments.protocol or (mqtt.protocol if mqtt else "auto"),
        ca=arguments.ca or (mqtt.ca if mqtt else None),
        certificate=arguments.cert or (mqtt.certificate if mqtt else None),
        key=arguments.key or (mqtt.key if mqtt else None),
        cert_dir=arguments.cert_dir,
        username=arguments.username or (mqtt.username if mqtt else None),
        password=_password(arguments.password_file, mqtt),
        postures=arguments.postures,
        controller_keys=keys,
        allow=tuple(arguments.allow.split(",")) if arguments.allow else ACTIONS,
        seed=arguments.seed,
        behaviour=_behaviour(arguments),
        connect_timeout=_seconds("--connect-timeout", arguments.connect_timeout),
        backoff=Backoff(first=0.5, cap=_seconds("--reconnect-max", arguments.reconnect_max)),
    )


def _password(given: str | None, mqtt: MqttSettings | None) -> str | None:
    if given is not None:
        return read_given_secret(given, "--password-file")
    return None if mqtt is None else read_password(mqtt)


def _behaviour(arguments: argparse.Namespace) -> DeviceBehaviour:
    telemetry_every = arguments.telemetry_every
    return DeviceBehaviour(
        heartbeat_every=_seconds("--heartbeat-every", arguments.heartbeat_every),
        receipt_timeout=_seconds("--receipt-timeout", arguments.receipt_timeout),
        telemetry_every=_seconds("--telemetry-every", telemetry_every) if telemetry_every else 0.0,
        telemetry_topic=arguments.telemetry_topic,
        telemetry_bytes=arguments.telemetry_bytes,
        subscribe=tuple(arguments.subscribe),
        action_seconds=_seconds("--action-time", arguments.action_time),
        software=tuple(_pair("--software", text) for text in arguments.software),
        outcomes=tuple(_outcome(text) for text in arguments.update_outcome),
    )


def _pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name or not value:
        raise SettingsError(f"{option}: {text!r} is not NAME=VALUE")
    return name, value


def _outcome(text: str) -> tuple[str, SimulatedUpdateOutcome]:
    target, _, outcome = text.rpartition("=")
    try:
        return target, SimulatedUpdateOutcome(outcome)
    except ValueError as e:
        raise SettingsError(f"--update-outcome: {e}; one of {', '.join(SimulatedUpdateOutcome)}") from e


def _seconds(option: str, text: str) -> float:
    try:
        return float(parse_duration(text, milliseconds=True))
    except ValueError as e:
        raise SettingsError(f"{option}: {e}") from e


def _servers(text: str) -> tuple[BrokerAddress, ...]:
    try:
        return tuple(BrokerAddress.parse(part) for part in text.split(","))
    except ValueError as e:
        raise SettingsError(f"--servers: {e}") from e


def _kinds(text: str | None) -> frozenset[ObservationKind]:
    try:
        return frozenset(ObservationKind(kind) for kind in text.split(",")) if text else frozenset(ObservationKind)
    except ValueError as e:
        raise SettingsError(f"--observe: {e}; any of {', '.join(ObservationKind)}") from e


def _start_threads(
    arguments: argparse.Namespace,
    fleet: SimulatedFleet,
    writer: LineWriter,
    script: list[ControlRequest],
    stop: threading.Event,
    ready: threading.Event,
) -> None:
    def control() -> None:
        run_control_stream(_lines(sys.stdin), fleet, writer)
        stop.set()

    def script_when_ready() -> None:
        ready.wait()
        run_script(script, fleet, stop)

    targets: list[tuple[str, Callable[[], None]]] = []
    if arguments.control:
        targets.append(("control", control))
    if script:
        targets.append(("script", script_when_ready))
    for name, target in targets:
        threading.Thread(target=target, name=name, daemon=True).start()


def _lines(stream: Any) -> Iterator[str]:
    # Bounded: an endless line is read in parts, which are rejected as invalid JSON.
    with contextlib.suppress(ValueError):
        while line := stream.readline(MAX_LINE + 1):
            yield line


def _wait(fleet: SimulatedFleet, stop: threading.Event, duration: float | None, *, writes_summary: bool) -> None:
    if duration is not None:
        timer = threading.Timer(duration, stop.set)
        timer.daemon = True
        timer.start()
    while not stop.wait(_SUMMARY_SECONDS):
        if writes_summary:
            sys.stdout.write(f"{fleet.connected} of {len(fleet.device_ids)} devices connected\n")
            sys.stdout.flush()
