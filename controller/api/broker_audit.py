"""Evaluation of the broker by policies."""

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
    """A dashboard login, to list the API keys, which needs one. Used for this audit and not stored."""

    user: _Secret
    password: Annotated[_Secret, Field(repr=False)]


class BrokerAuditBody(Body):
    dashboard: DashboardCredentials | None = None


class BrokerAuditView(View):
    """`policies` names the exact set of policies."""

    at: UtcTimestamp
    policies: str
    items: tuple[ExplanationView, ...]


@router.post("/audit", dependencies=[scope("policy")])
async def audit(broker: BrokerDep, wanted: BrokerAuditBody) -> BrokerAuditView:
    """Evaluates the broker. The login admin/public is tried at most once in ten minutes."""
    given = wanted.dashboard
    login = None if given is None else DashboardLogin(given.user, given.password)
    try:
        return BrokerAuditView.of(await broker.auditor.audit(login))
    except PolicyError as e:
        raise ApiError(422, "policy_mistake", str(e)) from e
