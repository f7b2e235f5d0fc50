"""A broker in memory: all its ports over the same tables, and faults."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.adapters.emqx.client.paths import subject_segment
from controller.adapters.emqx.containment.runner import describe
from controller.domain.broker.access import CompiledRules
from controller.domain.broker.inspection import BrokerInspection
from controller.domain.containment.plan import Subject, SubjectKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.access import AccessBroker
from controller.ports.broker import (
    AuthStrength,
    MqttSession,
    PlannedStage,
    PlanParameters,
    Proof,
    ProofStep,
    SavedSubscription,
    SaveRules,
    SaveSubscriptions,
    save_no_subscriptions,
    was_connected,
)
from controller.ports.broker_setup import BrokerSetup, DesiredSetup, SavePreviousSetup, SettingChange, SetupPlan
from controller.ports.broker_tables import (
    AccessRules,
    Ban,
    ClusterReading,
    SubjectFilter,
    TableCounts,
    UnreadNode,
    restriction,
)
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError
from controller.ports.inspection import DashboardLogin, NodeListeners

_INSPECTED_AT = 1_800_000_000.0


@dataclass(slots=True)
class MemoryBroker:
    """A broker's tables. `fails`: raised one per call. `grades`: how each client was authenticated."""

    clock: Clock
    bans_held: dict[str, Ban] = field(default_factory=dict)
    rules_held: dict[str, AccessRules] = field(default_factory=dict)
    grades: dict[str, AuthStrength] = field(default_factory=dict)
    claims_username: set[str] = field(default_factory=set)  # clients that proved no user name
    online: set[str] = field(default_factory=set)  # client ids that are connected, as far as a test asks
    foreign_sessions: set[str] = field(default_factory=set)  # client ids of other applications
    is_open: bool = False  # accepts unauthenticated clients, so that the age of a session matters
    connected: dict[str, float] = field(default_factory=dict)  # since, in Unix seconds; absent: always
    fails: list[BrokerError] = field(default_factory=list)
    misses: int = 0  # how many proofs fail
    unread: tuple[UnreadNode, ...] = ()  # running nodes that no proof can read
    calls: list[str] = field(default_factory=list)
    can_list_retained: bool = True
    options: list[tuple[str, bool]] = field(default_factory=list)  # of each containment

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.fails:
            raise self.fails.pop(0)

    def _proof(self, what: str) -> Proof:
        step = ProofStep(what, what.upper(), "memory", "200", 0.001)
        if self.misses:
            self.misses -= 1
            return Proof(False, "read back and not there", (step,))
        return Proof(not self.unread, "", (step,), cut_at=self.clock.now(), unread=self.unread)

    def check(self, subject: Subject) -> None:
        subject_segment(subject)

    def planned(self, subject: Subject, parameters: PlanParameters) -> tuple[PlannedStage, ...]:
        return describe(subject, parameters)

    async def missing(self, subject: Subject, level: ContainmentLevel) -> Sequence[str]:
        raise NotImplementedError

    async def sessions(self, username: str) -> Sequence[MqttSession]:
        raise NotImplementedError

    async def named_by_certificate(self) -> frozenset[SubjectKind]:
        raise NotImplementedError

    async def restrict(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        save_subscriptions: SaveSubscriptions = save_no_subscriptions,
        kick: bool = False,
        violates: bool = False,
    ) -> Proof:
        del save_subscriptions, violates
        client_id = _client_id(subject)
        self.options.append(("kick", kick))
        self._call(f"restrict {client_id}")
        if self.rules_held.get(client_id) != restriction(client_id):
            await save_rules(self.rules_held.get(client_id, ()))
        self.rules_held[client_id] = restriction(client_id)
        return self._proof("restrict")

    async def isolate(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        case: str,
        reason: str,
        until: float | None,
        clear_retained: bool = False,
        violates: bool = False,
    ) -> Proof:
        del violates
        client_id = _client_id(subject)
        self.options.append(("clear_retained", clear_retained))
        self._call(f"isolate {client_id}")
        ban = Ban("clientid", client_id, f"cordon/{case}", reason, self.clock.now(), until)
        self.bans_held.setdefault(client_id, ban)
        if self.rules_held.get(client_id) != restriction(client_id):
            await save_rules(self.rules_held.get(client_id, ()))
        self.rules_held[client_id] = restriction(client_id)
        return self._proof("isolate")

    async def end_isolation(self, subject: Subject, save_rules: SaveRules) -> Proof:
        client_id = _client_id(subject)
        self._call(f"end_isolation {client_id}")
        if self.rules_held.get(client_id) != restriction(client_id):
            await save_rules(self.rules_held.get(client_id, ()))
        self.rules_held[client_id] = restriction(client_id)
        self._lift(client_id)
        return self._proof("end_isolation")

    async def release(
        self, subject: Subject, rules: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        del subscriptions
        client_id = _client_id(subject)
        self._call(f"release {client_id}")
        self._lift(client_id)
        if self.rules_held.get(client_id) == restriction(client_id):
            del self.rules_held[client_id]
            if rules:
                self.rules_held[client_id] = rules
        return self._proof("release")

    def _lift(self, client_id: str) -> None:
        ban = self.bans_held.get(client_id)
        if ban is not None and ban.is_ours:
            del self.bans_held[client_id]

    async def auth_strength(self, client_id: str, *, heard_at: float | None = None) -> AuthStrength:
        self._call(f"grade {client_id}")
        return self.strength_at(client_id, heard_at)

    def strength_at(self, client_id: str, heard_at: float | None) -> AuthStrength:
        """The authentication of the sender at that time."""
        grade = self.grades.get(client_id, AuthStrength.PROVEN)
        if heard_at is None or not self.is_open or grade not in (AuthStrength.PROVEN, AuthStrength.KNOWN):
            return grade
        return grade if was_connected(self.connected.get(client_id, 0.0), heard_at) else AuthStrength.LATER

    async def is_connected(self, client_id: str) -> bool:
        self._call(f"connected {client_id}")
        return client_id in self.online

    async def has_session(self, client_id: str) -> bool:
        self._call(f"session {client_id}")
        return client_id in self.foreign_sessions

    async def proves_username(self, client_id: str) -> bool:
        return client_id not in self.claims_username

    async def allows_unauthenticated(self) -> bool:
        return self.is_open

    async def lists_retained(self) -> bool:
        return self.can_list_retained

    async def bans(self) -> AsyncIterator[Ban]:
        self._call("bans")
        for ban in list(self.bans_held.values()):
            yield ban

    async def client_rules(self) -> AsyncIterator[tuple[str, AccessRules]]:
        for client_id, rules in list(self.rules_held.items()):
            yield client_id, rules

    async def ping(self) -> Sequence[tuple[str, bool, str]]:
        return [("memory", True, "5.8.9")]


def _client_id(subject: Subject) -> str:
    assert subject.kind is SubjectKind.CLIENT
    return subject.name


@dataclass(slots=True)
class MemoryTables:
    """The tables of a `MemoryBroker` as its nodes list them; `missing` and `skipped` are rows that a node lacks.

    `skipped` rows are only omitted from listings, as by a page that moved during the read.
    """

    broker: MemoryBroker
    addresses: tuple[str, ...] = ("memory",)
    missing: dict[str, set[str]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    unread: tuple[UnreadNode, ...] = ()

    @property
    def prefixes(self) -> frozenset[str]:
        return frozenset()

    async def read_prefixes(self) -> str:
        return ""

    async def cluster(self) -> ClusterReading:
        names = {address: f"emqx@{address}" for address in self.addresses}
        running = (*names.values(), *(one.node for one in self.unread))
        return ClusterReading(self.addresses, names, running, self.unread, {}, {})

    def _lacks(self, node: str, client_id: str) -> bool:
        return client_id in self.missing.get(node, set())

    async def bans(self, node: str, wanted: SubjectFilter) -> AsyncIterator[Ban]:
        async for ban in self.broker.bans():
            if ban.kind != "clientid" or self._lacks(node, ban.who) or ban.who in self.skipped:
                continue
            if ban.is_ours or wanted(ban.who):
                yield ban

    async def rules(self, node: str, wanted: SubjectFilter) -> AsyncIterator[tuple[str, AccessRules]]:
        async for client_id, rules in self.broker.client_rules():
            if wanted(client_id) and not self._lacks(node, client_id) and client_id not in self.skipped:
                yield client_id, rules

    async def counts(self, node: str) -> TableCounts:
        held = (self.broker.bans_held, self.broker.rules_held)
        bans, rules = (sum(not self._lacks(node, one) for one in table) for table in held)
        return TableCounts(bans, rules)

    async def ban_of(self, node: str, client_id: str) -> Ban | None:
        return None if self._lacks(node, client_id) else self.broker.bans_held.get(client_id)

    async def rules_of(self, node: str, client_id: str) -> AccessRules | None:
        return None if self._lacks(node, client_id) else self.broker.rules_held.get(client_id)

    async def write_rules(self, node: str, client_id: str, rules: AccessRules) -> None:
        self.broker.calls.append(f"write rules {client_id} at {node}")
        self.missing.get(node, set()).discard(client_id)
        self.broker.rules_held[client_id] = rules


@dataclass(slots=True)
class MemoryInspector:
    """Responds with `answers` by name; without an answer it does not respond."""

    answers: dict[str, Any] = field(default_factory=dict)
    logins: list[DashboardLogin | None] = field(default_factory=list)

    async def versions(self) -> Sequence[str]:
        if "nodes" not in self.answers:
            raise BrokerError("no answer")
        return sorted({row["version"] for row in self.answers["nodes"]})

    async def endpoints(self) -> Sequence[NodeListeners]:
        """The nodes of the answer `nodes`; `listeners` has the rows of each by its name, where it says."""
        listeners = self.answers.get("listeners", {})
        names = [row["node"] for row in self.answers.get("nodes", ())]
        return [
            NodeListeners(name, f"http://{name.partition('@')[2]}:18083", listeners[name])
            if name in listeners
            else NodeListeners(name, "", None, "no answer in time")
            for name in names
        ]

    async def inspect(self, login: DashboardLogin | None) -> BrokerInspection:
        self.logins.append(login)
        return self._inspection()

    def _inspection(self) -> BrokerInspection:
        return BrokerInspection(dict(self.answers), {}, _INSPECTED_AT, 1000, ("http://10.0.0.1:18083",))


@dataclass(slots=True)
class MemoryAccess(AccessBroker):
    """Access rules in the tables of a `MemoryBroker`."""

    broker: MemoryBroker

    async def rules(self, client_id: str) -> AccessRules | None:
        return self.broker.rules_held.get(client_id)

    async def rules_of_all(self, wanted: Collection[str]) -> Mapping[str, AccessRules]:
        return {client_id: rules for client_id, rules in self.broker.rules_held.items() if client_id in wanted}

    async def add(self, client_ids: Sequence[str], rules: AccessRules) -> bool:
        if any(client_id in self.broker.rules_held for client_id in client_ids):
            return False
        self.broker.rules_held.update(dict.fromkeys(client_ids, rules))
        return True

    async def write(self, client_id: str, rules: AccessRules | None) -> None:
        if rules is None:
            self.broker.rules_held.pop(client_id, None)
        else:
            self.broker.rules_held[client_id] = rules

    async def settle(self, client_id: str, rules: CompiledRules) -> None:
        """Does nothing: sessions have no subscriptions here."""


@dataclass(slots=True)
class MemorySetup(BrokerSetup):
    """The broker's settings; `lacks` are the changes of a setup."""

    lacks: list[SettingChange] = field(default_factory=list)

    async def changes(self, wanted: DesiredSetup) -> Sequence[SettingChange]:
        return self.lacks

    async def plan(self, wanted: DesiredSetup) -> SetupPlan:
        return SetupPlan(tuple(self.lacks), ())

    async def apply(
        self, wanted: DesiredSetup, save: SavePreviousSetup, *, safe_only: bool = False
    ) -> Sequence[SettingChange]:
        made = [change for change in self.lacks if not (safe_only and change.danger)]
        if made:
            await save("{}")
        self.lacks = [change for change in self.lacks if change not in made]
        return made

    async def plan_undo(self, before: str, others: Sequence[str] = ()) -> Sequence[SettingChange]:
        raise NotImplementedError

    async def undo(self, before: str, others: Sequence[str] = ()) -> Sequence[str]:
        raise NotImplementedError
