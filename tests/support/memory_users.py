"""Users at a broker in memory, with knobs: sessions that are there, rules, a ban; proofs that miss."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controller.adapters.emqx.client.requests import user_segment
from controller.adapters.emqx.users.actions import USER_RESTRICTION
from controller.adapters.emqx.users.describe import described_user
from controller.domain.containment.plan import SubjectKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import PlannedStage, PlanParameters, Proof, ProofStep, SaveRules
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import BrokerError
from controller.ports.users import MqttSession, UserBroker


@dataclass(slots=True)
class MemoryUsers(UserBroker):
    """`at` is the wall clock of every cut."""

    at: float = 0.0
    rules: dict[str, AccessRules] = field(default_factory=dict)
    bans: dict[str, str] = field(default_factory=dict)  # user -> case
    live: dict[str, list[str]] = field(default_factory=dict)  # user -> client ids
    named: frozenset[SubjectKind] = frozenset({SubjectKind.CLIENT})
    misses: list[str] = field(default_factory=list)  # each makes one proof fail
    fails: list[BrokerError] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def check(self, username: str) -> None:
        user_segment(username)

    async def sessions(self, username: str) -> Sequence[MqttSession]:
        return [MqttSession(one, username, True, "n1") for one in self.live.get(username, [])]

    async def named_by_certificate(self) -> frozenset[SubjectKind]:
        return self.named

    def planned(self, username: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
        return described_user(username, intent)

    async def restrict(self, username: str, keep: SaveRules) -> Proof:
        self._call(f"restrict {username}")
        if self.rules.get(username, ()) != USER_RESTRICTION:
            await keep(self.rules.get(username, ()))
            self.rules[username] = USER_RESTRICTION
        return self._proof()

    async def isolate(self, username: str, keep: SaveRules, *, case: str, reason: str, until: float | None) -> Proof:
        self._call(f"isolate {username} until {until}")
        self.bans[username] = case
        self.live.pop(username, None)
        if self.rules.get(username, ()) != USER_RESTRICTION:
            await keep(self.rules.get(username, ()))
            self.rules[username] = USER_RESTRICTION
        return self._proof()

    async def end_isolation(self, username: str) -> Proof:
        self._call(f"end {username}")
        self.bans.pop(username, None)
        return self._proof()

    async def release(self, username: str, kept: AccessRules) -> Proof:
        self._call(f"release {username}")
        self.bans.pop(username, None)
        self.rules[username] = kept
        return self._proof()

    async def missing(self, username: str, level: ContainmentLevel) -> Sequence[str]:
        if self.fails:
            raise self.fails.pop(0)
        missing = []
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
        return Proof(True, "", (step,), cut_at=self.at)
