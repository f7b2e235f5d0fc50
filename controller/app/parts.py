"""What the builders of core and leader share."""

from typing import Protocol


class BackgroundLoop(Protocol):
    """A part that runs as long as the controller does, or as long as it leads."""

    async def run(self) -> None:
        """Runs until cancelled."""
        ...


NamedLoops = tuple[tuple[str, BackgroundLoop], ...]


def present(*loops: tuple[str, BackgroundLoop | None]) -> NamedLoops:
    """The loops of the parts that there are."""
    return tuple((name, loop) for name, loop in loops if loop is not None)
