"""The verdict on a received command. Apart from the verifier, which needs more memory than an idle agent should use."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from device_agent.domain.command_counters import CommandCounters
from schemas.commands import Command, CommandState

EARLIEST_CLOCK: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A wall clock that is earlier was never set."""


@dataclass(frozen=True, slots=True)
class AcceptedCommand:
    """The command runs; `spaces` are the counters that it uses (`command_counters`)."""

    command: Command
    spaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class DuplicateCommand:
    """The command was accepted before: its result is sent again, nothing runs."""

    command_id: str


@dataclass(frozen=True, slots=True)
class RejectedCommand:
    """A trusted key signed the command for this device, but it must not run: `state` and `reason` are its result.

    `is_wrong_clock`: it was issued at another time than the device's clock says, so that clock may be the cause.
    """

    command_id: str
    state: CommandState
    reason: str
    is_wrong_clock: bool = False


@dataclass(frozen=True, slots=True)
class ForgedCommand:
    """No trusted key signed the command for this device: it gets no result, an event reports it."""

    reason: str


CommandVerdict = AcceptedCommand | DuplicateCommand | RejectedCommand | ForgedCommand


class EnvelopeVerifier(Protocol):
    """Decides on received envelopes; see `command_verifier.CommandVerifier.verify`."""

    def verify(
        self, raw: bytes, *, counters: CommandCounters, known_command_ids: Collection[str], now: datetime
    ) -> CommandVerdict: ...
