"""`cordon broker` and `cordon access` against a running controller, a stand-in of several nodes and real devices."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from controller.demo.observations import ObservationLog
from tests.support.certs import Certs
from tests.support.deployment import CONTROLLER_ID, House, open_house
from tests.support.standin import StandInProcess

TEMPLATES = """
access: fleet
version: 1
templates:
  - class: "*"
    title: Every device
    rules:
      - {allow: publish, topic: "fleet/${clientid}/#"}
"""
WITHIN = 20.0  # seconds


async def cordon(house: House, *words: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error of the command as its user runs it."""
    argv = [sys.executable, "-m", "controller.main", *words, "--token", house.prepared.token]
    argv += ["--url", f"http://{house.operator._host}:{house.operator._port}"]
    done = await asyncio.to_thread(
        subprocess.run, argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout, done.stderr


async def told(house: House, *words: str, status: int = 0) -> Any:
    """What it says in JSON."""
    code, out, error = await cordon(house, *words, "--output", "json")
    assert code == status, error + out
    return json.loads(out)


async def test_setup_audit_drift_ports_and_access(tmp_path: Path, emqx: StandInProcess, certs: Certs) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(TEMPLATES)
    async with open_house(tmp_path, emqx=emqx, certs=certs) as house:
        api = house.broker.api
        plan = await told(house, "broker", "setup", "--plan")
        assert plan["changes"] == [], "`cordon init` has done it"
        code, _, error = await cordon(house, "broker", "setup", "--apply", "--with-no-match")
        assert (code, "agree with --yes" in error) == (1, True)
        made = await told(house, "broker", "setup", "--apply", "--with-no-match", "--yes")
        assert [one["what"] for one in made["changes"]] == ["what no rule decides"]

        audit = await told(house, "broker", "audit", status=1)
        failed = {one["rule"] for one in audit["items"] if one["result"] == "fail"}
        assert "emqx/what-no-rule-allows-is-denied" not in failed
        assert "emqx/revocation-checked" in failed
        ports = await told(house, "broker", "ports", "--no-docker")
        assert {one["node"] for one in ports} == set(emqx.names)

        await house.start_fleet(2, ObservationLog())
        plan = await told(house, "access", "plan", str(file))
        assert (plan["ok"], plan["counts"]) == (True, {"new": 2})
        applied = await told(house, "access", "apply", str(file), "--yes")
        assert applied["counts"] == {"new": 2}
        assert (await told(house, "access", "diff"))["counts"] == {"as it should be": 2}
        grant = ("access", "grant", "dev-001", "--publish", "firmware/logs", "--for", "3s", "--reason", "a look")
        made = await told(house, *grant)
        assert made["in_force"] is True

        async def rules_have(topic: str) -> bool:
            return topic in {rule.topic for rule in await api.rules("dev-001")}

        async with asyncio.timeout(WITHIN):
            while not await rules_have("firmware/logs"):
                await asyncio.sleep(0.05)
            while await rules_have("firmware/logs"):
                await asyncio.sleep(0.05)
        listed = await told(house, "access", "grants")
        assert [(one["grant_id"], one["lasts"]) for one in listed] == [(made["grant_id"], False)]

        await api.delete_rules(CONTROLLER_ID)
        await told(house, "broker", "drift")
        assert await api.rules(CONTROLLER_ID) != ()
        code, out, error = await cordon(house, "broker", "setup", "--undo", "--yes")
        assert code == 0, error
        assert "put back" in out
        assert await api.rules(CONTROLLER_ID) == ()
