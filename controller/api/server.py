"""Builds the HTTP API over the running controller."""

from collections.abc import Sequence
from functools import cache
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute

from controller.api import (
    access,
    accounts,
    approvals,
    audit,
    broker,
    broker_audit,
    broker_setup,
    certificates,
    commands,
    controllers,
    crl,
    dead_letters,
    devices,
    docs,
    doctor,
    enrolment,
    exports,
    factors,
    fleet,
    guards,
    health,
    knowledge,
    me,
    metrics,
    notifications,
    policies,
    preview,
    quarantine,
    quarantine_plans,
    rollouts,
    sessions,
    updates,
    users,
    waivers,
)
from controller.api import tokens as token_routes
from controller.api.auth import FailedAttempts, presented_scopes
from controller.api.context import Services
from controller.api.errors import install
from controller.api.forwarding import LeaderForwarding, PeerAccess
from controller.api.metrics import ContainmentDurations, MetricsCollector
from controller.api.middleware import RequestLimitMiddleware
from controller.api.refusal_audit import RefusalAudit

BASE: Final = "/api/v1"
API_VERSION: Final = "1"
_RESOURCES: Final = (
    fleet,
    devices,
    exports,
    quarantine,
    quarantine_plans,
    guards,
    approvals,
    commands,
    policies,
    preview,
    knowledge,
    waivers,
    audit,
    dead_letters,
    access,
    broker,
    broker_audit,
    broker_setup,
    updates,
    rollouts,
    token_routes,
    accounts,
    sessions,
    me,
    users,
    certificates,
    enrolment,
    factors,
    notifications,
    doctor,
    controllers,
)


def create_api(
    services: Services,
    durations: ContainmentDurations,
    pages: Sequence[BaseRoute] = (),
    peers: PeerAccess | None = None,
) -> FastAPI:
    """Returns the API and the `pages` as an ASGI application; its only own state is failed logins and metrics.

    `peers`: other controllers of the store, one of which may lead.
    """
    app = FastAPI(
        title="Cordon",
        version=API_VERSION,
        description="Evaluates device posture, contains violations at the broker, repairs and releases.",
        openapi_url=None,  # FastAPI encodes it anew for each request; `docs` serves both forms as bytes
        docs_url=None,  # FastAPI's pages load scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.failures = FailedAttempts(services.fleet.clock.monotonic)
    app.state.refusals = RefusalAudit(services.fleet)
    app.state.sign_in_failures = FailedAttempts(services.fleet.clock.monotonic)
    app.state.enrolment_failures = FailedAttempts(services.fleet.clock.monotonic)
    app.state.metrics = MetricsCollector(services, durations)
    app.router.routes.extend((*_routes(), *pages))
    install(app)
    if peers is not None:
        app.add_middleware(LeaderForwarding, access=peers)
    app.add_middleware(RequestLimitMiddleware, scopes_of=presented_scopes)
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Returns all routes, which are stateless; building them takes most of the time of creating an application."""
    base = APIRouter(prefix=BASE)
    for resource in _RESOURCES:
        base.include_router(resource.router)
    base.include_router(token_routes.own_router)
    top = APIRouter()
    for router in (base, *(plain.router for plain in (health, metrics, docs, crl))):
        top.include_router(router)
    return tuple(top.routes)


def create_list_server(services: Services) -> FastAPI:
    """Returns an application with the revocation lists only, for a listener without TLS; it forwards nothing."""
    app = FastAPI(title="Cordon revocation lists", openapi_url=None, docs_url=None, redoc_url=None)
    app.state.services = services
    app.include_router(crl.router)
    install(app)
    app.add_middleware(RequestLimitMiddleware)
    return app
