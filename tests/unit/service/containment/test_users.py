"""Users that are contained: decided durably, carried out until proven, compared since, over only by an operator."""

from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.broker_tables import AccessRule
from controller.ports.errors import BrokerRefusedError, BrokerUnreachableError
from controller.service.containment.users import UserContainments
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.memory_users import MemoryUsers

HAD = (AccessRule("fleet/#", "allow", "all"),)


async def users_of(harness: ControllerHarness, broker: MemoryUsers) -> UserContainments:
    users = UserContainments(harness.fleet, broker, 5.0, lambda *_: None)
    await users.load()
    return users


async def kinds(harness: ControllerHarness) -> list[str]:
    return [one.entry.kind for one in await harness.store.audit(device_id="", newest_first=False)]


async def test_a_users_case_survives_a_restart_at_each_step(tmp_path: Path) -> None:
    broker = MemoryUsers(rules={"lab": HAD}, live={"lab": ["a", "b"]})
    path = tmp_path / "cordon.db"
    async with open_harness(path) as harness:
        broker.at = harness.clock.at + 0.25
        users = await users_of(harness, broker)
        await users.contain("lab", ContainmentLevel.ISOLATED, by="operator:a", reason="stolen", hold=60.0)
        assert broker.calls == []  # decided, and the controller dies
    async with open_harness(path) as harness:
        users = await users_of(harness, broker)
        await users.tick()
        case = users.cases["lab"]
        assert (case.is_proven, broker.bans["lab"], broker.live) == (True, case.case_id, {})
        (proven,) = await harness.store.audit(kind=AuditKind.CONTAINMENT_PROVEN)
        assert proven.entry.detail is not None
        assert (proven.entry.detail["seconds"], proven.entry.detail["identity"]) == (0.25, "username:lab")
        harness.clock.at += 60.0
        await users.tick()
        assert (users.cases["lab"].level, broker.bans) == (ContainmentLevel.RESTRICTED, {})
        harness.clock.at += 1e9
        await users.tick()
        assert users.cases["lab"].level is ContainmentLevel.RESTRICTED
        await users.release("lab", by="operator:a", reason="found")
    async with open_harness(path) as harness:
        harness.clock.at += 2e9
        users = await users_of(harness, broker)
        await users.tick()
        assert (users.cases, broker.rules["lab"]) == ({}, HAD)
        assert await harness.store.user_cases() == []
        assert await kinds(harness) == [
            AuditKind.CONTAINMENT_DECIDED,
            AuditKind.CONTAINMENT_PROVEN,
            AuditKind.CONTAINMENT_STEPPED_DOWN,
            AuditKind.CONTAINMENT_PROVEN,
            AuditKind.CONTAINMENT_RELEASE_DECIDED,
            AuditKind.CONTAINMENT_RELEASE_PROVEN,
        ]


async def test_later_sessions_and_missing_rules_are_repaired(tmp_path: Path) -> None:
    broker = MemoryUsers()
    async with open_harness(tmp_path / "cordon.db") as harness:
        users = await users_of(harness, broker)
        await users.contain("lab", ContainmentLevel.ISOLATED, by="operator:a", reason="r", hold=None)
        await users.tick()
        broker.live["lab"] = ["late"]
        await users.tick()
        assert broker.live == {}
        broker.rules.clear()
        await users.tick()
        assert users.cases["lab"].is_proven
        assert (await kinds(harness)).count(AuditKind.BROKER_DRIFT_FOUND) == 2


async def test_a_failure_is_audited_once_and_retried(tmp_path: Path) -> None:
    broker = MemoryUsers(misses=["no ban in force"] * 3, fails=[BrokerUnreachableError("away")])
    async with open_harness(tmp_path / "cordon.db") as harness:
        users = await users_of(harness, broker)
        await users.contain("lab", ContainmentLevel.RESTRICTED, by="operator:a", reason="r", hold=None)
        for _ in range(4):
            await users.tick()
            assert not users.cases["lab"].is_proven
        await users.tick()
        assert users.cases["lab"].is_proven
        assert (await kinds(harness)).count(AuditKind.CONTAINMENT_FAILED) == 1
        alerts = await harness.store.audit(alerts_only=True)
        assert [one.entry.kind for one in alerts] == [AuditKind.CONTAINMENT_FAILED]


async def test_an_interrupted_end_of_isolation_still_lifts_the_ban(tmp_path: Path) -> None:
    broker = MemoryUsers()
    async with open_harness(tmp_path / "cordon.db") as harness:
        users = await users_of(harness, broker)
        await users.contain("lab", ContainmentLevel.ISOLATED, by="operator:a", reason="r", hold=None)
        await users.release("lab", by="operator:a", reason="r")  # before it was ever proven
        broker.bans["lab"] = "half done"
        await users.tick()
        assert (users.cases["lab"].is_proven, broker.bans) == (True, {})


async def test_unknown_and_invalid_user_names(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "cordon.db") as harness:
        users = await users_of(harness, MemoryUsers())
        assert await users.release("nobody", by="a", reason="r") is None
        for name in ("", "..", "bell\x07", "x" * 257):
            with pytest.raises(BrokerRefusedError):
                await users.contain(name, ContainmentLevel.ISOLATED, by="a", reason="r", hold=None)
        assert users.cases == {}
