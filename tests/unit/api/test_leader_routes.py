"""Every route says who answers it, where several controllers share a store."""

import pytest

from controller.api.leader_routes import ANYWHERE, LEADER, RELOAD, needs_leader
from tests.support.api import Api
from tests.support.api_routes import routes


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
