"""What the steps of a running plan share: the API with its recorder, the request, and the state found on the way."""

from dataclasses import dataclass, field, replace
from typing import Final

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.cluster import ClusterNodes
from controller.adapters.emqx.client.coalescing import CoalescedRequests
from controller.adapters.emqx.client.models import ClientRow
from controller.adapters.emqx.client.prefixes import PrefixesInUse
from controller.adapters.emqx.client.slots import CallRank
from controller.domain.containment.plan import Subject
from controller.ports.broker import (
    PlanParameters,
    Proof,
    ProofStep,
    SavedSubscription,
    SaveRules,
    SaveSubscriptions,
    save_no_subscriptions,
)
from controller.ports.broker_tables import BAN_MARK, AccessRules, UnreadNode
from controller.ports.clock import Clock
from schemas.base import MAX_NAME, clean_text

MAX_REASON: Final = MAX_NAME  # characters of a ban's reason
MAX_STEPS: Final = 500  # of one proof


@dataclass(slots=True)
class Findings:
    """What checks found: what is not as wanted, and the running nodes that could not be read, with the reason."""

    missing: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def are_none(self) -> bool:
        return not self.missing and not self.unread

    def add(self, other: "Findings") -> None:
        self.missing += other.missing
        self.unread |= other.unread


@dataclass(slots=True)
class ProofRecorder:
    """Collects the steps of one proof; `cut_at` and `ban_until` as in `Proof`."""

    steps: list[ProofStep] = field(default_factory=list)
    cut_at: float = 0.0
    ban_until: float | None = None
    left_open: list[str] = field(default_factory=list)

    def leave_open(self, text: str) -> None:
        """Notes what the containment does not stop."""
        if text not in self.left_open:
            self.left_open.append(text)
            self.observe("left open", text)

    def add(self, step: ProofStep) -> None:
        """Adds a step; steps above `MAX_STEPS` are dropped."""
        if len(self.steps) < MAX_STEPS:
            self.steps.append(step)

    def observe(self, what: str, answer: str, node: str = "") -> None:
        """Adds what was seen, rather than what was called."""
        self.add(ProofStep(what=what, call="", node=node, answer=answer, seconds=0.0))

    def proof(self, findings: Findings) -> Proof:
        """The proof; it holds if nothing is missing and every running node was read."""
        return Proof(
            holds=findings.are_none,
            missing="; ".join(dict.fromkeys(findings.missing)),
            steps=tuple(self.steps),
            cut_at=self.cut_at,
            ban_until=self.ban_until,
            left_open=tuple(self.left_open),
            unread=tuple(UnreadNode(node, reason) for node, reason in sorted(findings.unread.items())),
        )


async def save_no_rules(_rules: AccessRules) -> None:
    """For plans that are only shown."""


@dataclass(frozen=True, slots=True)
class ContainmentRequest:
    """What the decision gives a plan: the ban's row, where replaced rows are saved, and what was saved before."""

    by: str = ""
    reason: str = ""
    until: float | None = None
    save_rules: SaveRules = save_no_rules
    save_subscriptions: SaveSubscriptions = save_no_subscriptions
    saved_rules: AccessRules = ()
    saved_subscriptions: tuple[SavedSubscription, ...] = ()
    rank: CallRank = CallRank.URGENT  # of what cuts

    @classmethod
    def of(cls, parameters: PlanParameters) -> "ContainmentRequest":
        """Bounds the ban's texts."""
        return cls(
            by=clean_text(f"{BAN_MARK}{parameters.case}", MAX_NAME),
            reason=clean_text(parameters.reason, MAX_REASON),
            until=parameters.until,
            saved_rules=parameters.kept,
            saved_subscriptions=parameters.subscriptions,
        )


@dataclass(slots=True)
class RunState:
    """What steps found and later steps need. `restored_rules`: the rules the subject has once it is released."""

    ban_is_outdated: bool = False
    restored_rules: AccessRules = ()
    rules_were_restored: bool = False
    client: ClientRow | None = None


@dataclass(frozen=True, slots=True)
class BrokerContext:
    """The broker of all plans, and what they share; every call of theirs has the short time limits."""

    api: EmqxApi
    cluster: ClusterNodes
    prefixes: PrefixesInUse
    clock: Clock
    shared: CoalescedRequests

    @classmethod
    def create(cls, api: EmqxApi, clock: Clock) -> "BrokerContext":
        prompt = api.prompt()
        return cls(prompt, ClusterNodes(api, clock), PrefixesInUse(api, clock), clock, CoalescedRequests(prompt))


@dataclass(frozen=True, slots=True)
class RunContext:
    """One subject's running plan; `api` records its exchanges in `record`."""

    api: EmqxApi
    cluster: ClusterNodes
    prefixes: PrefixesInUse
    clock: Clock
    shared: CoalescedRequests
    record: ProofRecorder
    subject: Subject
    request: ContainmentRequest
    deadline: float  # monotonic seconds after which nothing is read back again
    state: RunState = field(default_factory=RunState)

    @classmethod
    def start(
        cls, broker: BrokerContext, subject: Subject, request: ContainmentRequest, seconds: float
    ) -> "RunContext":
        """A context with an empty record. `seconds`: as long as the plan may read back again."""
        record, clock = ProofRecorder(), broker.clock
        api, deadline = broker.api.with_listener(record.add), clock.monotonic() + seconds
        return cls(api, broker.cluster, broker.prefixes, clock, broker.shared, record, subject, request, deadline)

    def with_priority(self) -> "RunContext":
        return replace(self, api=self.api.with_priority(self.request.rank))
