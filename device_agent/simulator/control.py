"""The line protocol of the simulator: JSON lines in to change the fleet, JSON lines out for what is seen at it.

In (`"device"` is a device's name, its number from 1, or `"*"` for all; `"id"` is optional and comes back):

    {"do": "change", "device": "sim-003", "open_port": 23}          also "process", "address", "proto"
    {"do": "change", "device": 3, "close_port": 23}
    {"do": "change", "device": 3, "openssl": "3.0.11-1~deb12u1"}    the package version
    {"do": "change", "device": 3, "sections": {"firewall": {"active": false}}}
    {"do": "update", "device": 3, "target": "app/2.0", "outcome": "unhealthy"}   how updates end (see `updates.Outcome`)
    {"do": "rescan", "device": 3}                                   a full report, changed or not
    {"do": "silence", "device": 3}                                  connected, but mute; "vanish": true cuts it off
    {"do": "speak", "device": 3}                                    ends a silence
    {"do": "cut", "device": 3}                                      its socket closes; it connects again
    {"do": "telemetry", "device": 3}                                publishes one message of the fleet's own work
    {"do": "status"}                                                answered by a "status" line
    {"do": "stop"}                                                  so does the end of standard input

Out: each observation is one line with `device`, `seen` (see `observations.Seen`), `at` (time.time()), `monotonic`
(time.monotonic()) and the observation's own fields. Lines about the fleet: `{"seen": "ready", "devices": N}` once every
device has been connected; `{"seen": "done", "do": ..., "device": ..., "id": ...}` for each order that was taken,
`{"seen": "error", "reason": ..., "id": ...}` for each that was not; `{"seen": "status", "devices": N, "connected": N}`;
`{"seen": "stopped"}` as the last one.

A script (`--script FILE`) holds the same commands with `"at"`, seconds after every device has been connected.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TextIO

from pydantic import Field, ValidationError

from device_agent.errors import AgentError, SettingsError
from device_agent.simulator.fleet import SimulatedFleet, UnknownDeviceError
from device_agent.simulator.observations import Observation, ObservationKind
from device_agent.simulator.postures import PostureEdit
from device_agent.simulator.updates import SimulatedUpdateOutcome

MAX_LINE: Final = 256 * 1024  # characters
_MAX_SCRIPT_LINES: Final = 100_000


class ControlRequest(PostureEdit):
    """One line in."""

    do: Literal["change", "rescan", "silence", "speak", "cut", "telemetry", "update", "status", "stop"]
    device: str | int = ""
    target: Annotated[str, Field(max_length=256)] = ""
    outcome: SimulatedUpdateOutcome = SimulatedUpdateOutcome.GOOD
    vanish: bool = False
    id: str | int | None = None
    at: Annotated[float, Field(ge=0)] = 0.0

    def edit(self) -> PostureEdit:
        """The change to a posture alone."""
        return PostureEdit.model_validate(self.model_dump(include=set(PostureEdit.model_fields)))


class LineWriter:
    """Writes lines whole, from any thread; a reader that left ends the program's wish to go on."""

    def __init__(self, stream: TextIO, wanted: frozenset[ObservationKind], gone: Callable[[], None]) -> None:
        self._stream = stream
        self._wanted = wanted
        self._gone = gone
        self._mutex = threading.Lock()

    def __call__(self, observation: Observation) -> None:
        """Write an observation, when it is wanted."""
        if observation.seen in self._wanted:
            self.say(
                {
                    "device": observation.device_id,
                    "seen": str(observation.seen),
                    "at": observation.wall,
                    "monotonic": observation.monotonic,
                    **observation.data,
                }
            )

    def say(self, line: dict[str, Any]) -> None:
        """Write one line."""
        with self._mutex:
            try:
                self._stream.write(json.dumps(line) + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self._gone()


class FleetReadiness:
    """Notices when every device has been connected once."""

    def __init__(self, device_ids: list[str], ready: Callable[[], None]) -> None:
        self._missing = set(device_ids)
        self._ready = ready

    def __call__(self, observation: Observation) -> None:
        """Look at an observation; in the fleet's thread."""
        if self._missing and observation.seen is ObservationKind.CONNECTED:
            self._missing.discard(observation.device_id)
            if not self._missing:
                self._ready()


def devices_of(order: ControlRequest, fleet: SimulatedFleet) -> list[str]:
    """The names of the devices that an order means.

    Raises:
        UnknownDeviceError: there is none.
    """
    names = fleet.device_ids
    if order.device == "*":
        return names
    if isinstance(order.device, int):
        if not 1 <= order.device <= len(names):
            raise UnknownDeviceError(f"there is no device number {order.device}")
        return [names[order.device - 1]]
    if order.device not in names:
        raise UnknownDeviceError(f"there is no device {order.device!r}")
    return [order.device]


def carry_out(order: ControlRequest, fleet: SimulatedFleet) -> None:
    """Do what an order about devices says.

    Raises:
        UnknownDeviceError: it names no device of the fleet.
    """
    for name in devices_of(order, fleet):
        match order.do:
            case "change":
                fleet.change(name, order.edit())
            case "rescan":
                fleet.rescan(name)
            case "silence":
                fleet.go_silent(name, vanish=order.vanish)
            case "speak":
                fleet.speak(name)
            case "cut":
                fleet.cut(name)
            case "telemetry":
                fleet.send_telemetry(name)
            case "update":
                fleet.update_ends(name, order.target, order.outcome)


def obey(lines: Iterator[str], fleet: SimulatedFleet, writer: LineWriter) -> None:
    """Carry out orders line by line until `stop` or the end."""
    for line in lines:
        if not line.strip():
            continue
        label: Any = None
        try:
            order = ControlRequest.model_validate_json(line[: MAX_LINE + 1])
            label = order.id
            if order.do == "stop":
                return
            if order.do == "status":
                writer.say(
                    {"seen": "status", "devices": len(fleet.device_ids), "connected": fleet.connected, "id": label}
                )
                continue
            carry_out(order, fleet)
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(map(str, first["loc"])) or "line"
            writer.say({"seen": "error", "reason": f"{where}: {first['msg']}", "id": label})
        except AgentError as e:
            writer.say({"seen": "error", "reason": str(e), "id": label})
        else:
            writer.say({"seen": "done", "do": order.do, "device": order.device, "id": label, "at": time.time()})


def read_script(path: Path) -> list[ControlRequest]:
    """The orders of a script, by their time.

    Raises:
        SettingsError: naming file and line.
    """
    orders = []
    try:
        with path.open() as lines:
            for number, line in enumerate(lines, 1):
                if number > _MAX_SCRIPT_LINES:
                    raise SettingsError(f"{path}: more than {_MAX_SCRIPT_LINES} lines")
                if line.strip():
                    orders.append(_script_line(path, number, line))
    except OSError as e:
        raise SettingsError(f"{path}: {e.strerror}") from e
    return sorted(orders, key=lambda order: order.at)


def _script_line(path: Path, number: int, line: str) -> ControlRequest:
    try:
        return ControlRequest.model_validate_json(line[: MAX_LINE + 1])
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "line"
        raise SettingsError(f"{path}:{number}: {where}: {first['msg']}") from e


def play(script: list[ControlRequest], fleet: SimulatedFleet, stop: threading.Event) -> None:
    """Carry out a script in its time; returns at its end, at a `stop` in it (which it passes on), or when stopped."""
    begun = time.monotonic()
    for order in script:
        if stop.wait(max(0.0, begun + order.at - time.monotonic())):
            return
        if order.do == "stop":
            stop.set()
            return
        try:
            carry_out(order, fleet)
        except UnknownDeviceError as e:
            sys.stderr.write(f"script: {e}\n")
