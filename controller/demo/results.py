"""The result of a demonstration: its steps with what was observed."""

from dataclasses import dataclass
from typing import Any

from rich.text import Text


@dataclass(frozen=True, slots=True)
class DemoStepResult:
    """One step; `missing` says what was not observed, and what was instead."""

    name: str
    title: str
    seconds: float
    observed: tuple[str, ...]
    missing: str = ""

    @property
    def ok(self) -> bool:
        return not self.missing

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "ok": self.ok,
            "seconds": round(self.seconds, 3),
            "observed": list(self.observed),
            "missing": self.missing,
        }


@dataclass(frozen=True, slots=True)
class DemoResult:
    """All steps; `is_complete`: none is missing."""

    steps: tuple[DemoStepResult, ...]
    seconds: float
    is_complete: bool

    @property
    def ok(self) -> bool:
        return self.is_complete and all(step.ok for step in self.steps)

    def as_json(self, figures: dict[str, Any]) -> dict[str, Any]:
        """The object that `--output json` ends with; durations in seconds, rounded to milliseconds."""
        steps = [step.as_json() for step in self.steps]
        return {"ok": self.ok, **figures, "seconds": round(self.seconds, 3), "steps": steps}

    def verdict(self, text: str) -> Text:
        """`text` if all was observed, else the first thing that was not."""
        if self.ok:
            return Text(text, style="bold green")
        failed = next((step for step in self.steps if not step.ok), None)
        text = f"{failed.title}. {failed.missing}" if failed else "a step is missing."
        return Text(f"NOT observed: {text}", style="bold red")
