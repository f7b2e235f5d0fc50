"""Reads the configuration files of package managers."""

from collections.abc import Iterator, Sequence

from device_agent.host.files import list_files, read_text
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System


def matching_files(system: System, patterns: Sequence[str], gaps: GapRecorder) -> Iterator[tuple[str, str]]:
    """Yields path (below the root) and text of each file, in the order of the patterns and sorted by name."""
    for pattern in patterns:
        folder, _, names = pattern.rpartition("/")
        paths: list[str] = []
        with gaps.capture(folder):
            paths = [f"{folder}/{path.name}" for path in list_files(system.path(folder), names)]
        for path in paths:
            with gaps.capture(path):
                yield path, read_text(system.path(path))
