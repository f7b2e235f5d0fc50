"""Options and timings of the demonstrations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.ports.errors import ControllerError

MAX_DEVICES: Final = 500  # more cannot be told apart at a terminal


class DemoError(ControllerError):
    """Something was not observed; the text says what was observed instead."""


@dataclass(frozen=True, slots=True)
class ExternalBroker:
    """A running EMQX: API base URLs, MQTT addresses `host:port`, and credentials for both."""

    api: tuple[str, ...]
    key: str
    secret: str
    mqtt: tuple[str, ...]
    user: str | None = None
    password: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None


@dataclass(frozen=True, slots=True)
class DemoTimings:
    """Durations as the programs read them; the rest in seconds.

    `quiet`: how long a containment is observed at least. `refusals`: how many refused reconnects are waited for.
    `pause`: between two steps. `timeout`: of every wait. `soak`, `update_time`: of a rollout's ring, of one update.
    """

    telemetry_every: str
    heartbeat_every: str
    stale_after: str
    action_time: str
    reconnect_max: str
    reconcile_every: str
    soak: str
    update_time: str
    quiet: float
    refusals: int
    pause: float
    timeout: float = 40.0


NORMAL: Final = DemoTimings("500ms", "1s", "5s", "3s", "2s", "2s", "3s", "500ms", 2.0, 3, 1.0)
FAST: Final = DemoTimings("250ms", "500ms", "2s", "1200ms", "400ms", "1s", "1s", "100ms", 0.8, 2, 0.0)
