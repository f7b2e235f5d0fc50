"""What a rollout is made of: what goes out, on which terms, through which rings, and how far each device got.

Times are Unix seconds, durations seconds. Everything is immutable; `controller.domain.rollout.lifecycle` makes the
next value.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controller.domain.evolve import evolve
from controller.domain.rollout.window import MaintenanceWindow


class RolloutState(StrEnum):
    """`running <-> soaking -> awaiting_approval -> running ... -> completed`; or by `ending` or `rolling_back` to
    `stopped` (by itself) or `aborted` (by an operator). `ending`: nothing new is ordered, what is under way ends.
    """

    RUNNING = "running"
    SOAKING = "soaking"
    AWAITING_APPROVAL = "awaiting_approval"
    ENDING = "ending"
    ROLLING_BACK = "rolling_back"
    COMPLETED = "completed"
    STOPPED = "stopped"
    ABORTED = "aborted"

    @property
    def is_end(self) -> bool:
        """Whether nothing more can follow."""
        return self in _ENDS

    @property
    def goes_on(self) -> bool:
        """Whether it still means to reach the last ring."""
        return self in _GOES_ON


_ENDS: Final = frozenset({RolloutState.COMPLETED, RolloutState.STOPPED, RolloutState.ABORTED})
_GOES_ON: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.AWAITING_APPROVAL})


class MemberState(StrEnum):
    """How far a device got.

    `away`: its turn came and it could not be reached. `received`: it said so. `claimed`: it says that it is done, and
    no report shows it yet. `confirmed`: a report does. `unknown`: silent for too long. `skipped`: it needs nothing, is
    not meant, or may not have it.
    """

    PENDING = "pending"
    AWAY = "away"
    ORDERED = "ordered"
    RECEIVED = "received"
    CLAIMED = "claimed"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    DECLINED = "declined"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"

    @property
    def is_under_way(self) -> bool:
        """Whether an order is out and its end is not known."""
        return self in _UNDER_WAY


_UNDER_WAY: Final = frozenset({MemberState.ORDERED, MemberState.RECEIVED, MemberState.CLAIMED})


class RevertState(StrEnum):
    """How far a device got on the way back to the version before."""

    NONE = "none"
    REVERTING = "reverting"
    REVERTED = "reverted"
    NOT_REVERTED = "not_reverted"


@dataclass(frozen=True, slots=True)
class RolloutTarget:
    """What goes out, as the signed repository tells it. `has_check`: its health can be known."""

    path: str
    name: str
    version: str
    sha256: str
    length: int  # bytes
    classes: tuple[str, ...]
    hardware: tuple[str, ...] = ()
    has_check: bool = True


@dataclass(frozen=True, slots=True)
class RolloutTerms:
    """On which terms.

    `error_threshold`: share of those that received it and ended. `timeout`: for one device, from its order on.
    `per_minute`: orders, 0 for no limit. `confirm_classes`: where a person at the device agrees first.
    """

    soak: float = 3600.0
    error_threshold: float = 0.05
    min_sample: int = 10
    timeout: float = 1800.0
    window: MaintenanceWindow | None = None
    per_minute: float = 0.0
    rollback_on_error: bool = False
    approval: bool = True
    confirm_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RolloutMember:
    """A device of a rollout.

    `deadline`: when its present state has lasted too long, 0 for never. `not_before`: no order until then.
    `was_received`: it had the order in hand. `had_it`: it had the version before. `order_id`, `back_id`: the events
    that asked for its commands; what they became follows from them.
    """

    device_id: str
    ring: int
    state: MemberState = MemberState.PENDING
    deadline: float = 0.0
    not_before: float = 0.0
    away: int = 0  # times its turn came in vain
    order_id: str = ""
    phase: str = ""
    percent: int = 0
    before: str = ""
    reason: str = ""
    was_received: bool = False
    had_it: bool = False
    is_silent: bool = False
    back: RevertState = RevertState.NONE
    back_id: str = ""
    updated_at: float = 0.0

    @property
    def command_id(self) -> str:
        """The command that installs; empty before it was ordered."""
        return command_of(self.order_id)

    @property
    def back_command_id(self) -> str:
        """The command that goes back; empty before it was ordered."""
        return command_of(self.back_id)


def command_of(event_id: str) -> str:
    """The id of the one command that an order event issues."""
    return f"{event_id}-c0" if event_id else ""


@dataclass(frozen=True, slots=True)
class RingTally:
    """A ring and how many of its devices are where; each device is in one of the first twelve, `lost` are those that
    received it and fell silent, `had_it` those that had it before. `silent`: confirmed, and not heard of now.
    """

    name: str
    pending: int = 0
    away: int = 0
    ordered: int = 0
    received: int = 0
    claimed: int = 0
    confirmed: int = 0
    failed: int = 0
    declined: int = 0
    unknown: int = 0
    lost: int = 0
    skipped: int = 0
    had_it: int = 0
    silent: int = 0
    reverting: int = 0
    reverted: int = 0
    not_reverted: int = 0

    @property
    def total(self) -> int:
        """Its devices."""
        return (
            self.waiting + self.under_way + self.sample + self.declined + self.unknown + self.skipped + self.had_it
        )  # fmt: skip

    @property
    def waiting(self) -> int:
        """Not ordered yet."""
        return self.pending + self.away

    @property
    def under_way(self) -> int:
        """Ordered and not ended."""
        return self.ordered + self.received + self.claimed

    @property
    def errors(self) -> int:
        """Received it, and it went wrong."""
        return self.failed + self.lost

    @property
    def sample(self) -> int:
        """Received it, and it is known how it ended."""
        return self.confirmed + self.errors

    @property
    def error_rate(self) -> float:
        """Share of errors in the sample."""
        return self.errors / self.sample if self.sample else 0.0

    def moved(self, before: RolloutMember, after: RolloutMember) -> "RingTally":
        """With a device counted where it is now."""
        changes: dict[str, int] = {}
        for member, by in ((before, -1), (after, 1)):
            for name in places(member):
                changes[name] = changes.get(name, 0) + by
        left = {name: getattr(self, name) + by for name, by in changes.items() if by}
        return evolve(self, **left) if left else self


def places(member: RolloutMember) -> tuple[str, ...]:
    """The fields of a tally that count this device."""
    place = member.state.value
    if member.state is MemberState.UNKNOWN and member.was_received:
        place = "lost"
    elif member.state is MemberState.SKIPPED and member.had_it:
        place = "had_it"
    more = ("silent",) if member.is_silent and member.state is MemberState.CONFIRMED else ()
    return (place, *more) if member.back is RevertState.NONE else (place, *more, member.back.value)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as a whole. `ring` is the one whose turn it is, -1 before the first; `why` explains the state.

    `ends_as` is the end that `ending` and `rolling_back` lead to; `rule` the policy rule that started it, or empty.
    """

    rollout_id: str
    target: RolloutTarget
    terms: RolloutTerms
    rings: tuple[RingTally, ...]
    by: str
    reason: str
    created_at: float
    rule: str = ""
    state: RolloutState = RolloutState.RUNNING
    ring: int = 0
    is_paused: bool = False
    opened_at: float = 0.0  # when the present ring began
    soak_until: float = 0.0
    asked_at: float = 0.0  # since when it waits for approval
    next_order_at: float = 0.0
    approved_by: str = ""
    why: str = ""
    ends_as: RolloutState | None = None
    ended_at: float = 0.0
    is_reverting: bool = False

    @property
    def now_ring(self) -> RingTally:
        """The ring whose turn it is."""
        return self.rings[self.ring]

    @property
    def is_last_ring(self) -> bool:
        """Whether no ring follows."""
        return self.ring == len(self.rings) - 1


@dataclass(frozen=True, slots=True)
class RolloutDevice:
    """What the controller knows of a device when its turn comes. `zone`: the name of its time zone."""

    device_id: str
    device_class: str
    is_there: bool
    is_isolated: bool
    is_busy: bool
    zone: str


@dataclass(frozen=True, slots=True)
class InstalledVersion:
    """What the last report of a device says of the name that is rolled out; `version` empty: it is not there.

    `is_known` is false where the report says nothing of updates at all; `device_class` and `hardware` as it reports.
    """

    is_known: bool = False
    version: str = ""
    health: str = "unknown"
    outcome: str = ""
    attempted: str = ""
    reason: str = ""
    command_id: str = ""
    device_class: str = ""
    hardware: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandProgress:
    """What became of a command: its state, and what the device says beside it."""

    command_id: str
    state: str
    reason: str = ""
    phase: str = ""
    percent: int = 0
    before: str = ""


@dataclass(frozen=True, slots=True)
class RolloutNote:
    """A line for the record."""

    kind: str
    actor: str = "cordon"
    device_id: str = ""
    alert: bool = False
    detail: dict[str, object] = field(default_factory=dict)


class RolloutError(ValueError):
    """What was asked for makes no rollout, or does not fit its state; the text says why."""
