"""The log of drift: differences between broker and store, since when they last, and how they ended."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

MAX_CLOSED: Final = 500  # closed entries that are kept
MAX_OPEN: Final = 10_000  # open entries


class DriftState(StrEnum):
    """What is done about a difference, or how it ended."""

    REPAIRING = "repairing"  # being repaired; the next comparison shows the result
    REPAIRED = "repaired"  # it was repaired and is gone
    ALERTED = "alerted"  # not repaired, because that could do harm: an operator decides
    GONE = "gone"  # it ended without a repair


@dataclass(frozen=True, slots=True)
class DriftEntry:
    """One difference at `node`; without a `device_id` it concerns the broker itself.

    `since` and `until` are Unix seconds; `until` is `None` while it lasts. `detail`: how it is repaired, or why not.
    """

    device_id: str
    what: str
    node: str
    state: DriftState
    detail: str
    case_id: str = ""
    since: float = 0.0
    until: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies the difference in the next comparison."""
        return self.device_id, self.what, self.node


class DriftLog:
    """Open differences, and the last closed ones. Kept in memory only: after a restart they are found again."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, str], DriftEntry] = {}
        self._closed: deque[DriftEntry] = deque(maxlen=MAX_CLOSED)

    def record(self, found: Iterable[DriftEntry], nodes: frozenset[str], now: float) -> list[DriftEntry]:
        """Records the result of comparing `nodes`; returns the entries that are new.

        An entry of another node stays open until that node is compared again.
        """
        fresh: list[DriftEntry] = []
        present: set[tuple[str, str, str]] = set()
        for one in found:
            present.add(one.key)
            known = self._open.get(one.key)
            if known is None:
                if len(self._open) >= MAX_OPEN:
                    continue
                self._open[one.key] = replace(one, since=now)
                fresh.append(self._open[one.key])
            elif (known.state, known.detail) != (one.state, one.detail):
                self._open[one.key] = replace(one, since=known.since)
        for key in [key for key in self._open if key not in present and (not key[2] or key[2] in nodes)]:
            gone = self._open.pop(key)
            state = DriftState.REPAIRED if gone.state is DriftState.REPAIRING else DriftState.GONE
            self._closed.append(replace(gone, state=state, until=now))
        return fresh

    @property
    def open(self) -> list[DriftEntry]:
        """Oldest first."""
        return sorted(self._open.values(), key=lambda one: (one.since, one.key))

    @property
    def closed(self) -> list[DriftEntry]:
        """Newest first."""
        return list(reversed(self._closed))
