"""What a collector is: one source of facts, which returns its section or says why it cannot."""

from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

from device_agent.host.system import System

UNKNOWN: Final = "unknown"
NOT_APPLICABLE: Final = "notapplicable"

Section = Mapping[str, Any]


class Collector(Protocol):
    """Finds one section.

    Raises:
        CannotTellError: reported as `unknown` with the reason.
        NoMeaningError: reported as `notapplicable` with the reason.
    """

    def __call__(self, system: System, /) -> Section:
        """JSON-ready section with its lists uncut and in a stable order; nothing that changes by itself."""
        ...


@runtime_checkable
class StatefulCollector(Protocol):
    """A collector that needs to know what it found before; each scan may be another process."""

    def remembered(self) -> object:
        """Everything it has to know next time: plain values and dataclasses of this package."""
        ...

    def recall(self, memory: Any, /) -> None:
        """Go on from what `remembered` gave."""
        ...


def unavailable(state: str, reason: str) -> dict[str, str]:
    """A section without facts."""
    return {"state": state, "reason": reason or "no reason was given"}
