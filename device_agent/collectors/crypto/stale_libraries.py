"""Programs that still run with a libssl or libcrypto that was replaced on disk, with its flaws."""

import os
import re
from typing import Final

from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System

MAX_PROCESSES: Final = 4096
MAX_MAP_BYTES: Final = 4 * 1024 * 1024  # of the map of one process
_DELETED: Final = re.compile(rb"/lib(?:ssl|crypto)[^/\n]*\.so[^/\n]* \(deleted\)$", re.MULTILINE)
_NAME_LETTERS: Final = 64


def stale_processes(system: System) -> tuple[list[str], bool]:
    """Names of the programs, sorted and each once; and whether some processes were closed to us.

    Raises:
        FactsUnavailableError: there is no list of processes.
    """
    try:
        pids = [name for name in os.listdir(system.path("/proc")) if name.isdigit()]  # noqa: PTH208 - names are enough
    except OSError as e:
        raise FactsUnavailableError("no list of processes") from e
    if not pids:
        raise FactsUnavailableError("no list of processes")
    found: set[str] = set()
    is_hidden = len(pids) > MAX_PROCESSES
    for pid in pids[:MAX_PROCESSES]:
        folder = system.path(f"/proc/{pid}")
        try:
            with (folder / "maps").open("rb") as file:
                mapped = file.read(MAX_MAP_BYTES)
            if _DELETED.search(mapped):
                found.add((folder / "comm").read_text(errors="replace").strip()[:_NAME_LETTERS] or "?")
        except PermissionError:
            is_hidden = True
        except OSError:
            continue  # ended while we looked, or a thread of the kernel
    return sorted(found), is_hidden
