"""Waits end when what they wait for is there, at their time, in trouble, or with the controller; they are bounded."""

import asyncio
from collections.abc import Callable

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.proof import DecisionProof, ProofState
from controller.domain.device import Device
from controller.domain.effects import AuditEntry
from controller.service import waiting
from controller.service.unit_of_work import UnitOfWork
from controller.service.waiting import (
    MAX_WAITERS,
    MAX_WAITERS_PER_CALLER,
    TROUBLE_GRACE,
    ProofWatch,
    WaitEnd,
    Waiters,
)

LONG = 30.0  # seconds; no wait here takes them
CALLER = "operator:a"


def is_in(names: set[str], name: str) -> Callable[[float], bool]:
    return lambda _now: name in names


async def begun(waiters: Waiters, count: int) -> None:
    async with asyncio.timeout(5):
        while len(waiters) < count:
            await asyncio.sleep(0)


async def test_what_is_there_already_is_not_waited_for() -> None:
    waiters = Waiters()
    assert await waiters.wait({"d1": lambda _now: True}, LONG, CALLER) is WaitEnd.SETTLED
    assert await waiters.wait({}, LONG, CALLER) is WaitEnd.SETTLED
    assert len(waiters) == 0


async def test_a_commit_about_the_device_wakes_its_waiter() -> None:
    waiters, done = Waiters(), set[str]()
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(waiters.wait({"d1": is_in(done, "d1")}, LONG, CALLER))
        await begun(waiters, 1)
        done.add("d1")
        waiters.on_commit(UnitOfWork(devices={"d2": Device("d2", 0.0, 0.0)}))
        await asyncio.sleep(0.01)
        assert not wait.done(), "another device's commit woke it"
        waiters.on_commit(UnitOfWork(devices={"d1": Device("d1", 0.0, 0.0)}))
        assert await wait is WaitEnd.SETTLED
    assert len(waiters) == 0


async def test_an_audit_line_about_a_user_wakes_its_waiter() -> None:
    waiters, done = Waiters(), set[str]()
    entry = AuditEntry(AuditKind.CONTAINMENT_PROVEN, "", "cordon", "c", {"identity": "username:lab"})
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(waiters.wait({"username:lab": is_in(done, "lab")}, LONG, CALLER))
        await begun(waiters, 1)
        done.add("lab")
        waiters.on_commit(UnitOfWork(audit=[(0.0, entry)]))
        assert await wait is WaitEnd.SETTLED


async def test_a_wait_for_several_ends_with_the_last_one() -> None:
    waiters, done = Waiters(), set[str]()
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(waiters.wait({name: is_in(done, name) for name in ("d1", "d2")}, LONG, CALLER))
        await begun(waiters, 1)
        for name in ("d1", "d2"):
            assert not wait.done()
            done.add(name)
            waiters.wake(name)
            await asyncio.sleep(0.01)
        assert await wait is WaitEnd.SETTLED


async def test_a_wait_ends_at_its_time() -> None:
    waiters = Waiters()
    assert await waiters.wait({"d1": lambda _now: False}, 0.01, CALLER) is WaitEnd.TIMED_OUT
    assert len(waiters) == 0


async def test_the_controllers_stop_ends_every_wait_and_begins_none() -> None:
    waiters = Waiters()
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(waiters.wait({"d1": lambda _now: False}, LONG, CALLER)) for _ in range(2)]
        await begun(waiters, 2)
        waiters.close()
    assert [wait.result() for wait in waits] == [WaitEnd.STOPPING] * 2
    assert await waiters.wait({"d1": lambda _now: False}, LONG, CALLER) is WaitEnd.STOPPING


async def test_waits_are_bounded_in_all_and_for_each_caller() -> None:
    waiters, never = Waiters(), {"d1": lambda _now: False}
    async with asyncio.TaskGroup() as group:
        for number in range(MAX_WAITERS_PER_CALLER):
            group.create_task(waiters.wait(never, LONG, CALLER))
            await begun(waiters, number + 1)
        assert await waiters.wait(never, LONG, CALLER) is WaitEnd.TOO_MANY
        for number in range(MAX_WAITERS_PER_CALLER, MAX_WAITERS):
            group.create_task(waiters.wait(never, LONG, f"operator:{number}"))
            await begun(waiters, number + 1)
        assert await waiters.wait(never, LONG, "operator:another") is WaitEnd.TOO_MANY
        waiters.close()
    assert len(waiters) == 0


async def test_a_cancelled_wait_frees_its_place() -> None:
    waiters = Waiters()
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(waiters.wait({"d1": lambda _now: False}, LONG, CALLER))
        await begun(waiters, 1)
        wait.cancel()
    assert len(waiters) == 0


def test_trouble_ends_a_wait_only_when_it_lasts() -> None:
    state = ProofState.IN_TROUBLE
    watch = ProofWatch(lambda: DecisionProof(state))
    assert not watch(10.0)
    assert not watch(10.0 + TROUBLE_GRACE - 0.1)
    state = ProofState.PENDING
    assert not watch(10.0 + TROUBLE_GRACE)
    state = ProofState.IN_TROUBLE
    assert not watch(20.0), "the grace begins anew"
    assert watch(20.0 + TROUBLE_GRACE)


@pytest.mark.parametrize("state", [ProofState.PROVEN, ProofState.SUPERSEDED, ProofState.NOT_REQUIRED])
def test_what_is_decided_for_good_ends_a_wait_at_once(state: ProofState) -> None:
    assert ProofWatch(lambda: DecisionProof(state))(0.0)


async def test_lasting_trouble_ends_a_wait_without_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TROUBLE_GRACE", 0.02)
    monkeypatch.setattr(waiting, "_RECHECK", 0.01)
    watch = ProofWatch(lambda: DecisionProof(ProofState.IN_TROUBLE, "no node answered"))
    assert await Waiters().wait({"d1": watch}, LONG, CALLER) is WaitEnd.SETTLED
