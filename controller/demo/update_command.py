"""`cordon demo-update`: its options, what it plays, and what it answers with."""

import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from controller.demo.command import DemoOutput
from controller.demo.options import FAST, NORMAL
from controller.demo.outcome import DemoStepResult
from controller.demo.progress import DemoProgress, last_words
from controller.demo.runner import FleetProgressView
from controller.demo.update_stage import UpdateDemoOptions, open_update_stage
from controller.demo.update_story import STORY, UpdateStepContext
from controller.demo.view import LiveProgressView, PlainProgressView

LEAST: Final = 8  # devices: three to test with, two canaries, and some more
MOST: Final = 500
_INTERRUPTED: Final = 130  # 128 + SIGINT
_MAX_SEED: Final = 2**31
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def demo_update(
    devices: Annotated[int, typer.Option(min=LEAST, max=MOST, help="simulated devices beside the real agent")] = 60,
    seed: Annotated[int | None, typer.Option(min=0, max=_MAX_SEED, help="of what is left to chance  [random]")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="shorter times, for tests")] = False,
    output: Annotated[DemoOutput, typer.Option(help="text, or one JSON object as the last line")] = DemoOutput.TEXT,
) -> None:
    """Roll out a good update through three rings, and a bad one that stops itself in the second and goes back.

    Broker, controller, simulated fleet and one agent are real processes, the update is signed and installed for real.
    Exit status 0 only if both went so, as seen at the devices.
    """
    chosen = secrets.randbelow(_MAX_SEED) if seed is None else seed
    soak, action = ("1s", "100ms") if fast else ("3s", "500ms")
    raise typer.Exit(_run(UpdateDemoOptions(devices, chosen, fast, soak, action), output))


def _run(options: UpdateDemoOptions, output: DemoOutput) -> int:
    is_live = output is DemoOutput.TEXT and sys.stdout.isatty()
    stream = sys.stderr if output is DemoOutput.JSON else sys.stdout
    view: FleetProgressView = LiveProgressView(Console()) if is_live else PlainProgressView(stream)
    try:
        answer, words = asyncio.run(_until_signalled(options, view))
    except asyncio.CancelledError:
        sys.stderr.write("interrupted; every process was ended\n")
        return _INTERRUPTED
    view.close(_summary(answer))
    if words:
        sys.stderr.write(f"{words}\n")
    if output is DemoOutput.JSON:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0 if answer["ok"] else 1


async def _until_signalled(options: UpdateDemoOptions, view: FleetProgressView) -> tuple[dict[str, Any], str]:
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None

    def end_early() -> None:
        if not me.cancelling():
            me.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, end_early)
    try:
        return await perform(options, view)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def perform(options: UpdateDemoOptions, view: FleetProgressView) -> tuple[dict[str, Any], str]:
    """Play everything; the answer as JSON has it, and where it failed the last words of every process."""
    begun = time.monotonic()
    program = DemoProgress(view)
    rollouts: dict[str, dict[str, Any]] = {}
    folder = Path(tempfile.mkdtemp(prefix="cordon-demo-update-"))
    try:
        async with open_update_stage(options, FAST if options.fast else NORMAL, folder, program) as stage:
            if stage is not None:
                scene = UpdateStepContext(stage, program.say, view, rollouts)
                for name, title, play in STORY:
                    async with program.step(name, title):
                        await play(scene)
                    if program.is_broken:
                        break
        words = last_words(folder) if program.is_broken else ""
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _answer(options, program, rollouts, time.monotonic() - begun), words


def _answer(
    options: UpdateDemoOptions, program: DemoProgress, rollouts: dict[str, dict[str, Any]], seconds: float
) -> dict[str, Any]:
    played = {step.name for step in program.results}
    return {
        "ok": not program.is_broken and {name for name, _, _ in STORY} <= played,
        "devices": options.devices + 1,
        "simulated": options.devices,
        "real_agents": 1,
        "seconds": round(seconds, 3),
        "rollouts": list(rollouts.values()),
        "steps": [_step(step) for step in program.results],
    }


def _step(step: DemoStepResult) -> dict[str, Any]:
    return {
        "name": step.name,
        "title": step.title,
        "ok": step.ok,
        "seconds": round(step.seconds, 3),
        "observed": list(step.observed),
        "missing": step.missing,
    }


def _summary(answer: dict[str, Any]) -> RenderableType:
    lines = [Text()]
    for one in answer["rollouts"]:
        rings = ", ".join(
            f"{ring['name']} {ring['confirmed']} of {ring['devices']}"
            + (f" ({ring['errors']} went wrong)" if ring["errors"] else "")
            + (f" ({ring['reverted']} ordered back)" if ring["reverted"] else "")
            for ring in one["rings"]
        )
        lines.append(Text(f"{one['rollout_id']}  {one['name']} {one['version']}  {one['state']}: {rings}"))
    failed = next((step for step in answer["steps"] if not step["ok"]), None)
    if answer["ok"]:
        verdict = Text(f"Both went as they should, {answer['devices']} devices, {answer['seconds']:.1f} s.")
    elif failed is not None:
        verdict = Text(f"NOT observed: {failed['title']}. {failed['missing']}")
    else:
        verdict = Text("NOT observed: not everything was played.")
    verdict.stylize("bold green" if answer["ok"] else "bold red")
    return Group(*lines, Text(), verdict)
