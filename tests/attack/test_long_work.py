"""Input that takes long to check, or that makes long log lines: the event loop goes on, and lines are bounded."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from controller.adapters.logs import MAX_VALUE, configure_logs
from controller.domain.broker import access_lint
from controller.domain.broker.access import MAX_RULES, AccessTemplate, AccessTemplates, TopicRule
from controller.domain.broker.topic_filters import covers
from controller.service.broker import access_operations
from controller.service.policy import preview
from device_agent.main import MAX_LINE
from device_agent.main import main as agent_main
from schemas.base import shortened
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.persons import account_of

BASE: Final = "/api/v1"
TEMPLATES: Final = "access: plant\nversion: 1\ntemplates:\n  - class: '*'\n    title: all\n"
POLICY: Final = "policy: p\nversion: 1\ntitle: t\nrules: []\n"
WHOLE: Final = POLICY.replace("[]", "[{id: r, title: t, check: '!listening_ports.exists(p, p == 23)', severity: high}]")
LONG: Final = 1_000_000  # characters


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path / "c.db") as made:
        yield made


class _Blocked:
    """Work that goes on until the event loop has had a turn."""

    def __init__(self, result: Any) -> None:
        self._result = result
        self._loop_ran = threading.Event()
        self.count = 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.count += 1
        assert self._loop_ran.wait(20), "the event loop stood still"
        return self._result

    async def during(self, call: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(call)
            while not self.count and not task.done():
                await asyncio.sleep(0.001)
            self._loop_ran.set()
        return task.result()


@pytest.mark.parametrize("path", ["plan", "apply"])
async def test_the_loop_goes_on_while_templates_are_checked(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Finding: every pair of rules was compared on the loop, and containment waited."""
    blocked = _Blocked(())
    monkeypatch.setattr(access_operations, "lint", blocked)
    call = api.client.post(f"{BASE}/access/{path}", json={"templates": TEMPLATES})
    assert (await blocked.during(call)).status_code == 200
    assert blocked.count == 1


async def test_the_loop_goes_on_while_templates_in_force_are_checked(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = _Blocked(())
    monkeypatch.setattr(access_operations, "lint", blocked)
    assert (await blocked.during(api.client.get(f"{BASE}/access/diff"))).status_code == 200


async def test_the_loop_goes_on_while_policies_are_compiled(api: Api) -> None:
    services = api.harness.controller.services
    blocked = _Blocked(services.fleet.policies)
    object.__setattr__(services.policies, "compile", blocked)
    body = {"files": [{"source": "p.yaml", "text": POLICY}]}
    assert (await blocked.during(api.client.post(f"{BASE}/policies/preview", json=body))).status_code == 200


async def test_one_person_has_so_many_previews_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps compiled policies and reads every report."""
    monkeypatch.setattr(preview, "MAX_OF_ONE", 1)
    places = api.services.policies.previews
    good, bad = ({"files": [{"source": "p.yaml", "text": text}]} for text in (WHOLE, "policy: p"))
    for body, status in ((good, 200), (bad, 409), (good, 200)):
        response = await api.client.post(f"{BASE}/policies/preview", json=body)
        assert response.status_code == status, "each gives its place back"
    places.take(account_of("tests").key)
    answer = await api.json("POST", f"{BASE}/policies/preview", 429, good)
    assert answer["error"]["code"] == "too_many_previews"
    others = [f"account:{number}" for number in range(preview.MAX_RUNNING - 1)]
    for person in others:
        places.take(person)
    with pytest.raises(preview.TooManyPreviewsError):
        places.take("account:last")
    places.leave(others[0])
    places.take("account:last")


def test_rules_that_emqx_does_not_take_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def count(wide: str, narrow: str) -> bool:
        compared.append(wide)
        return covers(wide, narrow)

    monkeypatch.setattr(access_lint, "covers", count)
    rules = tuple(TopicRule("deny", "all", f"a/{n}/#", (0, 1, 2), "all") for n in range(2 * MAX_RULES))
    findings = access_lint.lint(AccessTemplates("plant", 1, (AccessTemplate("*", "all", rules),)))
    assert len(compared) <= MAX_RULES * MAX_RULES // 2
    assert any("EMQX accepts at most" in one.text for one in findings)


@pytest.mark.parametrize("most", [10, 100, 8192])
def test_a_shortened_text_has_its_beginning_and_its_end(most: int) -> None:
    text = "begin" + "x" * LONG + "end.."
    short = shortened(text, most)
    assert len(short) <= most + 50
    assert short.startswith("begin")
    assert short.endswith("end..")
    assert shortened("short", 10) == "short"


def _raise(text: str) -> None:
    raise ValueError(text)


def fail(program: str, style: str) -> None:
    """Logs an exception, a message and a field as long as somebody else likes."""
    if program == "controller":
        configure_logs("info", "json" if style == "json" else "console")
    else:
        agent_main(["--log-format", style, "run", "--config", "/nonexistent"])
    logger = logging.getLogger("x")
    logger.warning("message %s", "m" * LONG)
    try:
        _raise("e" * LONG)
    except ValueError:
        logger.exception("failed")


@pytest.mark.parametrize("style", ["json", pytest.param("text", marks=pytest.mark.slow)])
@pytest.mark.parametrize("program", ["controller", pytest.param("agent", marks=pytest.mark.slow)])
def test_no_exception_makes_a_long_line(program: str, style: str) -> None:
    """Finding: an exception was logged in whole, with what its sender put into it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack.test_long_work", program, style],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert "failed" in done.stderr
    assert "ValueError" in done.stderr
    assert len(done.stderr) < 4 * max(MAX_VALUE, MAX_LINE)
    if style == "json":
        for line in done.stderr.splitlines():
            if line.startswith("{"):
                json.loads(line)


if __name__ == "__main__":
    fail(*sys.argv[1:])
