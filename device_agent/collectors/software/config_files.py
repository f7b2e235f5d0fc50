"""Reads the configuration files of package managers."""

from collections.abc import Iterator, Sequence
from typing import Final

from device_agent.host.files import MAX_FILE_BYTES
from device_agent.host.includes import IncludeBudget
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

_MAX_BYTES: Final = 16 * MAX_FILE_BYTES  # of all files together: some contain keys


def matching_files(system: System, patterns: Sequence[str], gaps: GapRecorder) -> Iterator[tuple[str, str]]:
    """Yields path (below the root) and text of each file, in the order of the patterns and sorted by name."""
    budget = IncludeBudget(system, 0, _MAX_BYTES)
    for pattern in patterns:
        folder, _, names = pattern.rpartition("/")
        paths: list[str] = []
        with gaps.capture(folder):
            paths = [f"{folder}/{path.name}" for path in budget.files_in(system.path(folder), names)]
        for path in paths:
            with gaps.capture(path):
                yield path, budget.text(system.path(path))
