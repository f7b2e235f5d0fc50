"""Shows the progress of a demonstration: a live picture at a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Final, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from controller.demo.results import DemoStepResult

_FRAMES_PER_SECOND: Final = 8
_COLOURS: Final = {
    "free": "green",
    "restricted": "yellow",
    "isolated": "red",
    "stale": "blue",
    "unknown": "bright_black",
    # In a rollout:
    "waiting": "bright_black",
    "updating": "cyan",
    "updated": "green",
    "failed": "red",
    "reverted": "magenta",
}
_DOT: Final = "\N{BLACK CIRCLE}"


class ProgressView(Protocol):
    """Shows what happens, in order. `wants_fleet`: whether `fleet` has an effect."""

    wants_fleet: bool

    def begin(self, title: str) -> None:
        """A step begins."""
        ...

    def say(self, text: str) -> None:
        """Something was observed."""
        ...

    def end(self, result: DemoStepResult) -> None:
        """A step ended."""
        ...

    def fleet(self, states: Mapping[str, str]) -> None:
        """The state of each device, one of `_COLOURS`."""
        ...

    def close(self, summary: RenderableType) -> None:
        """The demonstration ended."""
        ...


class PlainProgressView:
    """One line for each observation, with the seconds since the beginning."""

    def __init__(self, stream: TextIO) -> None:
        self.wants_fleet = False
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
        """No lines."""

    def close(self, summary: RenderableType) -> None:
        Console(file=self._stream, width=100, color_system=None).print(summary)

    def _line(self, text: str) -> None:
        self._stream.write(f"{time.monotonic() - self._begun:6.1f} s  {text}\n")
        self._stream.flush()


class LiveProgressView:
    """The current step with its observations, and a dot for each device in the colour of its state."""

    def __init__(self, console: Console) -> None:
        self.wants_fleet = True
        self._console = console
        self._begun = time.monotonic()
        self._title = ""
        self._lines: list[str] = []
        self._states: Mapping[str, str] = {}
        self._live = Live(
            console=console, refresh_per_second=_FRAMES_PER_SECOND, get_renderable=self._picture, transient=True
        )
        self._live.start()

    def begin(self, title: str) -> None:
        self._title, self._lines = title, []

    def say(self, text: str) -> None:
        self._lines.append(text)

    def end(self, result: DemoStepResult) -> None:
        """Prints the finished step, which scrolls up; only the current one is redrawn."""
        self._title = ""
        self._live.refresh()
        mark = "[green]ok [/]" if result.ok else "[red]NO [/]"
        lines = [Text(line) for line in result.observed]
        if not result.ok:
            lines.append(Text(result.missing, style="red"))
        self._console.print(_step(mark, result.title, lines, f" [dim]{result.seconds:.1f} s[/]"))

    def fleet(self, states: Mapping[str, str]) -> None:
        self._states = states

    def close(self, summary: RenderableType) -> None:
        self._live.stop()
        self._console.print(summary)

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._title:
            parts.append(_step("[cyan]...[/]", self._title, [Text(line) for line in self._lines]))
        if self._states:
            states = list(self._states.values())
            dots = Text("\n  ")
            for state in states:
                dots.append(_DOT + " ", style=_COLOURS[state])
            counts = [(name, states.count(name), colour) for name, colour in _COLOURS.items() if name in states]
            legend = [(f"{_DOT} {name} {count}   ", colour) for name, count, colour in counts]
            parts += [dots, Text.assemble("  ", *legend)]
        parts.append(Text(f"  {time.monotonic() - self._begun:.1f} s", style="dim"))
        return Group(*parts)


def _step(mark: str, title: str, lines: list[Text], seconds: str = "") -> RenderableType:
    head = Text.from_markup(f"{mark} [bold]{escape(title)}[/]{seconds}")
    return Group(head, *(Padding(line, (0, 0, 0, 6)) for line in lines))
