"""What the acts and looks of one plan work with: the calls, what is wished, and what was found on the way."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.coalescing import CoalescedRequests
from controller.adapters.emqx.containment.verification import HOLD_SECONDS, NodeNameCache, ProofRecorder, until_holds
from controller.ports.broker import SavedSubscription, SaveRules, SaveSubscriptions, keep_no_subscriptions
from controller.ports.broker_tables import AccessRules
from controller.ports.clock import Clock


async def keep_no_rules(_rules: AccessRules) -> None:
    """For plans that write over no rules but Cordon's own."""


@dataclass(frozen=True, slots=True)
class BrokerContext:
    """The broker that all scenes play at, and what they share."""

    api: EmqxApi
    nodes: NodeNameCache
    clock: Clock
    shared: CoalescedRequests

    @classmethod
    def at(cls, api: EmqxApi, clock: Clock) -> "BrokerContext":
        """A broker of which nothing is known yet."""
        return cls(api, NodeNameCache(clock), clock, CoalescedRequests(api))


@dataclass(frozen=True, slots=True)
class ContainmentRequest:
    """What the decision gives a plan: the ban's words and end, who keeps what is written over, what was kept."""

    by: str = ""
    reason: str = ""
    until: float | None = None
    keep_rules: SaveRules = keep_no_rules
    keep_subscriptions: SaveSubscriptions = keep_no_subscriptions
    kept_rules: AccessRules = ()
    kept_subscriptions: tuple[SavedSubscription, ...] = ()


@dataclass(slots=True)
class RunState:
    """What acts found and later ones need. `restored`: the rules the client has once it is let out."""

    ban_is_outdated: bool = False
    restored: AccessRules = ()
    gave_rules_back: bool = False


@dataclass(frozen=True, slots=True)
class RunContext:
    """One subject's plan under way; `api` already notes its steps in `record`.

    `subject` is a client id or a user name: which of them, only the acts and looks know that are done with it.
    """

    api: EmqxApi
    nodes: NodeNameCache
    clock: Clock
    record: ProofRecorder
    subject: str
    deadline: float  # monotonic seconds
    wish: ContainmentRequest
    shared: CoalescedRequests
    found: RunState = field(default_factory=RunState)

    @classmethod
    def of(cls, place: BrokerContext, subject: str, wish: ContainmentRequest) -> "RunContext":
        """A scene with an empty record, of a subject that was checked."""
        record, clock = ProofRecorder(), place.clock
        deadline = clock.monotonic() + HOLD_SECONDS
        return cls(place.api.noting(record.add), place.nodes, clock, record, subject, deadline, wish, place.shared)

    def urgently(self) -> "RunContext":
        """The same, its calls before those that are not urgent."""
        return replace(self, api=self.api.urgently())

    async def until_holds(
        self, look: Callable[[], Awaitable[list[str]]], repair: Callable[[], Awaitable[None]]
    ) -> list[str]:
        """Look and repair until nothing is missing or the sequence's time is up; what is missing in the end."""
        return await until_holds(self.clock, self.deadline, look, repair)
