"""Policies that would contain too much do not come into force by accident, whichever way they come."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards, ProtectionRules
from controller.domain.policy.model import ContainmentLevel, PolicySet, RuleResponse
from controller.domain.policy_preview import ContainmentPreview
from controller.ports.policies import PolicyError, PolicyProblem
from controller.service.policy.activation import PolicyActivation, PolicyTooBroadError
from controller.service.policy.preview import PAGE, kind_of, preview
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.playbook import policies, rule
from tests.support.reports import full, incoming

FLEET = tuple(f"edge-{number:03}" for number in range(20))
GUARDS = FleetGuards(BlastRadius(BlastRadiusLimits(5, 100.0, 600.0)))


def _forbids(*ports: int, response: RuleResponse | None = None, shadow: bool = False) -> PolicySet:
    """One rule for each port; the version names them."""
    rules = tuple(
        rule(
            f"no-{port}",
            response or RuleResponse(contain=ContainmentLevel.RESTRICTED),
            check=f"!listening_ports.exists(p, p == {port})",
            shadow=shadow,
        )
        for port in ports
    )
    made = policies(*rules)
    return PolicySet(made.policies, f"forbids {ports} {shadow} {response is not None}")


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[ControllerHarness]:
    """Twenty devices that listen on 22, the last three on 8080 too; nothing is forbidden."""
    async with open_harness(tmp_path / "c.db", _forbids(1), guards=GUARDS) as made:
        messages = [incoming(one, full(one, 1, 22, *((8080,) if one >= "edge-017" else ()))) for one in FLEET]
        await made.ingest.process_batch(messages)
        yield made


def _gate(harness: ControllerHarness, fresh: PolicySet | PolicyError) -> PolicyActivation:
    def load() -> PolicySet:
        if isinstance(fresh, PolicyError):
            raise fresh
        return fresh

    return PolicyActivation(
        harness.fleet, harness.store, load, lambda event, fields: harness.logged.append((event, dict(fields)))
    )


async def _foreseen(harness: ControllerHarness, candidate: PolicySet) -> tuple[list[ContainmentPreview], Any]:
    changes: list[ContainmentPreview] = []
    tally: Any = None
    async for page in preview(harness.fleet, harness.store, candidate):
        changes += page.changes
        tally = page.tally
    return changes, tally


async def test_a_preview_is_what_comes_true(harness: ControllerHarness) -> None:
    before = dict(devices_of(harness.fleet))
    changes, tally = await _foreseen(harness, _forbids(8080))
    assert [(one.device_id, one.after, one.causes) for one in changes] == [
        (one, ContainmentLevel.RESTRICTED, ("p/no-8080",)) for one in FLEET[17:]
    ]
    assert (tally.judged, tally.reports, tally.contains) == (20, 20, 3)
    assert devices_of(harness.fleet) == before, "nothing is kept"
    await _gate(harness, _forbids(8080)).reload()
    for one in FLEET:
        await harness.ingest.process_batch([incoming(one, full(one, 2, 22, *((8080,) if one >= "edge-017" else ())))])
    assert [one for one in FLEET if harness.level(one) is ContainmentLevel.RESTRICTED] == list(FLEET[17:])


async def test_what_comes_later_what_is_held_and_what_is_released(harness: ControllerHarness) -> None:
    slow = _forbids(8080, response=RuleResponse(contain=ContainmentLevel.ISOLATED, consecutive=3, grace=60.0))
    changes, tally = await _foreseen(harness, slow)
    assert [kind_of(one) for one in changes] == ["later"] * 3
    assert tally.contains == 3
    assert (await _foreseen(harness, _forbids(8080, shadow=True)))[0] == []
    harness.fleet.held.guards = FleetGuards(GUARDS.radius, protection=ProtectionRules(frozenset({FLEET[17]})))
    changes, tally = await _foreseen(harness, _forbids(8080))
    assert [kind_of(one) for one in changes] == ["held", "contained", "contained"]
    await _gate(harness, _forbids(8080)).reload()
    await harness.ingest.process_batch([incoming(FLEET[19], full(FLEET[19], 2, 22, 8080))])
    changes, _ = await _foreseen(harness, _forbids(1))
    assert [(one.device_id, kind_of(one)) for one in changes] == [(FLEET[19], "released")]


async def test_silent_devices_are_left_out(harness: ControllerHarness) -> None:
    harness.clock.at += 1000
    await harness.timers.tick()
    changes, tally = await _foreseen(harness, _forbids(22))
    assert (changes, tally.stale, tally.judged) == ([], 20, 0)


async def test_a_reload_that_contains_too_much_is_refused_unless_forced(harness: ControllerHarness) -> None:
    in_force = harness.fleet.policies
    with pytest.raises(PolicyTooBroadError, match=r"20 of 20 devices.*lets 5 be.*edge-000, .*--force"):
        await _gate(harness, _forbids(22)).reload()
    assert harness.fleet.policies is in_force
    assert await _gate(harness, _forbids(8080)).reload() is harness.fleet.policies
    await _gate(harness, _forbids(22)).reload(force=True)
    assert harness.fleet.policies.version == _forbids(22).version
    for one in FLEET:
        await harness.ingest.process_batch([incoming(one, full(one, 2, 22, 99))])
    assert sum(harness.level(one) is ContainmentLevel.RESTRICTED for one in FLEET) == 5, (
        "the blast radius holds all the same"
    )


async def test_a_start_with_other_policies_that_contain_too_much_is_refused(harness: ControllerHarness) -> None:
    await _gate(harness, _forbids(1)).start()
    assert await harness.store.accepted_policies() == _forbids(1).version
    harness.fleet.set_policies(_forbids(22))
    with pytest.raises(PolicyTooBroadError, match="cordon serve --force"):
        await _gate(harness, _forbids(22)).start()
    await _gate(harness, _forbids(22)).start(force=True)
    await _gate(harness, _forbids(22)).start()  # in force now: a restart is no reason to ask again


async def test_a_signal_reloads_and_what_is_refused_changes_nothing(harness: ControllerHarness) -> None:
    mistake = PolicyError([PolicyProblem("p.yaml", 1, 1, "wrong")])
    for fresh, word in ((_forbids(8080), "loaded"), (_forbids(22), "not loaded"), (mistake, "not loaded")):
        gate = _gate(harness, fresh)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(gate.run())
            harness.logged.clear()
            gate.request_reload()
            while not any(event.startswith(f"policies {word}") for event, _ in harness.logged):
                await asyncio.sleep(0)
            running.cancel()
        assert harness.fleet.policies.version == _forbids(8080).version


TEXT = """
policy: p
version: 2
title: Tests
rules:
  - id: no-{port}
    title: Port {port} is closed
    check: '!listening_ports.exists(p, p == {port})'
    severity: high
    on_fail: {{contain: restricted}}
"""


async def _previewed(api: Api, body: Any, status: int = 200) -> list[Any]:
    response = await api.client.post("/api/v1/policies/preview", json=body)
    assert response.status_code == status, response.text
    return [json.loads(line) for line in response.text.splitlines()]


async def test_a_preview_over_the_api_comes_page_by_page(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db", _forbids(1), guards=GUARDS) as api:
        count = PAGE + 6
        for number in range(count):
            await api.report(f"edge-{number:03}", ports=(22,))
        lines = await _previewed(api, {"files": [{"source": "x.yaml", "text": TEXT.format(port=22)}]})
        *pages, last = lines
        assert [len(one["changes"]) for one in pages] == [PAGE, 6]
        assert pages[0]["changes"][0] == {
            "device_id": "edge-000", "change": "contained", "before": "none", "after": "restricted",
            "causes": ["p/no-22"], "held": "",
        }  # fmt: skip
        assert (last["done"], last["refused"], last["limit"], last["counts"]) == (True, True, 5, {"contained": count})
        (done, *_) = reversed(await _previewed(api, {"files": [{"source": "x", "text": TEXT.format(port=9)}]}))
        assert (done["counts"], done["refused"]) == ({}, False)
        (error,) = await _previewed(api, {"files": [{"source": "x.yaml", "text": "policy: p"}]}, 409)
        assert "x.yaml" in error["error"]["message"]
        alone = TEXT.format(port=22).replace("policy: p", "policy: q")
        (done, *_) = reversed(await _previewed(api, {"files": [{"source": "x", "text": alone}], "alone": True}))
        assert done["counts"] == {"contained": count}


async def test_a_body_of_policies_may_be_larger_than_others_and_not_without_end(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db") as api:
        filler = "#" * 100_000
        await _previewed(api, {"files": [{"source": "x", "text": f"{filler}\n{TEXT.format(port=9)}"}]})
        await _previewed(api, {"files": [{"source": "x", "text": "#" * 3_000_000}]}, 413)


async def test_a_reload_over_the_api_needs_force(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db") as api:
        api.reload.append(PolicyTooBroadError("these policies would contain 9"))
        answer = await api.json("POST", "/api/v1/policies/reload", 409)
        assert answer["error"]["code"] == "policy_too_broad"
        await api.json("POST", "/api/v1/policies/reload?force=true", 200)
