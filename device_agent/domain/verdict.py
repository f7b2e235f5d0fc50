"""What became of a command that arrived: kept apart from who judges, which needs more than an idle agent shall load."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.commands import Command, CommandState


@dataclass(frozen=True, slots=True)
class Accepted:
    """Run it."""

    command: Command


@dataclass(frozen=True, slots=True)
class Known:
    """It was taken before: tell again how it ended, run nothing."""

    command_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Signed for this device by a trusted key, and still not to be run: `state` and `reason` go back as its result."""

    command_id: str
    state: CommandState
    reason: str


@dataclass(frozen=True, slots=True)
class Forged:
    """Nobody we trust sent this to us: nothing is answered to it, an event tells of it."""

    reason: str


Judgement = Accepted | Known | Refused | Forged


class Judge(Protocol):
    """Decides on envelopes; see `guard.Guard.judge`."""

    def judge(self, raw: bytes, *, last_counter: int, known: Collection[str], now: datetime) -> Judgement:
        """Decide on a received envelope."""
        ...
