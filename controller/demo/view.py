"""How a demonstration looks while it runs: a live picture at a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from controller.demo.outcome import DemoResult, DemoStepResult

_FRAMES_PER_SECOND: Final = 8
_COLOURS: Final = {
    "none": "green",
    "restricted": "yellow",
    "isolated": "red",
    "stale": "blue",
    "unheard": "bright_black",
    # Of a rollout.
    "waiting": "bright_black",
    "under way": "cyan",
    "updated": "green",
    "went wrong": "red",
    "back again": "magenta",
}
_DOT: Final = "\N{BLACK CIRCLE}"


class ProgressView(Protocol):
    """Gets told what happens, in order."""

    def begin(self, title: str) -> None:
        """A step begins."""
        ...

    def say(self, text: str) -> None:
        """Something was observed."""
        ...

    def end(self, result: DemoStepResult) -> None:
        """A step is over."""
        ...

    def fleet(self, states: Mapping[str, str]) -> None:
        """The devices in words: `none`, `restricted`, `isolated`, `stale`, `unheard`."""
        ...

    def close(self, summary: RenderableType) -> None:
        """Everything is over; `summary` is what came of it."""
        ...


class PlainProgressView:
    """One line for each thing that happens, with the seconds since the beginning."""

    wants_fleet = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = time.monotonic()

    def begin(self, title: str) -> None:
        self._line(f"== {title}")

    def say(self, text: str) -> None:
        self._line(f"   {text}")

    def end(self, result: DemoStepResult) -> None:
        if not result.ok:
            self._line(f"!! {result.missing}")

    def fleet(self, states: Mapping[str, str]) -> None:
        """A picture: not for lines."""

    def close(self, summary: RenderableType) -> None:
        Console(file=self._stream, width=100, color_system=None).print(summary)

    def _line(self, text: str) -> None:
        self._stream.write(f"{time.monotonic() - self._begun:6.1f} s  {text}\n")
        self._stream.flush()


@dataclass(slots=True)
class _Step:
    title: str
    lines: list[str] = field(default_factory=list)
    result: DemoStepResult | None = None


class LiveProgressView:
    """Steps with what was observed, and a dot for each device in the colour of its state."""

    wants_fleet = True

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._steps: list[_Step] = []
        self._states: Mapping[str, str] = {}
        self._live = Live(
            console=console, refresh_per_second=_FRAMES_PER_SECOND, get_renderable=self._picture, transient=True
        )
        self._live.start()

    def begin(self, title: str) -> None:
        self._steps.append(_Step(title))

    def say(self, text: str) -> None:
        if self._steps:
            self._steps[-1].lines.append(text)

    def end(self, result: DemoStepResult) -> None:
        """Finished steps scroll up; only the present one is redrawn."""
        step = self._steps.pop()
        step.result = result
        self._live.refresh()
        self._console.print(self._of_step(step))

    def fleet(self, states: Mapping[str, str]) -> None:
        self._states = states

    def close(self, summary: RenderableType) -> None:
        self._live.stop()
        self._console.print(summary)

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = [self._of_step(step) for step in self._steps]
        if self._states:
            dots = Text("\n  ")
            for state in self._states.values():
                dots.append(_DOT + " ", style=_COLOURS.get(state, "white"))
            parts += [dots, Text.assemble("  ", *self._legend())]
        parts.append(Text(f"  {time.monotonic() - self._begun:.1f} s", style="dim"))
        return Group(*parts)

    def _legend(self) -> list[tuple[str, str]]:
        names = {"none": "free"}
        states = list(self._states.values())
        return [
            (f"{_DOT} {names.get(state, state)} {states.count(state)}   ", colour)
            for state, colour in _COLOURS.items()
            if state in states
        ]

    @staticmethod
    def _of_step(step: _Step) -> RenderableType:
        result = step.result
        mark = "[cyan]...[/]" if result is None else ("[green]ok [/]" if result.ok else "[red]NO [/]")
        seconds = "" if result is None else f" [dim]{result.seconds:.1f} s[/]"
        lines = [Text(line) for line in step.lines]
        if result is not None and not result.ok:
            lines.append(Text(result.missing, style="red"))
        head = Text.from_markup(f"{mark} [bold]{escape(step.title)}[/]{seconds}")
        return Group(head, *(Padding(line, (0, 0, 0, 6)) for line in lines))


def summary(outcome: DemoResult) -> RenderableType:
    """The table of seconds, and the verdict."""
    table = Table(title="Seconds to contain and to release", title_justify="left", show_edge=False, pad_edge=False)
    for name, numeric in (("device", False), ("containment", False), ("to contain", True), ("to release", True)):
        table.add_column(name, justify="right" if numeric else "left")
    for one in outcome.contained:
        release = "-" if one.to_release is None else f"{one.to_release:.3f}"
        table.add_row(escape(one.device), one.level, f"{one.to_contain:.3f}", release)
    notes = Text(
        "to contain: from the device publishing the violating report to the cut seen at the device\n"
        "to release: from the device publishing the passing report to its telemetry at the second subscriber",
        style="dim",
    )
    count = len(outcome.steps)
    if outcome.ok:
        verdict = Text(f"All {count} steps were observed, {outcome.reports} reports, {outcome.seconds:.1f} s.")
    else:
        failed = next((step for step in outcome.steps if not step.ok), None)
        name, missing = (failed.title, failed.missing) if failed else ("nothing was played", "")
        verdict = Text(f"NOT observed: {name}. {missing}")
    verdict.stylize("bold green" if outcome.ok else "bold red")
    return Group(Text(), table, Text(), notes, Text(), verdict)


def state_of(row: Mapping[str, Any]) -> str:
    """A device's state in one word, from the controller's listing."""
    if row["level"] == "none" and row["stale"]:
        return "stale"
    return str(row["level"])
