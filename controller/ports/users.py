"""What Cordon asks of the broker about users and certificates, and of the store about those that are contained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.domain.containment.plan import SubjectKind
from controller.domain.containment.users import UserCase
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker import PlannedStage, PlanParameters, Proof, SaveRules
from controller.ports.broker_tables import AccessRules


@dataclass(frozen=True, slots=True)
class MqttSession:
    """A session of somebody, connected or away, and the node that has it."""

    client_id: str
    username: str
    is_connected: bool
    node: str


class UserBroker(Protocol):
    """The broker's management side for users. Errors are `BrokerError` and its kinds; everything is safe to repeat."""

    def check(self, username: str) -> None:
        """Refuse what is no user name to act on.

        Raises:
            BrokerRefusedError: empty, too long, with control characters.
        """
        ...

    async def sessions(self, username: str) -> Sequence[MqttSession]:
        """Every session of the user, on all nodes."""
        ...

    async def named_by_certificate(self) -> frozenset[SubjectKind]:
        """As what the broker takes a certificate's common name: client id, user name, both, or nothing."""
        ...

    def planned(self, username: str, intent: PlanParameters) -> tuple[PlannedStage, ...]:
        """The plan that `carry_out` follows, as calls."""
        ...

    async def restrict(self, username: str, keep: SaveRules) -> Proof:
        """Leave every session of the user its own Cordon branch and nothing else."""
        ...

    async def isolate(self, username: str, keep: SaveRules, *, case: str, reason: str, until: float | None) -> Proof:
        """Ban the user, end every session it has, and find those that appear meanwhile."""
        ...

    async def end_isolation(self, username: str) -> Proof:
        """Lift Cordon's ban; the restriction below it stays."""
        ...

    async def release(self, username: str, kept: AccessRules) -> Proof:
        """Give the user its rules back and lift Cordon's ban."""
        ...

    async def missing(self, username: str, level: ContainmentLevel) -> Sequence[str]:
        """What is not as a containment at this level wants it, looking once and changing nothing."""
        ...


class UserStore(Protocol):
    """Contained users, kept in the transaction of the record's line about them (`Writes.users`)."""

    async def user_cases(self) -> Sequence[UserCase]:
        """All that are contained or being let out."""
        ...
