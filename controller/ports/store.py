"""The durable state: devices, reports, the audit log, pending effects; and how operators read it."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from controller.domain.accounts.account import Account
from controller.domain.audit_anchors import AuditHeads, AuditVerification
from controller.domain.audit_id import AuditCursor, AuditId
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.users import UserCase
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, CommandRecord, Effect
from controller.domain.guards.approvals import ApprovalRequest
from controller.domain.guards.blast_radius import RadiusCheck
from controller.domain.guards.waivers import Waiver
from controller.domain.principal import UNOWNED, MakingRecord, Principal
from controller.domain.record_budget import RecordUse
from controller.domain.scopes import Scope
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import AccessRules
from controller.ports.device_rows import DeviceRows

KEY_DIGITS: Final = 32  # hex digits of a token's digest that name it among all tokens ever made


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A rejected message; `payload` is cut to what the store keeps."""

    at: float
    device_id: str  # empty when the topic names none
    topic: str
    reason: str
    detail: str
    size: int
    payload: bytes
    seq: int = 0  # given by the store; newer ones have larger ones


@dataclass(frozen=True, slots=True)
class StoredAuditEntry:
    """An entry of the audit log."""

    id: AuditId
    at: float
    entry: AuditEntry

    @property
    def cursor(self) -> AuditCursor:
        """Its place in lists."""
        return AuditCursor(self.id, self.at)


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A full report as the device sent it, and the device's state after it."""

    device: Device
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredKnowledge:
    """An imported knowledge file as text, the id of the key that signed it (or empty), who imported it, Unix seconds.

    `forced_over`: the version that was in force, if the file is older; else 0.
    """

    text: str
    forced_over: int
    signed_by: str
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class StoreWrites:
    """Everything that one decision changes, stored together or not at all.

    Where several controllers share a store, a commit is refused if what it was decided on is no longer what is stored.
    Versions are numbers that are given once: whoever decides makes a new one. A store with one controller ignores them.

    `devices`: whole new states. `seen`: devices of which only the values of a contact or a report are new. `reports`:
    full reports; of their devices only the values of the report are stored, unless they are among `devices` too. A
    device whose agent is another, or that is no longer stale, is among `devices`.
    `audit`: Unix seconds and entry. `done`: ids of effects that were carried out or are void. `charges`: ledger (empty
    for containments by policies, else the operator), device, and Unix seconds, or `None` to remove it. `waivers`: by
    id, `None` for an ended waiver. `requests`: decisions that need a second person. `users`: cases of users; a
    case that is over is deleted. `knowledge`: replaces what was imported before.
    `versions`: for each device in `devices`, `seen`, `reports` and `checked` the version that was decided on, 0 for a
    new device, and the version after. Both are equal if nothing is new but the time of a contact and what an unchanged
    report says of itself (number, time, how many). A device without a version is written unchecked.
    `deadlines`: for devices in `devices` when time alone changes something next, Unix seconds; others have none.
    `waits_in`: the pools of the blast radius in which devices of `devices` are held back; others are not.
    `guards_version`: the version of waivers that was decided on, and the one after, equal if none is changed; `None` if
    the decision rests on no limit of the fleet. `radius`: what was decided on of the blast radius; charges of several
    controllers do not conflict before its limit. `policy_epoch`: of the policies that were decided by.
    `checked`: devices, of none of the above, of which only the version is checked: it was decided to change nothing.
    """

    devices: tuple[Device, ...] = ()
    seen: tuple[Device, ...] = ()
    reports: tuple[StoredReport, ...] = ()
    audit: tuple[tuple[float, AuditEntry], ...] = ()
    effects: tuple[Effect, ...] = ()
    done: tuple[str, ...] = ()
    commands: tuple[CommandRecord, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    charges: tuple[tuple[str, str, float | None], ...] = ()
    waivers: tuple[tuple[str, Waiver | None], ...] = ()
    requests: tuple[ApprovalRequest, ...] = ()
    users: tuple[UserCase, ...] = ()
    knowledge: StoredKnowledge | None = None
    versions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    deadlines: Mapping[str, float | None] = field(default_factory=dict)
    waits_in: Mapping[str, str] = field(default_factory=dict)
    guards_version: tuple[int, int] | None = None
    radius: tuple[RadiusCheck, ...] = ()
    policy_epoch: int | None = None
    checked: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardSnapshot:
    """The state of the guards at one moment.

    `charges` as in `StoreWrites`, `requests`: those of which something is still to come. `version`: what a decision
    that rests on this state names as `guards_version`. `waiting`: devices that are held back, by pool.
    """

    charges: tuple[tuple[str, str, float], ...] = ()
    waivers: tuple[Waiver, ...] = ()
    requests: tuple[ApprovalRequest, ...] = ()
    version: int = 0
    waiting: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token, by its digest: the token itself is never stored.

    `makers`: who made it and when, by the key of a token (`credential`) or an account. `owner`: the id of the account
    that it acts for, empty for one from before there were accounts. `last_used_at` is stored once a minute, 0: never.
    """

    name: str
    digest: str  # SHA-256 in hex
    created_at: float
    scopes: tuple[Scope, ...] = ()
    expires_at: float | None = None  # Unix seconds; `None`: never
    makers: tuple[MakingRecord, ...] = ()
    owner: str = ""
    last_used_at: float = 0.0
    last_peer: str = ""

    def is_over(self, now: float) -> bool:
        """Whether it has expired at `now` (Unix seconds)."""
        return self.expires_at is not None and now >= self.expires_at

    @property
    def credential(self) -> str:
        """Names it among all tokens ever made."""
        return self.digest[:KEY_DIGITS]

    def principal_of(self, owner: Account | None) -> Principal:
        """Who acts with it: its owner, or nobody knows who."""
        if owner is None:
            return Principal(UNOWNED, self.name, credential=self.credential)
        return Principal(owner.key, self.name, owner.makers, credential=self.credential)


class TokenChange(StrEnum):
    """What became of a change of the tokens."""

    DONE = "done"
    EXISTS = "exists"  # a token of the same name
    USED = "used"  # by a token that was revoked, and that the audit still names
    TOO_MANY = "too many"
    TOO_MANY_OF_OWNER = "too many of owner"
    MAKER_GONE = "maker gone"  # the token that makes it was revoked meanwhile
    NO_OWNER = "no owner"  # it belongs to no account, or to one that is disabled
    UNKNOWN = "unknown"
    LAST = "last"  # the last one with the scope admin and no expiry


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """`trouble`: why commits fail, empty if they do not; `since`: Unix seconds, 0 if they do not."""

    trouble: str = ""
    since: float = 0.0


class Store(DeviceRows, Protocol):
    """A commit that returned survives power loss; one that raised stored nothing."""

    def commit(self, writes: StoreWrites) -> Awaitable[None]:
        """Stores all of `writes` in one transaction, with other waiting commits (group commit), in order of the calls.

        The call itself queues the commit: later decisions may be made before this one is awaited.
        While the store cannot write (full, locked, read-only) the commit waits and is retried; `health` says why.
        Cancelling the wait does not undo the writes.

        Raises (when awaited):
            ConflictError: decided on what another controller has changed; other commits are not concerned.
        """
        ...

    @property
    def health(self) -> StoreHealth: ...

    async def report(self, device_id: str) -> bytes | None:
        """The last full report of a device, as it was sent."""
        ...

    async def reports(self, after: str, limit: int) -> Sequence[tuple[str, bytes]]:
        """Device ids with their last full reports, in the order of ids, after the id `after`."""
        ...

    async def user_cases(self) -> Sequence[UserCase]:
        """Every user that is contained or being released, for the start."""
        ...

    async def guard_books(self) -> GuardSnapshot:
        """The state of the guards, for the start and after a conflict."""
        ...

    async def approval(self, request_id: str) -> ApprovalRequest | None: ...

    async def approvals(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        requester: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Sequence[ApprovalRequest]:
        """Requests, newest first; `requester`: key of the person; `after`: id of the one before the page.

        Raises:
            UnknownRowError: there is no request `after`.
        """
        ...

    async def accepted_policies(self) -> str:
        """The version of the policies that were last put in force; empty if there is none."""
        ...

    async def accept_policies(self, version: str) -> None:
        """Stores the version of the policies that are in force from now on."""
        ...

    async def knowledge(self) -> StoredKnowledge | None:
        """The knowledge that was imported last."""
        ...

    async def effects(
        self, buckets: frozenset[int] | None = None, devices: Sequence[str] | None = None
    ) -> Sequence[Effect]:
        """Pending effects, oldest first: of all devices, or of some buckets or devices.

        A store that one controller has for itself returns all of them.
        """
        ...

    async def keep_rules(self, device_id: str, case_id: str, rules: AccessRules, at: float) -> None:
        """Saves the rules that a subject had before the case; the first rules saved for a case stay."""
        ...

    async def kept_rules(self, device_id: str, case_id: str) -> AccessRules | None:
        """The rules saved by `keep_rules`; `None` if there are none."""
        ...

    async def keep_subscriptions(
        self, device_id: str, case_id: str, cut: Sequence[SavedSubscription], at: float
    ) -> None:
        """Saves subscriptions that are about to be cut; a subscription replaces an earlier one of the same topic."""
        ...

    async def kept_subscriptions(self, device_id: str, case_id: str) -> tuple[SavedSubscription, ...]:
        """The subscriptions saved by `keep_subscriptions`."""
        ...

    async def forget_rules(self, device_id: str, case_id: str) -> None:
        """Deletes the saved rules and subscriptions of a case that is over."""
        ...

    async def audit(
        self,
        *,
        device_id: str | None = None,
        case_id: str | None = None,
        kind: AuditKind | None = None,
        alerts_only: bool = False,
        after: AuditCursor | None = None,
        limit: int = 200,
        newest_first: bool = True,
        actor: str | None = None,
        kinds: Sequence[AuditKind] = (),
        since: float | None = None,
        until: float | None = None,
    ) -> Sequence[StoredAuditEntry]:
        """Entries of the audit log by time, writer and number; `after`: where to continue in the chosen direction.

        `kinds`: any of these. `since` and `until` (Unix seconds): from the first on, before the second.

        Raises:
            UnknownRowError: the cursor has no time, and there is no such line.
        """
        ...

    async def record_use(self, since: float) -> Sequence[RecordUse]:
        """What the audit holds of each device since a time (Unix seconds)."""
        ...

    async def audit_heads(self) -> AuditHeads:
        """The ends of the audit log's chains, to be noted outside the store."""
        ...

    async def check_audit(self, noted: AuditHeads | None = None) -> AuditVerification:
        """Verifies every row of the audit log; `noted`: heads that the log has to contain."""
        ...

    async def commands(
        self, *, device_id: str | None = None, state: str | None = None, limit: int = 200, after: str | None = None
    ) -> Sequence[CommandRecord]:
        """Commands, newest first; `after`: id of the one before the page.

        Raises:
            UnknownRowError: there is no command `after`.
        """
        ...

    async def command(self, command_id: str) -> CommandRecord | None: ...

    async def dead_letters(
        self, *, device_id: str | None = None, limit: int = 100, after: int = 0
    ) -> Sequence[DeadLetter]:
        """Rejected messages, newest first; `after`: `seq` of the one before the page, 0 for the first page."""
        ...

    async def put_token(self, token: ApiToken) -> None:
        """Adds a token, or replaces that of the same name; for a store that no controller uses yet."""
        ...

    async def tokens(self) -> Sequence[ApiToken]: ...

    async def add_token(
        self, token: ApiToken, most: int, writes: StoreWrites, most_of_owner: int | None = None
    ) -> TokenChange:
        """Adds a token of an account, and commits `writes` with it; then there are at most `most`.

        Of its owner there are at most `most_of_owner`, `most` where that is None.

        Checked and written in one transaction, as `revoke_token`: of changes at one moment each sees the one before.
        """
        ...

    async def revoke_token(self, token: ApiToken, writes: StoreWrites) -> TokenChange:
        """Deletes exactly this token, unless it is the last that administers for ever, and commits `writes` with it."""
        ...

    async def counts(self) -> dict[str, Any]:
        """Rows of each table and bytes of the file, for metrics."""
        ...

    async def warnings(self) -> Sequence[str]:
        """What the store does not promise although it works, for operators."""
        ...

    async def prune(self) -> int:
        """Deletes rows that are older than their retention, and adds an anchor of the audit log; returns how many."""
        ...

    async def close(self) -> None:
        """Finishes queued commits, then closes."""
        ...
