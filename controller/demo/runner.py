"""Runs a demonstration step by step; every process is stopped and every file removed, however it ends."""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from rich.console import Console, RenderableType

from controller.demo.observations import ObservationLog
from controller.demo.processes import ChildProcess, log_tails
from controller.demo.results import DemoResult, DemoStepResult
from controller.demo.view import LiveProgressView, PlainProgressView, ProgressView
from controller.ports.errors import ControllerError

_INTERRUPTED: Final = 130  # 128 + SIGINT
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoOutput(StrEnum):
    """What goes to standard output: the progress, or one JSON object as the last line."""

    TEXT = "text"
    JSON = "json"


class DemoStepError(Exception):
    """A step failed; its result is recorded, and the demonstration ends."""


class DemoRun:
    """One run: its folder, processes, tasks and steps. What is on `stack` is undone at the end, in reverse order."""

    def __init__(
        self, view: ProgressView, folder: Path, group: asyncio.TaskGroup, stack: contextlib.AsyncExitStack
    ) -> None:
        self.view = view
        self.folder = folder
        self.stack = stack
        self.observations = ObservationLog()
        self.results: list[DemoStepResult] = []
        self._group = group
        self._observed: list[str] = []

    def say(self, text: str) -> None:
        """Records an observation of the current step."""
        self._observed.append(text)
        self.view.say(text)

    @contextlib.asynccontextmanager
    async def step(self, name: str, title: str) -> AsyncIterator[None]:
        """One step; a `ControllerError` in it is its failure.

        Raises:
            DemoStepError: it failed.
        """
        self._observed = []
        self.view.begin(title)
        begun = time.monotonic()
        missing = "interrupted"
        try:
            yield
            missing = ""
        except ControllerError as e:
            missing = str(e)
            raise DemoStepError(name) from e
        finally:
            result = DemoStepResult(name, title, time.monotonic() - begun, tuple(self._observed), missing)
            self.results.append(result)
            self.view.end(result)

    async def start(
        self, name: str, module: str, arguments: Sequence[str], secrets: Mapping[str, str] | None = None
    ) -> ChildProcess:
        """Starts `python -m MODULE`; the end of the run stops it.

        Raises:
            DemoError: it cannot be started.
        """
        child = await ChildProcess.start(name, module, arguments, self.folder, secrets)
        self.stack.push_async_callback(child.stop)
        return child

    def watch(self, child: ChildProcess) -> None:
        """Lets every wait fail once the process has ended."""

        async def watch() -> None:
            code = await child.wait()
            self.observations.end(f"{child.name} ended with exit code {code}")

        self.task(watch(), child.name)

    def task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs `work` until the run ends."""
        task = self._group.create_task(work, name=name)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.stack.push_async_callback(end)


class Demo(Protocol):
    """A demonstration."""

    @property
    def steps(self) -> frozenset[str]:
        """The names of all steps."""
        ...

    async def run(self, run: DemoRun) -> None:
        """Runs the steps.

        Raises:
            DemoStepError: one failed.
        """
        ...

    def figures(self) -> dict[str, Any]:
        """What the JSON object says besides the steps."""
        ...

    def summary(self, result: DemoResult) -> RenderableType:
        """The end of the text output."""
        ...


def execute(demo: Demo, output: DemoOutput) -> int:
    """Runs a demonstration in the foreground; returns the exit status."""
    is_live = output is DemoOutput.TEXT and sys.stdout.isatty()
    # With JSON the progress goes to standard error: standard output is for the object alone.
    stream = sys.stderr if output is DemoOutput.JSON else sys.stdout
    view: ProgressView = LiveProgressView(Console()) if is_live else PlainProgressView(stream)
    try:
        result, logs = asyncio.run(_run_until_signalled(demo, view))
    except asyncio.CancelledError:
        sys.stderr.write("interrupted; all processes were stopped, and what they made was removed\n")
        return _INTERRUPTED
    view.close(demo.summary(result))
    if logs:
        sys.stderr.write(f"{logs}\n")
    if output is DemoOutput.JSON:
        sys.stdout.write(json.dumps(result.as_json(demo.figures())) + "\n")
        sys.stdout.flush()
    return 0 if result.ok else 1


async def _run_until_signalled(demo: Demo, view: ProgressView) -> tuple[DemoResult, str]:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        # Once: a second signal must not interrupt the clean-up.
        if not task.cancelling():
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, cancel)
    try:
        return await perform(demo, view)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def perform(demo: Demo, view: ProgressView) -> tuple[DemoResult, str]:
    """Runs a demonstration; returns its result and, where it failed, the end of every log."""
    begun = time.monotonic()
    results: list[DemoStepResult] = []
    folder = Path(tempfile.mkdtemp(prefix="cordon-demo-"))
    try:
        try:
            async with asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as stack:
                run = DemoRun(view, folder, group, stack)
                results = run.results
                await demo.run(run)
        except* DemoStepError:
            pass  # it is in the results
        is_complete = demo.steps <= {step.name for step in results}
        result = DemoResult(tuple(results), time.monotonic() - begun, is_complete)
        return result, "" if result.ok else log_tails(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
