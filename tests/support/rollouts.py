"""A controller with rollouts, and devices that a test answers for."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.domain.events import DeviceLabelled
from controller.domain.policy.model import PolicySet
from controller.domain.rollout.model import Rollout, RolloutMember, RolloutTarget, RolloutTerms
from controller.domain.rollout.rings import parse_ring
from controller.ports.rollouts import TargetError
from controller.service.rollout.engine import RolloutEngine
from controller.service.rollout.operations import RolloutOperations, RolloutRequest
from controller.service.rollout.triggers import RolloutTrigger
from schemas.topics import UpChannel
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.persons import person
from tests.support.reports import full, incoming

APP = RolloutTarget("app/2.0/app.tar.gz", "app", "2.0", "ab" * 32, 1000, ("*",))
RINGS = (("test", "tag:ring:test"), ("canary", "tag:ring:canary"), ("fleet", "rest"))
DEVICES = ("t1", "c1", "c2", "f1", "f2", "f3")
BY, SECOND = person("first"), person("second")


class FakeTargets:
    """A repository with these targets."""

    def __init__(self, *targets: RolloutTarget) -> None:
        self.targets = targets or (APP,)
        self.is_readable = True

    async def find(self, text: str) -> RolloutTarget:
        """Finds by NAME/VERSION, with or without the file."""
        for one in self.targets:
            if text in (one.path, f"{one.name}/{one.version}"):
                return one
        raise TargetError(f"{text} is not published")

    async def is_published(self, target: RolloutTarget) -> bool:
        """Whether it is there; `TargetError` without `is_readable`."""
        if not self.is_readable:
            raise TargetError("the repository cannot be read")
        return target in self.targets


def software(version: str = "1.0", **changes: Any) -> dict[str, Any]:
    """The section of updates; the app has this version unless it is empty."""
    entry = {"name": "app", "kind": "file", "version": version, "health": "ok", "outcome": "confirmed", **changes}
    return {"state": "ok", "device_class": "", "hardware": [], "entries": [entry] if version else [], "truncated": 0}


@dataclass(slots=True)
class RolloutHarness:
    """A controller with rollouts, and its devices."""

    harness: ControllerHarness
    rollouts: RolloutEngine
    desk: RolloutOperations
    targets: FakeTargets
    seq: int = 0

    def by_rules(self) -> RolloutTrigger:
        """Starts the rollouts that policies request."""
        return self.harness.loop(RolloutTrigger)

    async def report(self, *device_ids: str, version: str = "1.0", **changes: Any) -> None:
        """Lets devices report a version of the app."""
        messages = []
        for device_id in device_ids:
            self.seq += 1
            body = full(device_id, self.seq, software=software(version, **changes))
            messages.append(incoming(device_id, body))
        await self.harness.ingest.process_batch(messages)

    async def report_sections(self, device_id: str, **sections: Any) -> None:
        """Lets a device report these sections besides the usual ones."""
        self.seq += 1
        await self.harness.ingest.process_batch([incoming(device_id, full(device_id, self.seq, **sections))])

    async def status(self, device_id: str, state: str) -> None:
        """Lets a device publish its status."""
        body = json.dumps({"v": 1, "state": state, "boot_id": "boot"}).encode()
        await self.harness.ingest.process_batch([incoming(device_id, body, UpChannel.STATUS)])

    async def label(self, device_id: str, *tags: str, device_class: str = "") -> None:
        """Sets the tags of a device."""
        state = self.harness.fleet
        await state.apply_and_commit(device_id, DeviceLabelled(state.new_id(), device_class, tags, "operator:test"))

    async def go(self, seconds: float = 0.0) -> None:
        """Lets time pass, and everything due happen."""
        self.harness.clock.at += seconds
        for _ in range(20):
            more = await self.rollouts.once()
            await self.harness.drain()
            if not more:
                break

    def orders(self) -> dict[str, dict[str, Any]]:
        """The last command to each device."""
        found = {}
        for _, payload in self.harness.link.sent:
            if payload.startswith(b"signed:"):
                command = json.loads(payload.removeprefix(b"signed:"))
                found[command["device_id"]] = command
        return found

    async def tell(self, device_id: str, state: str, phase: str = "", reason: str = "") -> None:
        """Lets a device publish a result of its last command."""
        command = self.orders()[device_id]
        result = {
            "v": 1, "command_id": command["command_id"], "state": state, "reason": reason,
            "detail": {"phase": phase, "name": "app", "version": "2.0"} if phase else {}, "at": "2026-11-23T10:00:00Z",
        }  # fmt: skip
        await self.harness.ingest.process_batch([incoming(device_id, json.dumps(result).encode(), UpChannel.RESULT)])

    async def install(self, *device_ids: str) -> None:
        """Lets devices carry out their last command, and report."""
        for device_id in device_ids:
            await self.tell(device_id, "executing", "downloading")
            await self.tell(device_id, "succeeded", "confirmed")
            command_id = self.orders()[device_id]["command_id"]
            await self.report(device_id, version="2.0", attempted="2.0", command_id=command_id)
        await self.go()

    async def fail(self, *device_ids: str) -> None:
        """Lets devices roll back by themselves."""
        for device_id in device_ids:
            await self.tell(device_id, "executing", "downloading")
            await self.tell(device_id, "failed", "rolled_back", "its health check failed")
        await self.go()

    async def start(self, **terms: Any) -> Rollout:
        """Starts a rollout of the app to all devices, through the rings of their tags."""
        given = {"soak": 60.0, "min_sample": 2, "timeout": 600.0, **terms}
        rings = given.pop("rings", RINGS)
        asked = RolloutRequest(
            "app/2.0",
            tuple(parse_ring(*ring) for ring in rings),
            RolloutTerms(**given),
            BY.actor,
            "because",
            starter=BY,
        )
        rollout = await self.desk.start(asked)
        await self.go()
        return rollout

    async def now(self, rollout_id: str = "r-0001") -> Rollout:
        """The stored rollout."""
        found = await self.desk.store.rollout(rollout_id)
        assert found is not None
        return found

    async def members(self, rollout_id: str = "r-0001") -> dict[str, RolloutMember]:
        """The stored members of a rollout."""
        return {one.device_id: one for one in await self.desk.store.members(rollout_id)}


@contextlib.asynccontextmanager
async def open_rollouts(
    path: Path, policy_set: PolicySet | None = None, **settings: Any
) -> AsyncIterator[RolloutHarness]:
    """A controller with rollouts over the store at `path`; opening it again is a restart."""
    targets = FakeTargets()
    async with open_harness(path, policy_set, targets=targets, settings={"rollouts": settings}) as made:
        desk = made.services.rollouts.operations
        yield RolloutHarness(made, made.loop(RolloutEngine), desk, targets)


async def seed_devices(made: RolloutHarness) -> None:
    """Adds one device of the test ring, two canaries and three others, with version 1.0 of the app."""
    await made.report(*DEVICES)
    await made.label("t1", "ring:test")
    for one in ("c1", "c2"):
        await made.label(one, "ring:canary")
