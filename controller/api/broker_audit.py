"""The broker judged by policies: every rule with its result, its facts and what to do."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from controller.api.auth import scope
from controller.api.context import BrokerDep
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, UtcTimestamp, View
from controller.api.policies import ExplanationView
from controller.ports.inspection import DashboardLogin
from controller.ports.policies import PolicyError

_Secret = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]

router = APIRouter(prefix="/broker", tags=["broker"], responses=problems(401, 403, 422, 429, 502, 503))


class DashboardCredentials(Body):
    """For what EMQX tells no API key: who else has one. Used for this audit and not kept."""

    user: _Secret
    password: Annotated[_Secret, Field(repr=False)]


class BrokerAuditBody(Body):
    dashboard: DashboardCredentials | None = None


class BrokerAuditView(View):
    """`policies` names the exact set that judged."""

    at: UtcTimestamp
    policies: str
    items: tuple[ExplanationView, ...]


@router.post("/audit", dependencies=[scope("policy")])
async def audit(broker: BrokerDep, wanted: BrokerAuditBody) -> BrokerAuditView:
    """Look at the broker now and judge it; admin/public is tried once, at most every ten minutes."""
    given = wanted.dashboard
    login = None if given is None else DashboardLogin(given.user, given.password)
    try:
        return BrokerAuditView.of(await broker.auditor.audit(login))
    except PolicyError as e:
        raise ApiError(422, "policy_mistake", str(e)) from e
