"""Plays the story on a stage and says what came of it; the stage is taken down whatever happens."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final, Protocol

from controller.demo.options import DemoError, DemoOptions
from controller.demo.outcome import DemoMetrics, DemoResult
from controller.demo.progress import DemoProgress, last_words
from controller.demo.scene import DemoDeviceRoles, DemoStepContext
from controller.demo.stage import DemoEnvironment, open_stage
from controller.demo.story import STORY, DemoStep
from controller.demo.view import ProgressView, state_of

_PICTURE_SECONDS: Final = 0.5


class FleetProgressView(ProgressView, Protocol):
    """A view that may want to show the fleet."""

    @property
    def wants_fleet(self) -> bool:
        """Whether the controller should be asked for it."""
        ...


async def perform(options: DemoOptions, view: FleetProgressView) -> tuple[DemoResult, str]:
    """Play everything; the outcome, and where it failed the last words of every process."""
    begun = time.monotonic()
    program, figures = DemoProgress(view), DemoMetrics()
    folder = Path(tempfile.mkdtemp(prefix="cordon-demo-"))
    try:
        async with contextlib.AsyncExitStack() as house:
            stage = None
            async with program.step("broker", "A broker"):
                stage = await house.enter_async_context(open_stage(options, folder, program.say))
            if stage is not None:
                await _play(stage, program, figures, view)
        words = last_words(folder) if program.is_broken else ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    broker = "stand-in" if options.broker is None else ", ".join(options.broker.api)
    contained = tuple(figures.contained.values())
    outcome = DemoResult(
        options.devices,
        options.run,
        broker,
        tuple(program.results),
        figures.reports,
        contained,
        time.monotonic() - begun,
    )
    return outcome, words


async def _play(stage: DemoEnvironment, program: DemoProgress, figures: DemoMetrics, view: FleetProgressView) -> None:
    curtain = contextlib.AsyncExitStack()
    async with asyncio.TaskGroup() as group:
        try:
            async with program.step("setup", "Controller, fleet and a bystander"):
                await stage.raise_curtain(curtain, group, program.say)
            if not program.is_broken:
                await _acts(stage, program, figures, view, group)
        finally:
            async with program.step("as_found", "The broker as it was found"):
                await curtain.aclose()


async def _acts(
    stage: DemoEnvironment,
    program: DemoProgress,
    figures: DemoMetrics,
    view: FleetProgressView,
    group: asyncio.TaskGroup,
) -> None:
    scene = DemoStepContext(stage, DemoDeviceRoles.of(stage.device_ids, stage.options.seed), figures, program.say)
    picture = group.create_task(_picture(stage, view), name="picture") if view.wants_fleet else None
    try:
        for act in STORY:
            await _act(act, scene, program)
            if program.is_broken:
                break
            await asyncio.sleep(stage.pace.pause)
    finally:
        figures.reports = scene.accepted()
        if picture is not None:
            picture.cancel()


async def _act(act: DemoStep, scene: DemoStepContext, program: DemoProgress) -> None:
    async with program.step(act.name, act.title):
        await act.play(scene)


async def _picture(stage: DemoEnvironment, view: ProgressView) -> None:
    """Keep the view's picture of the fleet fresh; a moment without an answer leaves the old one."""
    while True:
        with contextlib.suppress(DemoError):
            rows = await stage.operator.devices(stage.options.prefix)
            view.fleet({one: state_of(rows[one]) if one in rows else "unheard" for one in stage.device_ids})
        await asyncio.sleep(_PICTURE_SECONDS)
