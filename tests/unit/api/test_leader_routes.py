"""Every route says who answers it, where several controllers share a store."""

from typing import Final

import pytest

from controller.api.leader_routes import LEADER, RELOAD, needs_leader
from tests.support.api import Api
from tests.support.api_routes import routes

# Answered from rows of the store, or from what every controller holds.
ANYWHERE: Final = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/static/{name}",
    "/api/docs",
    "/api/openapi.json",
    "/api/v1/approvals",
    "/api/v1/audit",
    "/api/v1/audit/head",
    "/api/v1/audit/verify",
    "/api/v1/certificates",
    "/api/v1/commands",
    "/api/v1/controllers",
    "/api/v1/commands/{command_id}/payload",
    "/api/v1/dead-letters",
    "/api/v1/devices",
    "/api/v1/devices/{device_id}",
    "/api/v1/devices/{device_id}/cases",
    "/api/v1/devices/{device_id}/explain",
    "/api/v1/devices/{device_id}/report",
    "/api/v1/doctor",
    "/api/v1/enrolment/root",
    "/api/v1/enrolment/tokens",
    "/api/v1/exports/devices",
    "/api/v1/fleet",
    "/api/v1/knowledge",
    "/api/v1/policies",
    "/api/v1/quarantine",
    "/api/v1/quarantine/{device_id}/receipt",
    "/api/v1/waivers",
    "/crl/{issuer}.crl",
    "/crl/{issuer}.pem",
)


def test_every_route_that_reads_is_answered_anywhere_or_by_the_leader(api: Api) -> None:
    reads = {path for path, methods, _ in routes(api) if "GET" in methods}
    assert sorted((*ANYWHERE, *LEADER)) == sorted(reads)


def test_what_changes_something_needs_the_leader(api: Api) -> None:
    for path, methods, _ in routes(api):
        for method in methods - {"GET"}:
            assert needs_leader(method, path) is (path != RELOAD)


@pytest.mark.parametrize("path", ANYWHERE)
def test_what_any_controller_answers_needs_none(path: str) -> None:
    assert not needs_leader("GET", path.replace("{", "").replace("}", ""))


@pytest.mark.parametrize("path", LEADER)
def test_what_the_leader_answers_needs_it(path: str) -> None:
    assert needs_leader("GET", path.replace("{", "").replace("}", ""))


def test_a_path_that_nobody_serves_needs_none() -> None:
    assert not needs_leader("GET", "/nowhere")
