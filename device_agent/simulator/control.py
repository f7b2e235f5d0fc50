"""The line protocol of the simulator: JSON lines in to control the fleet, JSON lines out with observations.

Input (`"device"` is a device id, its number from 1, or `"*"` for all; the optional `"id"` is returned in the answer):

    {"do": "change", "device": "sim-003", "open_port": 23}          also "process", "address", "proto"
    {"do": "change", "device": 3, "close_port": 23}
    {"do": "change", "device": 3, "openssl": "3.0.11-1~deb12u1"}    the package version
    {"do": "change", "device": 3, "sections": {"firewall": {"active": false}}}
    {"do": "update", "device": 3, "target": "app/2.0", "outcome": "unhealthy"}   see `updates.SimulatedUpdateOutcome`
    {"do": "rescan", "device": 3}                                   a full report, changed or not
    {"do": "silence", "device": 3}                                  sends nothing; "vanish": true also disconnects
    {"do": "speak", "device": 3}                                    ends a silence
    {"do": "cut", "device": 3}                                      closes its socket; the device reconnects
    {"do": "telemetry", "device": 3}                                publishes one telemetry message
    {"do": "status"}                                                answered by a "status" line
    {"do": "stop"}                                                  as the end of standard input

Output: each observation is one line with `device`, `seen` (see `observations.ObservationKind`), `at` (time.time()),
`monotonic` (time.monotonic()) and the observation's own fields. The fleet's lines: `{"seen": "ready", "devices": N}`
once every device has connected; `{"seen": "done", "do": ..., "device": ..., "id": ...}` for each applied request,
`{"seen": "error", "reason": ..., "id": ...}` for each rejected one; `{"seen": "status", "devices": N, "connected": N}`;
`{"seen": "stopped"}` as the last line.

A script (`--script FILE`) holds the same requests with `"at"`, seconds after every device has connected.
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
    """One line of input."""

    do: Literal["change", "rescan", "silence", "speak", "cut", "telemetry", "update", "status", "stop"]
    device: str | int = ""
    target: Annotated[str, Field(max_length=256)] = ""
    outcome: SimulatedUpdateOutcome = SimulatedUpdateOutcome.GOOD
    vanish: bool = False
    id: str | int | None = None
    at: Annotated[float, Field(ge=0)] = 0.0

    def edit(self) -> PostureEdit:
        """Returns the change to a posture alone."""
        return PostureEdit.model_validate(self.model_dump(include=set(PostureEdit.model_fields)))


class LineWriter:
    """Writes JSON lines to a stream, from any thread.

    Args:
        stream: the output.
        kinds: the observations to write.
        on_closed: called when the reader closed the stream.
    """

    def __init__(self, stream: TextIO, kinds: frozenset[ObservationKind], on_closed: Callable[[], None]) -> None:
        self._stream = stream
        self._kinds = kinds
        self._on_closed = on_closed
        self._mutex = threading.Lock()

    def __call__(self, observation: Observation) -> None:
        """Writes an observation of the selected kinds."""
        if observation.kind in self._kinds:
            self.write_line(
                {
                    "device": observation.device_id,
                    "seen": str(observation.kind),
                    "at": observation.wall,
                    "monotonic": observation.monotonic,
                    **observation.data,
                }
            )

    def write_line(self, line: dict[str, Any]) -> None:
        """Writes one line."""
        with self._mutex:
            try:
                self._stream.write(json.dumps(line) + "\n")
                self._stream.flush()
            except (BrokenPipeError, ValueError):
                self._on_closed()


class FleetReadiness:
    """Observer that calls `on_ready` when every device has connected once."""

    def __init__(self, device_ids: list[str], on_ready: Callable[[], None]) -> None:
        self._missing = set(device_ids)
        self._on_ready = on_ready

    def __call__(self, observation: Observation) -> None:
        if self._missing and observation.kind is ObservationKind.CONNECTED:
            self._missing.discard(observation.device_id)
            if not self._missing:
                self._on_ready()


def target_devices(request: ControlRequest, fleet: SimulatedFleet) -> list[str]:
    """Returns the ids of the devices that a request names.

    Raises:
        UnknownDeviceError: there is no such device.
    """
    names = fleet.device_ids
    if request.device == "*":
        return names
    if isinstance(request.device, int):
        if not 1 <= request.device <= len(names):
            raise UnknownDeviceError(f"there is no device number {request.device}")
        return [names[request.device - 1]]
    if request.device not in names:
        raise UnknownDeviceError(f"there is no device {request.device!r}")
    return [request.device]


def apply_request(request: ControlRequest, fleet: SimulatedFleet) -> None:
    """Applies a request to its devices.

    Raises:
        UnknownDeviceError: the fleet has no such device.
    """
    for name in target_devices(request, fleet):
        match request.do:
            case "change":
                fleet.change(name, request.edit())
            case "rescan":
                fleet.rescan(name)
            case "silence":
                fleet.silence(name, vanish=request.vanish)
            case "speak":
                fleet.unsilence(name)
            case "cut":
                fleet.drop_connection(name)
            case "telemetry":
                fleet.send_telemetry(name)
            case "update":
                fleet.set_update_outcome(name, request.target, request.outcome)


def run_control_stream(lines: Iterator[str], fleet: SimulatedFleet, writer: LineWriter) -> None:
    """Applies requests line by line until `stop` or the end of the input."""
    for line in lines:
        if not line.strip():
            continue
        label: Any = None
        try:
            request = ControlRequest.model_validate_json(line[: MAX_LINE + 1])
            label = request.id
            if request.do == "stop":
                return
            if request.do == "status":
                status = {"seen": "status", "devices": len(fleet.device_ids), "connected": fleet.connected}
                writer.write_line({**status, "id": label})
                continue
            apply_request(request, fleet)
        except ValidationError as e:
            writer.write_line({"seen": "error", "reason": _first_error(e), "id": label})
        except AgentError as e:
            writer.write_line({"seen": "error", "reason": str(e), "id": label})
        else:
            done = {"seen": "done", "do": request.do, "device": request.device, "id": label, "at": time.time()}
            writer.write_line(done)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'line'}: {first['msg']}"


def read_script(path: Path) -> list[ControlRequest]:
    """Returns the requests of a script, sorted by time.

    Raises:
        SettingsError: a line is invalid, or the file cannot be read.
    """
    requests = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if number > _MAX_SCRIPT_LINES:
                    raise SettingsError(f"{path}: more than {_MAX_SCRIPT_LINES} lines")
                if line.strip():
                    requests.append(_parse_script_line(path, number, line))
    except OSError as e:
        raise SettingsError(f"{path}: {e.strerror}") from e
    return sorted(requests, key=lambda request: request.at)


def _parse_script_line(path: Path, number: int, line: str) -> ControlRequest:
    try:
        return ControlRequest.model_validate_json(line[: MAX_LINE + 1])
    except ValidationError as e:
        raise SettingsError(f"{path}:{number}: {_first_error(e)}") from e


def run_script(script: list[ControlRequest], fleet: SimulatedFleet, stop: threading.Event) -> None:
    """Applies each request at its time; ends early when `stop` is set, which a `stop` in the script also sets."""
    started_at = time.monotonic()
    for request in script:
        if stop.wait(max(0.0, started_at + request.at - time.monotonic())):
            return
        if request.do == "stop":
            stop.set()
            return
        try:
            apply_request(request, fleet)
        except UnknownDeviceError as e:
            sys.stderr.write(f"script: {e}\n")
