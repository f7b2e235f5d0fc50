"""Tokens that are guessed or too weak: every operation of the description, with each scope and with none."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.schemas import OpenApiSchema

from controller.domain.audit_kinds import AuditKind
from controller.domain.scopes import Scope
from tests.support.api import HEADERS
from tests.support.api_server import ApiServer

QUIET = settings(max_examples=2, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
                 suppress_health_check=list(HealthCheck))  # fmt: skip
NOBODY = ("none", "guessed", "of another kind")


def _call(url: str, method: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), method=method)
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", HEADERS["Authorization"])
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API with a device."""
    with ApiServer(tmp_path_factory.mktemp("attack") / "cordon.db", {"edge-1": ()}) as running:
        yield running


@pytest.fixture(scope="module")
def described(server: ApiServer) -> OpenApiSchema:
    """The description as served."""
    return schemathesis.openapi.from_url(f"{server.url}/api/openapi.json", timeout=60)


@pytest.fixture(scope="module")
def tokens(server: ApiServer) -> dict[str, dict[str, str]]:
    """Headers by scope, and those of nobody."""
    made = {
        scope.value: _call(f"{server.url}/api/v1/tokens", "POST", {"name": f"only-{scope.value}", "scopes": [scope]})
        for scope in Scope
    }
    found = {name: {"Authorization": f"Bearer {one['token']}"} for name, one in made.items()}
    return {**found, "none": {}, "guessed": {"Authorization": "Bearer cordon_" + "A" * 43},
            "of another kind": {"Authorization": "Basic dGVzdHM6dGVzdHM="}}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("held", [*(scope.value for scope in Scope if scope is not Scope.ADMIN), *NOBODY])
def test_each_operation(described: OpenApiSchema, tokens: dict[str, dict[str, str]], held: str) -> None:
    asked = 0
    for found in described.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        wanted = [scope for one in operation.definition.raw.get("security", ()) for scope in one.get("HTTPBearer", ())]
        if not wanted or held in wanted:
            continue

        @QUIET
        @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
        def refused(case: schemathesis.Case[Any]) -> None:
            nonlocal asked
            asked += 1
            status = case.call(headers=tokens[held]).status_code
            assert status in ((401, 429) if held in NOBODY else (403,)), f"{case.method} {case.path}: {status}"

        refused()
    assert asked > 10


def test_guesses_are_slowed_and_stand_in_the_record(server: ApiServer) -> None:
    statuses = set()
    for number in range(40):
        request = urllib.request.Request(f"{server.url}/api/v1/devices")
        request.add_header("Authorization", f"Bearer cordon_{number:043d}")
        try:
            urllib.request.urlopen(request)
        except urllib.error.HTTPError as e:
            statuses.add(e.code)
            e.close()
    assert 429 in statuses
    assert statuses <= {401, 429}
    request = urllib.request.Request(f"{server.url}/api/v1/audit?alerts_only=true", headers=HEADERS)
    with urllib.request.urlopen(request) as answer:
        kinds = {line["kind"] for line in json.loads(answer.read())["items"]}
    assert AuditKind.API_TOKEN_GUESSING_DETECTED in kinds
