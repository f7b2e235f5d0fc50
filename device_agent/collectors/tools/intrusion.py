"""The intrusion monitors of this device (section `intrusion`), and whether the agent can read their alerts."""

import time
from datetime import UTC, datetime
from typing import Any, Final

from device_agent.collectors.base import Section, SectionBuilder, age_days
from device_agent.errors import NotApplicableError
from device_agent.host.intrusion_monitors import AlertSource, is_agent, running, sources
from device_agent.host.system import System
from device_agent.settings import IntrusionSettings
from schemas.safe_files import open_for_reading
from schemas.sections.tools import MAX_MONITORS

_PROBE_BYTES: Final = 1  # enough to check that reading is allowed


class IntrusionCollector:
    """Collects the `intrusion` section."""

    def __init__(self, settings: IntrusionSettings) -> None:
        self._settings = settings

    def __call__(self, system: System) -> Section:
        watched = sources(self._settings.watch, system)[:MAX_MONITORS]
        if not watched:
            if any(is_agent(monitor, system) for monitor in ("wazuh", "ossec")):
                raise NotApplicableError(
                    "the installed monitor sends its findings to its manager, which has the alerts"
                )
            raise NotApplicableError("no intrusion monitor is installed")
        try:
            active: frozenset[str] | None = running(system)
        except OSError:
            active = None
        return SectionBuilder(monitors=[_monitor(system, source, active) for source in watched]).build()


def _monitor(system: System, source: AlertSource, active: frozenset[str] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "monitor": source.monitor,
        "path": source.path,
        "readable": False,
        "running": None if active is None else source.monitor in active,
        "age_days": None,
        "reason": "",
    }
    path = system.path(source.path)
    try:
        with open_for_reading(path) as file:
            file.read(_PROBE_BYTES)
        written_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return {**entry, "readable": True, "age_days": age_days(written_at, time.time())}
    except FileNotFoundError:
        return {**entry, "reason": "there is no such file"}
    except PermissionError:
        return {**entry, "reason": "needs root"}
    except OSError as e:
        return {**entry, "reason": e.strerror or "cannot be read"}
