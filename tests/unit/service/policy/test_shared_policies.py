"""Several controllers judge by the set in the store, whatever files they have."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.domain.policy.model import PolicySet
from controller.ports.policies import PolicyError, PolicyProblem, PolicySetStore, PolicyTexts, StoredPolicySet
from controller.service.policy.activation import PoliciesReplacedError, PolicyActivation, SharedPolicies
from tests.support.controller_harness import open_harness
from tests.support.playbook import policies, rule
from tests.support.waiting import eventually


class Sets(PolicySetStore):
    """The store's set, in memory."""

    def __init__(self) -> None:
        self.held = StoredPolicySet(0)
        self.refuses = False

    async def epoch(self) -> int:
        return self.held.epoch

    async def present(self) -> StoredPolicySet:
        return self.held

    async def replace(self, fresh: StoredPolicySet) -> bool:
        if self.refuses or fresh.epoch != self.held.epoch + 1:
            return False
        self.held = fresh
        return True


class Files:
    """Policy files of one host, with one rule whose name is the version."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.cannot: set[str] = set()  # versions that this Cordon cannot use

    def read(self) -> PolicyTexts:
        return (("a.yaml", self.version),)

    def compile(self, texts: PolicyTexts) -> PolicySet:
        ((_, version),) = texts
        if version in self.cannot:
            raise PolicyError([PolicyProblem("a.yaml", 1, 1, "unknown word")])
        return PolicySet(policies(rule(f"rule-{version}")).policies, version)

    def load(self) -> PolicySet:
        return self.compile(self.read())


class Controller:
    def __init__(self, activation: PolicyActivation, files: Files, logged: list[str]) -> None:
        self.activation, self.files, self.logged = activation, files, logged


class Fleet:
    """Controllers with their own files on one set in the store."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.sets = Sets()
        self.leader = "a"
        self._folder = folder
        self._stack = stack

    async def start(self, name: str, version: str) -> Controller:
        files, logged = Files(version), list[str]()
        harness = await self._stack.enter_async_context(
            open_harness(self._folder / f"{name}.db", policy_set=files.load())
        )
        shared = SharedPolicies(self.sets, files, name, lambda: self.leader == name)
        activation = PolicyActivation(
            harness.fleet, harness.store, files.load, lambda event, _: logged.append(event), shared
        )
        await activation.start()
        return Controller(activation, files, logged)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with contextlib.AsyncExitStack() as stack:
        yield Fleet(tmp_path, stack)


def judged_by(controller: Controller) -> tuple[str, int | None]:
    state = controller.activation._fleet
    return state.policies.policy_version, state.policy_epoch


async def test_the_first_start_puts_its_files_in_force(fleet: Fleet) -> None:
    first = await fleet.start("a", "v1")
    assert judged_by(first) == ("v1", 1)
    assert (fleet.sets.held.version, fleet.sets.held.controller, fleet.sets.held.texts) == (
        "v1",
        "a",
        first.files.read(),
    )
    assert first.activation.warning == ""


async def test_a_start_with_other_files_takes_the_stores_set_and_says_so(fleet: Fleet) -> None:
    await fleet.start("a", "v1")
    second = await fleet.start("b", "v2")
    assert judged_by(second) == ("v1", 1)
    assert "this host are version v2, and in force is v1" in second.activation.warning
    assert second.logged == [second.activation.warning]


async def test_a_reload_reaches_every_controller(fleet: Fleet) -> None:
    first, second = await fleet.start("a", "v1"), await fleet.start("b", "v1")
    first.files.version = "v2"
    await first.activation.reload(by="ada")
    assert judged_by(first) == ("v2", 2)
    assert (fleet.sets.held.by, fleet.sets.held.controller) == ("ada", "a")
    assert judged_by(second) == ("v1", 1), "what it decides now is refused by the store"
    await second.activation.follow()
    assert judged_by(second) == ("v2", 2)
    assert "version v1, and in force is v2, which ada took from a" in second.activation.warning


async def test_a_reload_of_the_same_files_changes_nothing(fleet: Fleet) -> None:
    first = await fleet.start("a", "v1")
    await first.activation.reload()
    assert fleet.sets.held.epoch == 1


async def test_of_two_reloads_at_once_one_is_refused(fleet: Fleet) -> None:
    first = await fleet.start("a", "v1")
    first.files.version, fleet.sets.refuses = "v2", True
    with pytest.raises(PoliciesReplacedError):
        await first.activation.reload()
    assert judged_by(first) == ("v1", 1)


async def test_a_set_that_this_version_cannot_use_is_said_and_can_be_replaced(fleet: Fleet) -> None:
    first, second = await fleet.start("a", "v1"), await fleet.start("b", "v1")
    second.files.cannot.add("v2")
    first.files.version = "v2"
    await first.activation.reload()
    with pytest.raises(PolicyError):
        await second.activation.follow()
    assert await second.activation._follow_or_tell("") == ""
    assert [line for line in second.logged if "not loaded" in line] == ["policies of another controller not loaded"]
    assert judged_by(second) == ("v1", 1), "so the store refuses what it decides"
    assert "cannot be used by this version" in second.activation.trouble == second.activation.warning
    await second.activation.reload()
    assert judged_by(second) == ("v1", 3)
    assert second.activation.trouble == second.activation.warning == ""


async def test_a_signal_reloads_at_the_controller_that_leads_only(fleet: Fleet) -> None:
    first, second = await fleet.start("a", "v1"), await fleet.start("b", "v1")
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one.activation.run()) for one in (first, second)]
        second.files.version = "v2"
        second.activation.request_reload()
        await eventually(lambda: any("controller that leads" in line for line in second.logged), "it says why")
        assert fleet.sets.held.epoch == 1
        first.files.version = "v3"
        first.activation.request_reload()
        await eventually(lambda: fleet.sets.held.epoch == 2, "the leader's files are in force")
        for task in running:
            task.cancel()
    assert fleet.sets.held.version == "v3"
