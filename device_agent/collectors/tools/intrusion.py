"""Which intrusion monitors are on this device, and whether the agent can follow what they write."""

import time
from datetime import UTC, datetime
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.tools.lynis import age_days
from device_agent.errors import NotApplicableError
from device_agent.host.intrusion_monitors import AlertSource, running, sources
from device_agent.host.system import System
from device_agent.settings import IntrusionSettings
from schemas.sections.tools import MAX_MONITORS

_LIST_ONLY: Final = 1  # byte, to see whether reading is allowed


class IntrusionCollector:
    """The collector of the `intrusion` section."""

    def __init__(self, settings: IntrusionSettings) -> None:
        self._settings = settings

    def __call__(self, system: System) -> Section:
        """The `intrusion` section."""
        found = sources(self._settings.watch, system)
        if not found:
            raise NotApplicableError("no intrusion monitor is installed")
        try:
            alive: frozenset[str] | None = running(system)
        except OSError:
            alive = None
        return {"state": "ok", "monitors": [_monitor(system, one, alive) for one in found[:MAX_MONITORS]]}


def _monitor(system: System, source: AlertSource, alive: frozenset[str] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "monitor": source.monitor,
        "path": source.path,
        "readable": False,
        "running": None if alive is None else source.monitor in alive,
        "age_days": None,
        "reason": "",
    }
    path = system.path(source.path)
    try:
        with path.open("rb") as file:
            file.read(_LIST_ONLY)
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return {**entry, "readable": True, "age_days": age_days(written, time.time())}
    except FileNotFoundError:
        return {**entry, "reason": "there is no such file"}
    except PermissionError:
        return {**entry, "reason": "needs root"}
    except OSError as e:
        return {**entry, "reason": e.strerror or "cannot be read"}
