"""Users of a broker in memory: sessions, rules and bans, and proofs that fail."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controller.adapters.emqx.client.paths import subject_segment
from controller.adapters.emqx.containment.runner import describe
from controller.domain.containment.plan import Subject, SubjectKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import (
    ContainmentBroker,
    MqttSession,
    PlannedStage,
    PlanParameters,
    Proof,
    ProofStep,
    SavedSubscription,
    SaveRules,
    SaveSubscriptions,
    save_no_subscriptions,
)
from controller.ports.broker_tables import AccessRules, restriction
from controller.ports.errors import BrokerError

USER_RESTRICTION = restriction("${clientid}")


@dataclass(slots=True)
class MemoryUsers(ContainmentBroker):
    """`at`: the time of every disconnect, in Unix seconds."""

    at: float = 0.0
    rules: dict[str, AccessRules] = field(default_factory=dict)
    bans: dict[str, str] = field(default_factory=dict)  # user -> case
    live: dict[str, list[str]] = field(default_factory=dict)  # user -> client ids
    named: frozenset[SubjectKind] = frozenset({SubjectKind.CLIENT})
    misses: list[str] = field(default_factory=list)  # each makes one proof fail
    left_open: tuple[str, ...] = ()  # what no proof stops
    fails: list[BrokerError] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def check(self, subject: Subject) -> None:
        subject_segment(subject)

    async def sessions(self, username: str) -> Sequence[MqttSession]:
        return [MqttSession(one, username, True, "n1") for one in self.live.get(username, [])]

    async def named_by_certificate(self) -> frozenset[SubjectKind]:
        return self.named

    def planned(self, subject: Subject, parameters: PlanParameters) -> tuple[PlannedStage, ...]:
        return describe(subject, parameters)

    async def restrict(
        self,
        subject: Subject,
        save_rules: SaveRules,
        *,
        save_subscriptions: SaveSubscriptions = save_no_subscriptions,
        kick: bool = False,
        violates: bool = False,
    ) -> Proof:
        del save_subscriptions, kick, violates
        username = _username(subject)
        self._call(f"restrict {username}")
        if self.rules.get(username, ()) != USER_RESTRICTION:
            await save_rules(self.rules.get(username, ()))
            self.rules[username] = USER_RESTRICTION
        return self._proof()

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
        del reason, clear_retained, violates
        username = _username(subject)
        self._call(f"isolate {username} until {until}")
        self.bans[username] = case
        self.live.pop(username, None)
        if self.rules.get(username, ()) != USER_RESTRICTION:
            await save_rules(self.rules.get(username, ()))
            self.rules[username] = USER_RESTRICTION
        return self._proof()

    async def end_isolation(self, subject: Subject, save_rules: SaveRules) -> Proof:
        del save_rules
        username = _username(subject)
        self._call(f"end {username}")
        self.bans.pop(username, None)
        return self._proof()

    async def release(
        self, subject: Subject, rules: AccessRules, subscriptions: tuple[SavedSubscription, ...] = ()
    ) -> Proof:
        del subscriptions
        username = _username(subject)
        self._call(f"release {username}")
        self.bans.pop(username, None)
        self.rules[username] = rules
        return self._proof()

    async def missing(self, subject: Subject, level: ContainmentLevel) -> Sequence[str]:
        if self.fails:
            raise self.fails.pop(0)
        missing, username = [], _username(subject)
        if level is ContainmentLevel.ISOLATED and (username not in self.bans or self.live.get(username)):
            missing.append("sessions of the user are left, or no ban")
        if level is not ContainmentLevel.NONE and self.rules.get(username) != USER_RESTRICTION:
            missing.append("the user's rules are not the restriction's")
        return missing

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.fails:
            raise self.fails.pop(0)

    def _proof(self) -> Proof:
        step = ProofStep("ban", "POST /banned", "memory", "200", 0.001)
        if self.misses:
            return Proof(False, self.misses.pop(0), (step,))
        return Proof(True, "", (step,), cut_at=self.at, left_open=self.left_open)


def _username(subject: Subject) -> str:
    assert subject.kind is SubjectKind.USER
    return subject.name
