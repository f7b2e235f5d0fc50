"""Steps as they are played: timed, told to the view, and failed by what was not observed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from controller.demo.outcome import DemoStepResult
from controller.demo.processes import tail_of
from controller.demo.view import ProgressView
from controller.ports.errors import ControllerError


class DemoProgress:
    """Steps as they are played, timed and told to the view."""

    def __init__(self, view: ProgressView) -> None:
        self.results: list[DemoStepResult] = []
        self._view = view
        self._observed: list[str] = []

    @property
    def is_broken(self) -> bool:
        """Whether a step was not observed: what follows would build on it."""
        return any(not result.ok for result in self.results)

    def say(self, text: str) -> None:
        """Something was observed."""
        self._observed.append(text)
        self._view.say(text)

    @contextlib.asynccontextmanager
    async def step(self, name: str, title: str) -> AsyncIterator[None]:
        """One step; a `ControllerError` in it is its failure, and goes no further."""
        self._observed = []
        self._view.begin(title)
        begun = time.monotonic()
        missing = ""
        try:
            yield
        except ControllerError as e:
            missing = str(e)
        except asyncio.CancelledError:
            self._finish(name, title, begun, "interrupted")
            raise
        self._finish(name, title, begun, missing)

    def _finish(self, name: str, title: str, begun: float, missing: str) -> None:
        result = DemoStepResult(name, title, not missing, time.monotonic() - begun, tuple(self._observed), missing)
        self.results.append(result)
        self._view.end(result)


def last_words(folder: Path) -> str:
    """The end of every process's log."""
    logs = sorted(folder.rglob("*.log"))
    return "\n".join(f"--- {log.stem}\n{tail_of(log)}" for log in logs)
