"""What the update demonstration plays and believes: devices, the disk and reports, never the rollout's word alone."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.api.rollout_summary import progress_line
from controller.demo.options import DemoError
from controller.demo.update_repository import BAD, BEFORE, GOOD, NAME
from controller.demo.update_stage import AGENT, UpdateDemoEnvironment
from controller.demo.view import ProgressView

PATIENCE: Final = 180.0  # seconds for a whole rollout
REPORT_PATIENCE: Final = 30.0  # seconds for one device's next report
_LOOK_SECONDS: Final = 0.3
_ENDS: Final = frozenset({"completed", "stopped", "aborted"})
_WORDS: Final = {"pending": "waiting", "away": "waiting", "confirmed": "updated", "skipped": "waiting"}
_UNDER_WAY: Final = frozenset({"ordered", "received", "claimed"})

UpdateDemoProgressCallback = Callable[[str], None]


@dataclass(slots=True)
class UpdateStepContext:
    """A step's view of the stage; `rollouts` keeps the last state of each."""

    stage: UpdateDemoEnvironment
    say: UpdateDemoProgressCallback
    view: ProgressView
    rollouts: dict[str, dict[str, Any]]

    async def follow(self, rollout_id: str, states: frozenset[str]) -> dict[str, Any]:
        """Show every change of a rollout until it is in one of `states`.

        Raises:
            DemoError: it ended as something else, or took too long.
        """
        deadline, last = time.monotonic() + PATIENCE, ""
        while True:
            found = await self.stage.first.rollout(rollout_id)
            self.rollouts[rollout_id] = found
            line = progress_line(found)
            if line != last:
                self.say(line)
                last = line
            with contextlib.suppress(DemoError):
                self.view.fleet(await self._picture(rollout_id))
            if found["state"] in states:
                return found
            if found["state"] in _ENDS or time.monotonic() > deadline:
                raise DemoError(f"{rollout_id} is {found['state']} ({found['why']}), not {' or '.join(sorted(states))}")
            await asyncio.sleep(_LOOK_SECONDS)

    async def _picture(self, rollout_id: str) -> dict[str, str]:
        return {one["device_id"]: word_of(one) for one in await self.stage.first.members(rollout_id)}

    def taken(self, device_id: str, version: str) -> float | None:
        """When a simulated device took the order to install this version, monotonic seconds; `None`: it did not."""
        for sight in self.stage.chronicle.of(device_id, "command_taken", action="update.install"):
            if sight.data["params"]["version"] == version:
                return sight.moment
        return None

    async def shows(self, devices: tuple[str, ...], **wanted: str) -> dict[str, Any]:
        """Wait until the last report of each device shows this of the application; what that of the last one shows.

        Raises:
            DemoError: one does not.
        """
        found: dict[str, Any] = {}
        for one in devices:
            deadline = time.monotonic() + REPORT_PATIENCE
            while True:
                found = await self.stage.first.installed(one, NAME)
                if all(found.get(key) == value for key, value in wanted.items()):
                    break
                if time.monotonic() > deadline:
                    raise DemoError(f"the report of {one} shows {found or 'nothing'}, not {wanted}")
                await asyncio.sleep(_LOOK_SECONDS)
        return found


def word_of(member: Mapping[str, Any]) -> str:
    """A device of a rollout in one word of the view."""
    if member["back"] == "reverted":
        return "back again"
    if member["state"] in _UNDER_WAY or member["back"] == "reverting":
        return "under way"
    return _WORDS.get(str(member["state"]), "went wrong")


async def good(scene: UpdateStepContext) -> None:
    """A version that works: test ring, a controller that is killed, canaries, a second operator, everybody."""
    stage = scene.stage
    if stage.version_on_disk():
        raise DemoError(f"the real agent has {stage.version_on_disk()} installed already")
    rollout = await stage.first.start(
        f"{NAME}/{GOOD}", soak=stage.options.soak, timeout="60s", min_sample=3, error_threshold=0.05
    )
    await scene.follow(rollout, frozenset({"soaking"}))
    before = await stage.first.rollout(rollout)
    pid = await stage.kill_controller()
    after = await stage.first.rollout(rollout)
    if after["rings"][0]["confirmed"] != before["rings"][0]["confirmed"]:
        raise DemoError(f"a controller that was killed does not go on where it was: {after}")
    scene.say(f"the controller (process {pid}) is killed with SIGKILL in the middle, and goes on where it was")
    await scene.follow(rollout, frozenset({"awaiting_approval"}))
    early = [one for one in stage.rest if scene.taken(one, GOOD) is not None]
    if early:
        raise DemoError(f"{early[0]} of the last ring was ordered before anybody approved")
    refused = await stage.first.approval_refused(rollout)
    scene.say(f"the one who started it cannot approve: {refused}")
    await stage.second.approve(rollout)
    scene.say("a second operator, with another token, approves")
    await scene.follow(rollout, frozenset({"completed"}))


async def good_seen(scene: UpdateStepContext) -> None:
    """Every device has it, by its report; the real one by its disk; the rings were kept, by when devices were told."""
    stage = scene.stage
    await scene.shows(stage.everybody, version=GOOD, health="ok")
    scene.say(f"reports of all {len(stage.everybody)} devices show {NAME} {GOOD}, healthy")
    if stage.version_on_disk() != GOOD:
        raise DemoError(f"on the real agent's disk lies {stage.version_on_disk() or 'nothing'}, not {GOOD}")
    scene.say(f"the real agent verified, unpacked and switched to it: {stage.agent_sets.name}/current is {GOOD}")
    groups = [_moments(scene, devices) for devices in (stage.test, stage.canaries, stage.rest)]
    for (name, before), (_, after) in zip(enumerate(groups), list(enumerate(groups))[1:], strict=False):
        if max(before) >= min(after):
            raise DemoError(f"a device of ring {name + 2} was ordered before ring {name + 1} was through")
    gap = min(groups[1]) - max(groups[0])
    scene.say(f"no device was ordered before its ring: the first canary {gap:.1f} s after the last test device")


def _moments(scene: UpdateStepContext, devices: tuple[str, ...]) -> list[float]:
    found = [scene.taken(one, GOOD) for one in devices]
    missing = [one for one, moment in zip(devices, found, strict=True) if moment is None]
    if missing:
        raise DemoError(f"{missing[0]} was never seen taking the order")
    return [moment for moment in found if moment is not None]


async def bad(scene: UpdateStepContext) -> None:
    """A version that is signed and does not work: fine in the test ring, sick on the canaries."""
    stage = scene.stage
    await asyncio.to_thread(stage.repository.publish_bad)
    scene.say(f"{NAME} {BAD} is published with all signatures; its health check fails on the real agent")
    for one in stage.canaries:
        await stage.fleet.update_ends(one, f"{NAME}/{BAD}", "unhealthy")
    rollout = await stage.first.start(
        f"{NAME}/{BAD}",
        soak=stage.options.soak,
        timeout="60s",
        min_sample=3,
        error_threshold=0.05,
        rollback_on_error=True,
    )
    found = await scene.follow(rollout, frozenset({"stopped"}))
    if found["ring"] != "canary":
        raise DemoError(f"it stopped in ring {found['ring']}, not in the canary ring")
    scene.say(f"it stopped itself: {found['why']}")


async def bad_seen(scene: UpdateStepContext) -> None:
    """Nobody beyond the canaries was told of it, and everybody has the good version again."""
    stage = scene.stage
    told = [one for one in stage.rest if scene.taken(one, BAD) is not None]
    if told:
        raise DemoError(f"{told[0]} of the last ring was ordered the bad version")
    scene.say(f"none of the {len(stage.rest)} devices of the last ring was ever told of {BAD}")
    for one in stage.test:
        if stage.chronicle.first(one, "command_taken", action="update.rollback") is None:
            raise DemoError(f"{one} was never seen taking the order to go back")
    await scene.shows((*stage.test, *stage.canaries), version=GOOD, health="ok")
    scene.say(f"the test devices were ordered back, the canaries went back: all report {GOOD}")
    if stage.version_on_disk() != GOOD:
        raise DemoError(f"on the real agent's disk lies {stage.version_on_disk() or 'nothing'}, not {GOOD}")
    found = await scene.shows((AGENT,), version=GOOD, health="ok", attempted=BAD, outcome="rolled_back")
    scene.say(f"the real agent tried {BAD}, found it sick and put {GOOD} back by itself: {found.get('reason')}")


STORY: Final = (
    ("good", f"{NAME} {GOOD} through three rings (the fleet has {BEFORE})", good),
    ("good_seen", "Seen at the devices, on the disk, in their reports", good_seen),
    ("bad", f"{NAME} {BAD} stops itself in the canary ring and goes back", bad),
    ("bad_seen", "Seen again at the devices, on the disk, in their reports", bad_seen),
)
