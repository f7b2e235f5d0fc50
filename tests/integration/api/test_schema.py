"""The API against its own OpenAPI description: what it allows is accepted, and answers are as described."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from schemas.durations import parse_duration
from tests.support.api import HEADERS
from tests.support.api_server import ApiServer

pytestmark = pytest.mark.slow

# Wrong tokens in such numbers are answered 429, and a parameter given twice counts once, as the last: both are in
# docs/api.md and have tests of their own.
NOT_HERE = [ignored_auth, negative_data_rejection]
# A schema cannot say these; a request that it allows may be refused for them, and for nothing else:
# how long a duration is, that a window is not empty, that a page is continued after a key that it gave or an entry that
# can be, that no text has characters that cannot be stored,
REFUSED_FIELDS = re.compile(
    r"(body|query)\.(for|within|soak|timeout|window)\b|a text has the character NUL"
    r"|query\.after: (is not `next`|.* is not an audit line)"
)
# and what is wrong inside a text that has a language of its own.
REFUSED_TEXTS = {
    ("POST /api/v1/access/apply", "template_mistake"),
    ("POST /api/v1/access/plan", "template_mistake"),
    ("POST /api/v1/users/certificates/contain", "invalid_client_id"),
    ("POST /api/v1/sessions", "two_credentials"),  # the requests of this test have a token
}
DURATIONS = ("for", "within", "soak", "timeout")


@pytest.fixture(scope="module")
def api_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """The description as served, of an API with two devices."""
    path: Path = tmp_path_factory.mktemp("schema") / "cordon.db"
    with ApiServer(path, {"edge-1": (23,), "edge-2": ()}) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/api/openapi.json", timeout=60)


def has_impossible_value(fields: object) -> bool:
    """Whether these fields of a body or query have a value that every route refuses, although the schema allows it."""
    if not isinstance(fields, dict):
        return False
    window = fields.get("window")
    begin, dash, end = window.partition("-") if isinstance(window, str) else ("", "", "")
    return (bool(dash) and begin == end) or any(_is_too_long(fields.get(name)) for name in DURATIONS)


def _is_too_long(text: object) -> bool:
    if not isinstance(text, str) or not re.fullmatch(r"\d+(ms|[smhd])", text):
        return False  # not as the schema has it
    try:
        parse_duration(text)
    except ValueError:
        return True
    return False


def is_expected_refusal(label: str, error: dict[str, Any]) -> bool:
    """Whether a request that the schema allows may be refused so."""
    if error["code"] == "invalid":
        return all(map(REFUSED_FIELDS.match, error["message"].split("; ")))
    return (label, error["code"]) in REFUSED_TEXTS


def check(case: schemathesis.Case[Any], label: str) -> None:
    """Sends a request and compares the answer with the description."""
    if isinstance(case.query.get("wait"), int | float):
        case.query["wait"] = min(case.query["wait"], 0.01)  # nothing is carried out here
    answer = case.call(headers=HEADERS)
    if has_impossible_value(case.body) or has_impossible_value(case.query):
        # Without a valid token, or with one where only a session may act, nothing else is looked at.
        assert answer.status_code in (401, 403, 422, 429), (
            f"{label}: {answer.status_code} for {case.body!r} {case.query!r}"
        )
    is_expected = answer.status_code in (400, 422) and is_expected_refusal(label, answer.json()["error"])
    more = [positive_data_acceptance] if is_expected else []
    case.validate_response(answer, excluded_checks=[*NOT_HERE, *more])


def run(operation: APIOperation[Any, Any, Any, Any], mode: schemathesis.GenerationMode, quiet: settings) -> int:
    """Sends the requests to one operation; returns how many.

    Raises:
        FailureGroup: an answer is not as described.
    """
    sent = 0

    @quiet
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case[Any]) -> None:
        nonlocal sent
        sent += 1
        check(case, operation.label)

    with contextlib.suppress(Unsatisfiable):  # nothing about this operation can be wrong: it takes nothing
        holds()
    return sent


@pytest.mark.parametrize("examples", [4, pytest.param(30, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_description_holds(api_schema: OpenApiSchema, mode: schemathesis.GenerationMode, examples: int) -> None:
    quiet = settings(
        max_examples=examples,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    failures: list[str] = []
    sent = 0
    for found in api_schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        try:
            sent += run(operation, mode, quiet)
        except FailureGroup as group:  # all operations are reported, not only the first
            failures += [f"{operation.label}: {one}" for one in group.exceptions]
    assert not failures, "\n".join(failures)
    assert sent > 30 * examples
