"""Commands, their life cycle and their results; the wire, the store, the API and the CLI use the same states."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from schemas.base import MAX_NAME, Counter, DeviceId, StrictWireModel, Text, Timestamp, WireModel

COMMAND_PAYLOAD_TYPE: Final = "application/vnd.cordon.command.v1+json"
MAX_PARAMS: Final = 16  # entries
MAX_DETAILS: Final = 32  # entries
# Milliseconds by which a counter may be ahead of the time at which its command was issued. Controllers count in
# milliseconds; one whose clock was ahead for a while goes on from there.
MAX_COUNTER_AHEAD: Final = 2 * 86_400_000
OLD_COMMAND: Final = "an old command again"  # end of the rejection reason for a counter that was used before


class CommandState(StrEnum):
    """`scheduled -> executing -> an end state`; an unknown state of a newer peer is read as `unknown`."""

    SCHEDULED = "scheduled"
    EXECUTING = "executing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    REJECTED = "rejected"
    UNKNOWN = "unknown"

    @property
    def is_end(self) -> bool:
        """Whether the state is final."""
        return self in _ENDS


_ENDS: Final = frozenset({CommandState.SUCCEEDED, CommandState.FAILED, CommandState.EXPIRED, CommandState.REJECTED})
_STATES: Final = frozenset(CommandState)


def _known_state(value: Any) -> Any:
    return value if not isinstance(value, str) or value in _STATES else CommandState.UNKNOWN


WRONG_CLOCK: Final = {"reason_code": "clock"}
"""`detail` of a command that was not run because of the device's clock; the code is that of `UpdateRefusalCode`."""
ActionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,3}$", max_length=64)]
ParamName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ParamValue = Annotated[str, StringConstraints(max_length=MAX_NAME)] | bool | int
CommandId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Command(StrictWireModel):
    """A command for one device; always sent inside of a signed envelope."""

    v: Literal[1] = 1
    command_id: CommandId
    device_id: DeviceId
    action: ActionName
    params: Annotated[dict[ParamName, ParamValue], Field(max_length=MAX_PARAMS, default_factory=dict)]
    dry_run: bool = False
    issued_at: Timestamp
    expires_at: Timestamp
    counter: Counter

    def is_expired(self, now: datetime) -> bool:
        """Whether the command must not run at `now` (aware)."""
        return now >= self.expires_at


class CommandResult(WireModel):
    """The state of a command; sent again when the controller repeats the command."""

    v: Literal[1] = 1
    command_id: CommandId
    state: Annotated[CommandState, BeforeValidator(_known_state)]
    reason: Text = ""
    detail: Annotated[dict[ParamName, Text], Field(max_length=MAX_DETAILS, default_factory=dict)]
    at: Timestamp
