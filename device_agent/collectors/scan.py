"""Runs every collector when it is due, each in its own bounded thread: a slow or broken one costs only its section."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from device_agent.collectors.base import NOT_APPLICABLE, UNKNOWN, Collector, Section, StatefulCollector, unavailable
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System

COLLECTOR_SECONDS: Final = 60.0  # for one collector, its programs included
_log = logging.getLogger(__name__)


class Scanner:
    """Keeps track of collectors that still hang from an earlier scan, so that they do not pile up."""

    def __init__(
        self,
        system: System,
        collectors: Mapping[str, Collector],
        *,
        seconds: float = COLLECTOR_SECONDS,
        every: Mapping[str, float] | None = None,
    ) -> None:
        """Put it together.

        Args:
            system: what to look at.
            collectors: by section.
            seconds: for one collector.
            every: seconds for which what a collector found holds, by section; without them it looks at each scan.
        """
        self._system = system
        self._collectors = dict(collectors)
        self._seconds = seconds
        self._every = dict(every or {})
        self._held: dict[str, tuple[float, Section]] = {}
        self._hanging: dict[str, threading.Thread] = {}

    def remembered(self) -> dict[str, Any]:
        """What the collectors have to know next time, and what holds from before, for the next process that scans."""
        minds = {name: one.remembered() for name, one in self._collectors.items() if isinstance(one, StatefulCollector)}
        return {"held": self._held, "collectors": minds}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._held = memory["held"]
        for name, one in self._collectors.items():
            if isinstance(one, StatefulCollector) and name in memory["collectors"]:
                one.recall(memory["collectors"][name])

    def scan(self, *, is_fresh: bool = False) -> dict[str, Section]:
        """Every section, found or not; takes at most a little more than one collector may take.

        With `is_fresh` all of them are looked at anew, whatever their schedule: something was changed.
        """
        results: dict[str, Section] = {}
        started: dict[str, threading.Thread] = {}
        now = time.monotonic()
        deadline = now + self._seconds
        for name, collector in self._collectors.items():
            if not is_fresh and name in self._held and now - self._held[name][0] < self._every.get(name, 0.0):
                results[name] = self._held[name][1]
                continue
            hanging = self._hanging.get(name)
            if hanging is not None and hanging.is_alive():
                results[name] = unavailable(UNKNOWN, "still not done since an earlier scan")
                continue
            thread = threading.Thread(
                target=self._collect, args=(name, collector, results), name=f"collect-{name}", daemon=True
            )
            thread.start()
            started[name] = thread
        for thread in started.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        # A late collector may still write into `results`; what it says after its time does not count.
        found = dict(results)
        running = {**self._hanging, **started}
        self._hanging = {name: thread for name, thread in running.items() if thread.is_alive()}
        for name in self._collectors:
            found.setdefault(name, unavailable(UNKNOWN, f"not done within {self._seconds:g} s"))
        # What could not be found out is tried again at the next scan.
        good = {name: found[name] for name in started if name in self._every and found[name].get("state") == "ok"}
        self._held.update({name: (now, section) for name, section in good.items()})
        return found

    def _collect(self, name: str, collector: Collector, results: dict[str, Section]) -> None:
        try:
            results[name] = collector(self._system)
        except FactsUnavailableError as e:
            results[name] = unavailable(UNKNOWN, str(e))
        except NotApplicableError as e:
            results[name] = unavailable(NOT_APPLICABLE, str(e))
        except OSError as e:
            results[name] = unavailable(UNKNOWN, f"{e.filename or name}: {e.strerror}")
        except Exception as e:  # noqa: BLE001 - a broken collector must not cost the others their report
            _log.exception("collector %s is broken", name)
            results[name] = unavailable(UNKNOWN, f"collector failed: {type(e).__name__}: {e}")
