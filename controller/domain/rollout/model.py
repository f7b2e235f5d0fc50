"""The values of a rollout: its target, its terms, its rings, and the progress of each device.

Times are Unix seconds, durations seconds. All values are immutable; `lifecycle` and `member` compute the next ones.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from controller.domain.audit_kinds import AuditKind
from controller.domain.evolve import evolve
from controller.domain.principal import Principal
from controller.domain.rollout.window import MaintenanceWindow


class RolloutState(StrEnum):
    """`running <-> soaking -> awaiting_approval -> running ... -> completed`.

    A rollout that fails ends as `stopped`, one that an operator ends as `aborted`; both pass through `ending` (no new
    commands; commands under way finish) or `rolling_back` (devices revert to the previous version).
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
        """Whether the state is terminal."""
        return self in _ENDS

    @property
    def is_active(self) -> bool:
        """Whether the rollout still aims for its last ring."""
        return self in _ACTIVE


_ENDS: Final = frozenset({RolloutState.COMPLETED, RolloutState.STOPPED, RolloutState.ABORTED})
_ACTIVE: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.AWAITING_APPROVAL})


class MemberState(StrEnum):
    """The progress of one device.

    `away`: unreachable, isolated or busy when it was scheduled. `received`: it acknowledged the command. `claimed`: it
    reported success, which no posture report shows yet. `confirmed`: a posture report shows the new version.
    `unknown`: it was silent for too long. `skipped`: already up to date, not eligible, or isolated.
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
        """Whether a command was issued and its result is unknown."""
        return self in _UNDER_WAY


_UNDER_WAY: Final = frozenset({MemberState.ORDERED, MemberState.RECEIVED, MemberState.CLAIMED})


class RevertState(StrEnum):
    """The progress of a device back to its previous version.

    `pending`: its maintenance window is closed. `away`: not reachable, or it did not answer; ordered when it is heard.
    `not_reverted`: it refused, or another rollout decides now.
    """

    NONE = "none"
    PENDING = "pending"
    AWAY = "away"
    REVERTING = "reverting"
    REVERTED = "reverted"
    NOT_REVERTED = "not_reverted"


@dataclass(frozen=True, slots=True)
class RolloutTarget:
    """What is rolled out, as published by the signed repository. `has_health_check`: its health can be determined."""

    path: str
    name: str
    version: str
    sha256: str
    length: int  # bytes
    classes: tuple[str, ...]
    hardware: tuple[str, ...] = ()
    has_health_check: bool = True
    installer: str = ""  # one of `InstallerKind`; determines the order of versions


@dataclass(frozen=True, slots=True)
class RolloutTerms:
    """The conditions of a rollout.

    `error_threshold`: the allowed share of errors among devices that received the update and finished. `timeout`: of
    one device, from its command on. `per_minute`: commands, 0 for no limit. `confirm_classes`: device classes where a
    person at the device has to agree. `allow_downgrade`: also on devices with a newer version.
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
    allow_downgrade: bool = False


@dataclass(frozen=True, slots=True)
class RolloutMember:
    """A device of a rollout.

    `deadline`: when its present state times out, in the rollout's time, 0 for never. `not_before`: when its maintenance
    window opens. `waited`: seconds of open windows in which it was away, up to its deadline. `ends_with_window`: its
    command ends before the timeout. `was_received`: it acknowledged the install command. `already_installed`: it had
    the target version before. `was_replaced`: blank hardware took its place after it was confirmed. `command_id`: the
    command that installs, `revert_command_id`: the command that reverts; empty until issued.
    """

    device_id: str
    ring: int
    state: MemberState = MemberState.PENDING
    deadline: float = 0.0
    not_before: float = 0.0
    deferrals: int = 0  # times it was scheduled and could not be reached
    waited: float = 0.0
    ends_with_window: bool = False
    command_id: str = ""
    phase: str = ""
    percent: int = 0
    previous_version: str = ""
    reason: str = ""
    was_received: bool = False
    already_installed: bool = False
    is_stale: bool = False  # silent since it was confirmed
    was_replaced: bool = False
    revert: RevertState = RevertState.NONE
    revert_command_id: str = ""
    revert_orders: int = 0  # commands to revert that were issued
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class RingTally:
    """A ring and the number of its devices in each state.

    Each device counts in exactly one of the first twelve. `lost`: received the update and became silent. `had_it`: had
    the version before (named as in the API). `stale`: confirmed and silent since. The last five count devices that have
    to revert or had to.
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
    stale: int = 0
    revert_pending: int = 0
    revert_away: int = 0
    reverting: int = 0
    reverted: int = 0
    not_reverted: int = 0

    @property
    def total(self) -> int:
        """All devices of the ring."""
        ended = self.sample + self.declined + self.unknown + self.skipped + self.had_it
        return self.waiting + self.under_way + ended

    @property
    def waiting(self) -> int:
        """Devices without a command so far."""
        return self.pending + self.away

    @property
    def under_way(self) -> int:
        """Devices with a command whose result is unknown."""
        return self.ordered + self.received + self.claimed

    @property
    def errors(self) -> int:
        """Devices that received the update and failed or became silent."""
        return self.failed + self.lost

    @property
    def sample(self) -> int:
        """Devices that received the update and finished."""
        return self.confirmed + self.errors

    @property
    def error_rate(self) -> float:
        """Share of errors in the sample."""
        return self.errors / self.sample if self.sample else 0.0

    def with_transition(self, before: RolloutMember, after: RolloutMember) -> "RingTally":
        """Returns the tally after a device went from `before` to `after`."""
        changes: dict[str, int] = {}
        for member, difference in ((before, -1), (after, 1)):
            for name in tally_fields(member):
                changes[name] = changes.get(name, 0) + difference
        counts = {name: getattr(self, name) + difference for name, difference in changes.items() if difference}
        return evolve(self, **counts) if counts else self


def tally_fields(member: RolloutMember) -> tuple[str, ...]:
    """Returns the fields of a `RingTally` that count this device."""
    name = member.state.value
    if member.state is MemberState.UNKNOWN and member.was_received:
        name = "lost"
    elif member.state is MemberState.SKIPPED and member.already_installed:
        name = "had_it"
    stale = ("stale",) if member.is_stale and member.state is MemberState.CONFIRMED else ()
    return (name, *stale, *_REVERT_FIELDS[member.revert])


_REVERT_FIELDS: Final = {
    RevertState.NONE: (),
    RevertState.PENDING: ("revert_pending",),
    RevertState.AWAY: ("revert_away",),
    RevertState.REVERTING: ("reverting",),
    RevertState.REVERTED: ("reverted",),
    RevertState.NOT_REVERTED: ("not_reverted",),
}


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout without its devices.

    `ring`: index of the current ring, -1 before the first. `why` explains the state. `ends_as`: the terminal state that
    follows `ending` and `rolling_back`. `rule`: the policy rule that started it, or empty.

    Soak time, deadlines and approval are in the rollout's time, see `time`: `paused_at` is when the pause began,
    `clock_ahead` by how many seconds the wall clock is ahead, because of pauses and of leaps that were seen.
    `has_restarted`: the controller was restarted during the soak time, which the wall clock measured meanwhile.
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
    paused_at: float = 0.0
    clock_ahead: float = 0.0
    has_restarted: bool = False
    opened_at: float = 0.0  # when the current ring opened
    soak_until: float = 0.0
    approval_requested_at: float = 0.0
    next_command_at: float = 0.0  # earliest time of the next command, by `per_minute`
    approved_by: str = ""
    why: str = ""
    ends_as: RolloutState | None = None
    ended_at: float = 0.0
    is_reverting: bool = False
    starter: Principal | None = None  # the person who started it, if no policy did
    reverts_now: bool = False  # without waiting for maintenance windows
    remarks: tuple[str, ...] = ()  # about versions: at the start, devices had newer ones or ones without an order
    unapproved_rings: int | None = None  # how many open before the approval; None, of older versions: all but the last

    def time(self, now: float) -> float:
        """Returns the rollout's time at `now`: it goes on evenly, and stands still during a pause."""
        return (self.paused_at if self.is_paused else now) - self.clock_ahead

    @property
    def opened_rings(self) -> tuple[RingTally, ...]:
        """The current ring and those before it."""
        return self.rings[: self.ring + 1]

    @property
    def has_open_reverts(self) -> bool:
        """Whether a device still has to revert, and can be ordered to."""
        return any(ring.revert_pending or ring.revert_away or ring.reverting for ring in self.rings)

    @property
    def is_followed(self) -> bool:
        """Whether reports of its devices still matter: it has not ended, or it goes back and a device still has to, or
        only its own word says that it does not have the version.
        """
        if not self.state.is_end or self.has_open_reverts:
            return True
        return self.is_reverting and any(ring.failed or ring.declined for ring in self.rings)

    @property
    def current_ring(self) -> RingTally:
        """The ring that is being updated."""
        return self.rings[self.ring]

    @property
    def is_last_ring(self) -> bool:
        """Whether no ring follows."""
        return self.ring == len(self.rings) - 1


MemberTransition = tuple[Rollout, RolloutMember]


def replace_member(rollout: Rollout, member: RolloutMember, now: float, /, **changes: Any) -> MemberTransition:
    """Returns the device with the changed fields, and the rollout with the tally that follows."""
    after = evolve(member, updated_at=now, **changes)
    rings = list(rollout.rings)
    rings[member.ring] = rings[member.ring].with_transition(member, after)
    return evolve(rollout, rings=tuple(rings)), after


@dataclass(frozen=True, slots=True)
class RolloutDevice:
    """The state of a device that decides whether it can be updated now. `zone`: the name of its time zone."""

    device_id: str
    device_class: str
    is_reachable: bool
    is_isolated: bool
    is_busy: bool  # too many open commands
    zone: str


@dataclass(frozen=True, slots=True)
class InstalledVersion:
    """The installed version of the target's name, from the device's last report; `version` is empty if not installed.

    `is_known` is false where the section about updates is absent or cannot be read; `is_absent`: the device reports
    none. `device_class`, `hardware`: as reported. Each entry has an `outcome`; a report without an entry has none.
    """

    is_known: bool = False
    is_absent: bool = False
    version: str = ""
    health: str = "unknown"
    outcome: str = ""
    attempted: str = ""
    reason: str = ""
    command_id: str = ""
    device_class: str = ""
    hardware: tuple[str, ...] = ()

    @property
    def is_blank(self) -> bool:
        """Whether the device knows nothing of the target's name: no version, and no update that ended in any way."""
        return self.is_known and not self.version and not self.outcome


@dataclass(frozen=True, slots=True)
class CommandProgress:
    """The state of a command and the details that the device reported with it."""

    command_id: str
    state: str
    reason: str = ""
    phase: str = ""
    percent: int = 0
    previous_version: str = ""
    reason_code: str = ""


@dataclass(frozen=True, slots=True)
class RolloutNote:
    """An audit entry about a rollout, without the rollout's id and target."""

    kind: AuditKind
    actor: str = "cordon"
    device_id: str = ""
    alert: bool = False
    detail: dict[str, object] = field(default_factory=dict)


class RolloutError(ValueError):
    """The request is invalid or does not fit the state of the rollout; the text says why."""
