"""What a demonstration is told, and how patient it is."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controller.ports.errors import ControllerError

ROLES: Final = 4  # devices that play a part; the others are the healthy rest
MAX_DEVICES: Final = 500  # that many are still told apart at a terminal
_RUN_BYTES: Final = 3  # random, so that two runs at one broker never meet


class DemoError(ControllerError):
    """The demonstration cannot go on; the text says what was seen instead of what was needed."""


@dataclass(frozen=True, slots=True)
class ExternalBroker:
    """An EMQX that was there before: API base URLs, MQTT addresses `host:port`, and how to get in."""

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
class DemoOptions:
    """A whole demonstration; `broker` is `None` for the stand-in, `run` names everything it makes."""

    devices: int
    seed: int
    fast: bool
    run: str
    broker: ExternalBroker | None = None

    @property
    def prefix(self) -> str:
        """What every device's id begins with."""
        return f"demo-{self.run}-"


@dataclass(frozen=True, slots=True)
class DemoTimings:
    """Times of one speed: durations as the programs take them, the rest in seconds.

    `quiet` is how long a cut is watched at least, `refusals` how often a banned device is seen to be turned away,
    `patience` the longest wait for anything to be seen.
    """

    telemetry_every: str
    heartbeat_every: str
    stale_after: str
    action_time: str
    reconnect_max: str
    reconcile_every: str
    quiet: float
    refusals: int
    pause: float
    patience: float


NORMAL: Final = DemoTimings("500ms", "1s", "5s", "3s", "2s", "2s", 2.0, 3, 1.0, 20.0)
FAST: Final = DemoTimings("250ms", "500ms", "2s", "1200ms", "400ms", "1s", 0.8, 2, 0.0, 20.0)


def pace_of(options: DemoOptions) -> DemoTimings:
    """The speed that was asked for."""
    return FAST if options.fast else NORMAL


def new_run() -> str:
    """A name for one run."""
    return secrets.token_hex(_RUN_BYTES)
