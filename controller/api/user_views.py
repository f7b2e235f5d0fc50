"""Contained users and their sessions, as the API shows them."""

from typing import Annotated

from pydantic import Field

from controller.api.fields import OptionalTimestamp, UnreadNodes, UtcTimestamp, View
from controller.domain.containment.proof import ProofState, user_proof
from controller.domain.containment.users import UserCase
from controller.domain.policy.model import ContainmentLevel
from controller.service.containment.users import UserContainments
from controller.service.waiting import WaitEnd


class MqttSessionView(View):
    client_id: str
    connected: Annotated[bool, Field(validation_alias="is_connected")]
    node: str


class UserCaseView(View):
    """`proven`: the broker was read back and holds the decision; `left_open`: what the decision does not stop."""

    username: Annotated[str, Field(validation_alias="name")]
    case_id: str
    level: ContainmentLevel
    proven: Annotated[bool, Field(validation_alias="is_proven")]
    proven_at: OptionalTimestamp
    trouble: str
    unread: UnreadNodes
    left_open: tuple[str, ...]
    by: str
    reason: str
    opened_at: UtcTimestamp
    until: OptionalTimestamp


class UserDecisionView(UserCaseView):
    """The user's case at the end of the wait, and how far the decision is proven."""

    proof: ProofState
    waited: WaitEnd


def user_decision(users: UserContainments, decided: UserCase, waited: WaitEnd) -> UserDecisionView:
    """Returns the decision that left the user's case as `decided`, with its proof now."""
    case = users.cases.get(decided.name)
    proof = user_proof(decided, case)
    shown = decided if case is None or case.case_id != decided.case_id else case
    proven = proof.state is ProofState.PROVEN
    return UserDecisionView.of(shown, is_proven=proven, proof=proof.state, waited=waited)


class UserList(View):
    items: tuple[UserCaseView, ...]


class UserView(View):
    """`sessions` are at most 1,000; `total` counts all."""

    username: str
    case: UserCaseView | None
    sessions: tuple[MqttSessionView, ...]
    total: int
