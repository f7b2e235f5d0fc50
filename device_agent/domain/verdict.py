"""What became of a command that arrived: kept apart from who judges, which needs more than an idle agent shall load."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.commands import Command, CommandState


@dataclass(frozen=True, slots=True)
class AcceptedCommand:
    """Run it."""

    command: Command


@dataclass(frozen=True, slots=True)
class DuplicateCommand:
    """It was taken before: tell again how it ended, run nothing."""

    command_id: str


@dataclass(frozen=True, slots=True)
class RejectedCommand:
    """Signed for this device by a trusted key, and still not to be run: `state` and `reason` go back as its result."""

    command_id: str
    state: CommandState
    reason: str


@dataclass(frozen=True, slots=True)
class ForgedCommand:
    """Nobody we trust sent this to us: nothing is answered to it, an event tells of it."""

    reason: str


CommandVerdict = AcceptedCommand | DuplicateCommand | RejectedCommand | ForgedCommand


class EnvelopeVerifier(Protocol):
    """Decides on envelopes; see `guard.Guard.judge`."""

    def judge(self, raw: bytes, *, last_counter: int, known: Collection[str], now: datetime) -> CommandVerdict:
        """Decide on a received envelope."""
        ...
