"""A plan of access templates tells what lint remarks about them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.api.access import AccessPlanView
from controller.domain.broker.access_lint import LintFinding, LintSeverity
from controller.service.broker.access_operations import AccessPlan
from tests.support.api import Api, api

TEMPLATES = """access: fleet
version: 1
templates:
  - class: camera
    title: Cameras
    rules:
      - {deny: publish, topic: "fleet/a"}
      - {allow: publish, topic: "#"}
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Api]:
    async with api(tmp_path / "cordon.db") as made:
        yield made


async def test_a_plan_contains_the_remarks(here: Api) -> None:
    answer = await here.client.post("/api/v1/access/plan", json={"templates": TEMPLATES})
    assert answer.status_code == 200, answer.text
    remarks = answer.json()["remarks"]
    assert remarks
    assert {remark["device_class"] for remark in remarks} == {"camera"}
    assert {remark["gravity"] for remark in remarks} <= {"error", "warning", "info"}


def test_the_first_remarks_are_shown() -> None:
    remark = LintFinding(LintSeverity.ERROR, "gate", 1, "why")
    view = AccessPlanView.of(AccessPlan((remark,) * 5000, 0, {}, ()))
    assert (view.ok, len(view.remarks)) == (False, 200)
