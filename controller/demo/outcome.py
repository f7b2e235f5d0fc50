"""What came of a demonstration: each step with what was observed, and the figures at the end."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class DemoStepResult:
    """One step: what was observed and where, or (`missing`) what was not and what was seen instead."""

    name: str
    title: str
    ok: bool
    seconds: float
    observed: tuple[str, ...]
    missing: str = ""


@dataclass(frozen=True, slots=True)
class DemoContainmentTiming:
    """A containment in figures.

    `to_contain`: seconds from the device publishing the violating report to the cut seen at the device.
    `to_release`: seconds from the device publishing the passing report to its telemetry at the bystander.
    """

    device: str
    level: str
    to_contain: float
    to_release: float | None = None


@dataclass(slots=True)
class DemoMetrics:
    """Collected while the story is played."""

    reports: int = 0
    contained: dict[str, DemoContainmentTiming] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The whole demonstration; it is `ok` only if every step was observed."""

    devices: int
    run: str
    broker: str
    steps: tuple[DemoStepResult, ...]
    reports: int
    contained: tuple[DemoContainmentTiming, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every step was observed."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """The object that `--output json` ends with; durations in seconds, rounded to milliseconds."""
        released = [one.to_release for one in self.contained if one.to_release is not None]
        return {
            "ok": self.ok,
            "devices": self.devices,
            "reports": self.reports,
            "contained": len(self.contained),
            "released": len(released),
            "seconds_to_contain": [round(one.to_contain, 3) for one in self.contained],
            "seconds_to_release": [round(seconds, 3) for seconds in released],
            "seconds": round(self.seconds, 3),
            "broker": self.broker,
            "run": self.run,
            "containments": [
                {
                    "device": one.device,
                    "level": one.level,
                    "seconds_to_contain": round(one.to_contain, 3),
                    "seconds_to_release": None if one.to_release is None else round(one.to_release, 3),
                }
                for one in self.contained
            ],
            "steps": [
                {
                    "name": step.name,
                    "title": step.title,
                    "ok": step.ok,
                    "seconds": round(step.seconds, 3),
                    "observed": list(step.observed),
                    "missing": step.missing,
                }
                for step in self.steps
            ],
        }
