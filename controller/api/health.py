"""Liveness and readiness, for supervisors and load balancers, without a token."""

from typing import Final, Literal

from fastapi import APIRouter, Response

from controller.api.auth import PresentedCallerDep, public
from controller.api.context import Services, ServicesDep
from controller.api.fields import View
from controller.domain.scopes import Scope
from controller.ports.errors import StoreError

MIN_RECENT: Final = 15.0  # seconds since the broker was last read
_PASSES: Final = 3  # missed comparisons

router = APIRouter(tags=["health"], dependencies=[public("supervisors: whether it lives, no device is named")])


class LivenessView(View):
    status: Literal["ok"] = "ok"


class ReadinessView(View):
    """`reasons`: why it is not ready; `warnings`: what is wrong although it may be ready.

    Both name addresses and paths, so only callers with the scope `read` get them.
    """

    ready: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


def not_ready_reasons(services: Services, now: float) -> tuple[str, ...]:
    """Returns why the controller is not ready at `now` (Unix seconds)."""
    reasons = []
    link, health = services.messages.state, services.store.health
    if not link.connected:
        reasons.append(f"MQTT link is down: {link.detail or 'not connected yet'}")
    if services.leases.lease_left() <= 0:
        reasons.append("the lease of this controller is over: others may take over, nothing begins at the broker")
    if health.trouble:
        reasons.append(f"store cannot write: {health.trouble}")
    reasons += _broker_reasons(services, now)
    if not services.fleet.policies.rules:
        reasons.append("no policies are loaded")
    if services.policies.activation.trouble:
        reasons.append(services.policies.activation.trouble)
    return tuple(reasons)


def _broker_reasons(services: Services, now: float) -> list[str]:
    if services.leader is None:  # another controller compares; this one asks the nodes, for what it carries out
        return [] if services.nodes.running else ["broker API has not been read yet, or no node answers"]
    reconciler = services.leader.broker.reconciler
    recent = max(MIN_RECENT, _PASSES * services.settings.reconcile.every)
    if reconciler.trouble:
        return [f"broker API: {reconciler.trouble}"]
    if now - (reconciler.last_pass or services.started_at) > recent or reconciler.last_pass is None:
        return ["broker API has not been read yet" if reconciler.last_pass is None else "broker API is slow"]
    return []


def warnings(services: Services) -> tuple[str, ...]:
    """Returns what does not hold although the controller is ready."""
    unread = [f"a running node of the broker cannot be read: {one}" for one in services.nodes.unread]
    statuses = services.own_certificates.statuses.values()
    policies, known = services.fleet.policies, services.policies.knowledge.present
    old = sum(1 for one in known.knowledge.entries if known.is_too_old(one) and policies.rules_resting_on(one))
    aged = [f"{old} entries of the knowledge that rules rest on are too old: import newer knowledge"] if old else []
    unused = [services.policies.knowledge.unused] if services.policies.knowledge.unused else []
    others = services.controllers.warnings()
    different = [services.policies.activation.warning] if services.policies.activation.warning else []
    return (*unread, *(one.warning for one in statuses if one.warning), *aged, *unused, *different, *others)


@router.get("/healthz")
async def healthz() -> LivenessView:
    """Responds while the process runs."""
    return LivenessView()


@router.get("/readyz", responses={503: {"model": ReadinessView, "description": "not ready"}})
async def readyz(services: ServicesDep, response: Response, caller: PresentedCallerDep) -> ReadinessView:
    """Ready: MQTT is connected, the store is writable, the broker was read recently, policies are loaded."""
    reasons = not_ready_reasons(services, services.fleet.clock.now())
    response.status_code = 503 if reasons else 200
    if caller is None or Scope.READ not in caller.scopes:
        return ReadinessView(ready=not reasons, reasons=(), warnings=())
    return ReadinessView(ready=not reasons, reasons=reasons, warnings=await all_warnings(services))


async def all_warnings(services: Services) -> tuple[str, ...]:
    """Returns `warnings`, and what the store tells of accounts and of itself."""
    try:
        of_leader = () if services.leader is None else await services.leader.accounts.warnings()
        return (*warnings(services), *of_leader, *await services.store.warnings())
    except StoreError:
        return warnings(services)  # the store is among the reasons
