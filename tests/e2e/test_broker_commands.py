"""`cordon broker` and `cordon access` against a running controller, a stand-in of several nodes and real devices."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import cli
from tests.support.access_templates import TEMPLATES
from tests.support.certs import Certs
from tests.support.deployment import CONTROLLER_ID, Deployment, open_deployment
from tests.support.emqx_calls import delete_rules, rules_of
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

GRANTED = "firmware/logs"


async def cordon(deployment: Deployment, *words: str) -> tuple[int, str, str]:
    return await cli.cordon(*words, "--token", deployment.token, "--url", deployment.operator.url)


async def answer(deployment: Deployment, *words: str, status: int = 0) -> Any:
    """The JSON output of a command."""
    code, out, error = await cordon(deployment, *words, "--output", "json")
    assert code == status, error + out
    return json.loads(out)


async def test_setup_audit_drift_ports_and_access(tmp_path: Path, emqx: StandInProcess, certs: Certs) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(TEMPLATES)
    async with open_deployment(tmp_path, emqx, certs) as deployment:
        api = deployment.broker.api
        plan = await answer(deployment, "broker", "setup", "--plan")
        assert plan["changes"] == [], "`cordon init` has done it"
        code, _, error = await cordon(deployment, "broker", "setup", "--apply", "--with-no-match")
        assert (code, "confirm with --yes" in error) == (1, True)
        made = await answer(deployment, "broker", "setup", "--apply", "--with-no-match", "--yes")
        assert [one["what"] for one in made["changes"]] == ["default when no rule matches"]

        audit = await answer(deployment, "broker", "audit", status=1)
        failed = {one["rule"] for one in audit["items"] if one["result"] == "fail"}
        assert "emqx/what-no-rule-allows-is-denied" not in failed
        assert "emqx/revocation-checked" in failed
        ports = await answer(deployment, "broker", "ports", "--no-docker")
        assert {one["node"] for one in ports} == set(emqx.names)

        await deployment.start_fleet(2)
        plan = await answer(deployment, "access", "plan", str(file))
        assert (plan["ok"], plan["counts"]) == (True, {"new": 2})
        applied = await answer(deployment, "access", "apply", str(file), "--yes")
        assert applied["counts"] == {"new": 2}
        assert (await answer(deployment, "access", "diff"))["counts"] == {"as it should be": 2}
        await check_grant(deployment)
        code, _, error = await cordon(deployment, "access", "withdraw")
        assert (code, "confirm with --yes" in error) == (1, True)
        assert (await answer(deployment, "access", "withdraw", "--yes"))["counts"] == {"taken away": 2}
        assert (await answer(deployment, "access", "diff"))["counts"] == {}
        assert "no templates are in force" in (await cordon(deployment, "access", "withdraw", "--yes"))[2]

        await delete_rules(api, CONTROLLER_ID)
        await answer(deployment, "broker", "drift")
        assert await rules_of(api, CONTROLLER_ID) != ()
        code, out, error = await cordon(deployment, "broker", "setup", "--undo", "--yes")
        assert code == 0, error
        assert "restored: " in out
        assert await rules_of(api, CONTROLLER_ID) == ()


async def check_grant(deployment: Deployment) -> None:
    """A grant is at the broker, and no longer when its time is over."""

    async def is_at_the_broker() -> bool:
        return GRANTED in {rule.topic for rule in await rules_of(deployment.broker.api, "dev-001")}

    async def has_ended() -> bool:
        return not await is_at_the_broker()

    grant = ("access", "grant", "dev-001", "--publish", GRANTED, "--for", "5s", "--reason", "debugging")
    async with asyncio.TaskGroup() as group:
        # Begins before the grant, which may have ended when the command has.
        seen = group.create_task(eventually(is_at_the_broker, "the grant is at the broker"))
        made = await answer(deployment, *grant)
        assert made["in_force"] is True
        await seen
    await eventually(has_ended, "the grant has ended at the broker")
    grants = await answer(deployment, "access", "grants")
    assert [(one["grant_id"], one["lasts"]) for one in grants] == [(made["grant_id"], False)]
