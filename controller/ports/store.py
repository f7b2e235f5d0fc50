"""What has to survive: devices, reports, the record, effects not carried out yet; and how operators read it."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controller.domain.audit_chain import ChainHead, ChainVerification
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.users import UserCase
from controller.domain.device import Device
from controller.domain.effects import AuditEntry, CommandRecord, Effect
from controller.domain.guards.approvals import ApprovalRequest
from controller.domain.guards.waivers import Waiver
from controller.domain.scopes import Scope
from controller.ports.broker import SavedSubscription
from controller.ports.broker_tables import AccessRules


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was refused; `payload` is cut to what the store keeps."""

    at: float
    device_id: str  # empty when the topic names none
    topic: str
    reason: str
    detail: str
    size: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StoredAuditEntry:
    """A line of the record as it is kept; `seq` grows by one."""

    seq: int
    at: float
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A full report as the device sent it, and the device as it left it."""

    device: Device
    body: bytes


@dataclass(frozen=True, slots=True)
class StoreWrites:
    """Everything one decision changes: kept together or not at all.

    `devices`: whole new states. `seen`: devices of which only what a contact or a report tells is new. `reports`: full
    reports; of their devices only what they tell is kept, unless those are among `devices` too. `audit`: when, and the
    line. `done`: ids of effects that were carried out or are void. `charges`: ledger (empty for what policies
    contained, else the operator), device, and when, or `None` to strike it out. `waivers`: by their id, `None` for one
    that is over. `requests`: containments by hand that wait for a second person, as they are now.
    `users`: those contained by name, as they are now; one that is over is forgotten.
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


@dataclass(frozen=True, slots=True)
class GuardSnapshot:
    """What the guards have to remember over a restart; `charges` as in `StoreWrites`."""

    charges: tuple[tuple[str, str, float], ...] = ()
    waivers: tuple[Waiver, ...] = ()
    requests: tuple[ApprovalRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token as it is kept: never the token itself."""

    name: str
    digest: str  # SHA-256 in hex
    created_at: float
    scopes: tuple[Scope, ...] = ()
    expires_at: float | None = None  # Unix seconds; `None`: at no time

    def is_over(self, now: float) -> bool:
        """Whether it opens nothing any more at `now` (Unix seconds)."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """Whether commits go through; `trouble` is why not, `since` when it began (Unix seconds, 0 when fine)."""

    trouble: str = ""
    since: float = 0.0


class Store(Protocol):
    """Durable state. A commit that returned survives power loss; one that raised left nothing behind."""

    def commit(self, writes: StoreWrites) -> Awaitable[None]:
        """Keep all of `writes` in one transaction, together with whatever else waits (group commit), in call order.

        Queued by the call itself: what is decided and committed later may be decided before this is awaited.
        While the store cannot write (full, locked, read-only) this waits and tries again; `health` says why.
        Cancelling the wait does not take the writes back.
        """
        ...

    @property
    def health(self) -> StoreHealth:
        """Whether commits go through."""
        ...

    async def devices(self) -> Sequence[Device]:
        """Every device, for the start."""
        ...

    async def report(self, device_id: str) -> bytes | None:
        """The last full report, as the device sent it."""
        ...

    async def reports(self, after: str, limit: int) -> Sequence[tuple[str, bytes]]:
        """Device id and last full report in the order of ids, from the one that follows `after` on."""
        ...

    async def user_cases(self) -> Sequence[UserCase]:
        """Every user that is contained or being released, for the start."""
        ...

    async def guard_books(self) -> GuardSnapshot:
        """What the guards remember, for the start."""
        ...

    async def accepted_policies(self) -> str:
        """The version of the policies that were last put in force; empty where none were noted."""
        ...

    async def accept_policies(self, version: str) -> None:
        """Note the version of the policies that are in force from now on."""
        ...

    async def effects(self) -> Sequence[Effect]:
        """Every effect not carried out yet, oldest first."""
        ...

    async def keep_rules(self, device_id: str, case_id: str, rules: AccessRules, at: float) -> None:
        """Remember the rules a client had before the case; the first ones of a case stay."""
        ...

    async def kept_rules(self, device_id: str, case_id: str) -> AccessRules | None:
        """What `keep_rules` remembered; `None` if nothing was."""
        ...

    async def keep_subscriptions(
        self, device_id: str, case_id: str, cut: Sequence[SavedSubscription], at: float
    ) -> None:
        """Remember subscriptions that are about to be cut; one of the same topic replaces the earlier one."""
        ...

    async def kept_subscriptions(self, device_id: str, case_id: str) -> tuple[SavedSubscription, ...]:
        """What `keep_subscriptions` remembered."""
        ...

    async def forget_rules(self, device_id: str, case_id: str) -> None:
        """The case is over, and the rules and subscriptions are back."""
        ...

    async def audit(
        self,
        *,
        device_id: str | None = None,
        case_id: str | None = None,
        kind: AuditKind | None = None,
        alerts_only: bool = False,
        after: int = 0,
        limit: int = 200,
        newest_first: bool = True,
    ) -> Sequence[StoredAuditEntry]:
        """Lines of the record; `after` is a `seq` to go on from in the chosen direction (0: from its end)."""
        ...

    async def audit_head(self) -> ChainHead:
        """The end of the record's chain, to be noted elsewhere."""
        ...

    async def check_audit(self, noted: ChainHead | None = None) -> ChainVerification:
        """Look at every row of the record; `noted` is a head that has to be in it."""
        ...

    async def commands(
        self, *, device_id: str | None = None, state: str | None = None, limit: int = 200
    ) -> Sequence[CommandRecord]:
        """Commands, newest first."""
        ...

    async def command(self, command_id: str) -> CommandRecord | None:
        """One command."""
        ...

    async def dead_letters(self, *, device_id: str | None = None, limit: int = 100) -> Sequence[DeadLetter]:
        """Refused messages, newest first."""
        ...

    async def put_token(self, token: ApiToken) -> None:
        """Add a token, or replace the one of the same name."""
        ...

    async def tokens(self) -> Sequence[ApiToken]:
        """All tokens."""
        ...

    async def drop_token(self, name: str) -> bool:
        """Withdraw a token; whether there was one."""
        ...

    async def counts(self) -> dict[str, Any]:
        """Rows of each table and bytes of the file, for metrics."""
        ...

    async def prune(self) -> int:
        """Drop what is older than its retention; how many rows."""
        ...

    async def close(self) -> None:
        """Finish what is queued, then close."""
        ...
