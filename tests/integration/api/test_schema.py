"""The API against its own OpenAPI description: what it says is what it does, whatever it is asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from controller.api.commands import MAX_TTL, MIN_TTL
from schemas.durations import parse_duration
from tests.support.api import HEADERS
from tests.support.api_server import ApiServer

EXAMPLES = 15  # for each route
# Wrong tokens in such numbers are answered 429, and a parameter given twice counts once, as the last: both are told
# in docs/api.md and have tests of their own.
# What a schema cannot say (a rule that is in force, fields that belong together) is refused with 422 and words, as the
# tests of each route show.
NOT_HERE = [ignored_auth, negative_data_rejection, positive_data_acceptance]
QUIET = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def api_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """The description as served, of an API with two devices."""
    path: Path = tmp_path_factory.mktemp("schema") / "cordon.db"
    with ApiServer(path, {"edge-1": (23,), "edge-2": ()}) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/api/openapi.json")


# Fields that hold a duration, and those that belong together: how long, and with which, is no matter for a pattern.
_DURATIONS = ("for", "within", "soak", "timeout")
_TOGETHER = ("dashboard_user", "dashboard_password")


def _lasts_too_long(body: object) -> bool:
    given = [body.get(name) for name in _DURATIONS] if isinstance(body, dict) else []
    for text in given:
        if isinstance(text, str):
            try:
                if not MIN_TTL <= parse_duration(text) <= MAX_TTL:
                    return True
            except ValueError:
                return True
    return False


def _is_torn(body: object) -> bool:
    """Whether one of two that belong together is missing, or a window has nothing in it."""
    if not isinstance(body, dict):
        return False
    begin, dash, end = str(body.get("window")).partition("-")
    return len({body.get(name) is None for name in _TOGETHER}) > 1 or (bool(dash) and begin == end)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_description_holds(api_schema: OpenApiSchema, mode: schemathesis.GenerationMode) -> None:
    failures: list[str] = []
    asked = 0
    for found in api_schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @QUIET
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case[Any]) -> None:
            assume(not _lasts_too_long(case.body) and not _lasts_too_long(case.query) and not _is_torn(case.body))
            if isinstance(case.query.get("wait"), int | float):
                case.query["wait"] = min(case.query["wait"], 0.01)  # nothing is carried out here
            nonlocal asked
            asked += 1
            answer = case.call(headers=HEADERS)
            # A word of its own says that the shape was right, and what it asks for cannot be.
            means_nothing = answer.status_code == 422 and answer.json()["error"]["code"] != "invalid"
            more = [positive_data_acceptance] if means_nothing else []
            case.validate_response(answer, excluded_checks=[*NOT_HERE, *more])

        try:
            holds()
        except Unsatisfiable:
            continue  # nothing about this route can be wrong: it takes nothing
        except FailureGroup as group:  # all routes are told, not only the first
            failures += [f"{operation.label}: {one}" for one in group.exceptions]
    assert not failures, "\n".join(failures)
    assert asked > 2 * EXAMPLES
