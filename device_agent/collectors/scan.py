"""Runs every collector that is due in its own time-limited thread; a slow or failing one costs only its section."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from device_agent.collectors.base import NOT_APPLICABLE, UNKNOWN, Collector, StatefulCollector, unavailable
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System

COLLECTOR_SECONDS: Final = 60.0  # for one collector, the programs it runs included
_log = logging.getLogger(__name__)


class Scanner:
    """Collects all sections; does not start a collector again while its thread of an earlier scan still hangs."""

    def __init__(
        self,
        system: System,
        collectors: Mapping[str, Collector],
        *,
        seconds: float = COLLECTOR_SECONDS,
        every: Mapping[str, float] | None = None,
    ) -> None:
        """Creates the scanner.

        Args:
            system: the machine to scan.
            collectors: by section.
            seconds: time limit of one collector.
            every: seconds for which a collected section is reused, by section; the others are collected at each scan.
        """
        self._system = system
        self._collectors = dict(collectors)
        self._seconds = seconds
        self._every = dict(every or {})
        self._reusable: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._hanging: dict[str, threading.Thread] = {}

    def state(self) -> dict[str, Any]:
        """Returns the collectors' states and the reusable sections, JSON-ready, for the process of the next scan."""
        stateful = {name: c for name, c in self._collectors.items() if isinstance(c, StatefulCollector)}
        return {
            "reusable": self._reusable,
            "collectors": {name: collector.state() for name, collector in stateful.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self._reusable = {name: (float(at), section) for name, (at, section) in state["reusable"].items()}
        for name, collector in self._collectors.items():
            if isinstance(collector, StatefulCollector) and name in state["collectors"]:
                collector.restore(state["collectors"][name])

    def scan(self, *, force_rescan: bool = False) -> dict[str, Mapping[str, Any]]:
        """Returns every section, with or without facts; takes little longer than the time limit of one collector.

        With `force_rescan` no section is reused: something was changed.
        """
        results: dict[str, Mapping[str, Any]] = {}
        started: dict[str, threading.Thread] = {}
        now = time.monotonic()
        deadline = now + self._seconds
        for name, collector in self._collectors.items():
            if (
                not force_rescan
                and name in self._reusable
                and now - self._reusable[name][0] < self._every.get(name, 0.0)
            ):
                results[name] = self._reusable[name][1]
                continue
            hanging = self._hanging.get(name)
            if hanging is not None and hanging.is_alive():
                results[name] = unavailable(UNKNOWN, "still running since an earlier scan")
                continue
            thread = threading.Thread(
                target=self._collect, args=(name, collector, results), name=f"collect-{name}", daemon=True
            )
            thread.start()
            started[name] = thread
        for thread in started.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        # A late collector may still write into `results`; what it writes after the deadline does not count.
        sections = dict(results)
        running = {**self._hanging, **started}
        self._hanging = {name: thread for name, thread in running.items() if thread.is_alive()}
        for name in self._collectors:
            sections.setdefault(name, unavailable(UNKNOWN, f"not done within {self._seconds:g} s"))
        # A section without facts is collected again at the next scan.
        complete = [name for name in started if name in self._every and sections[name].get("state") == "ok"]
        self._reusable.update({name: (now, sections[name]) for name in complete})
        return sections

    def _collect(self, name: str, collector: Collector, results: dict[str, Mapping[str, Any]]) -> None:
        try:
            results[name] = collector(self._system)
        except FactsUnavailableError as e:
            results[name] = unavailable(UNKNOWN, str(e))
        except NotApplicableError as e:
            results[name] = unavailable(NOT_APPLICABLE, str(e))
        except OSError as e:
            results[name] = unavailable(UNKNOWN, f"{e.filename or name}: {e.strerror}")
        except Exception as e:  # noqa: BLE001 - a faulty collector must not cost the other sections
            _log.exception("collector %s failed", name)
            results[name] = unavailable(UNKNOWN, f"collector failed: {type(e).__name__}: {e}")
