"""The book of differences between broker and store: what differs, since when, and what became of it."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

MAX_CLOSED: Final = 500  # differences remembered after they are gone
MAX_OPEN: Final = 10_000  # differences told one by one


class DriftState(StrEnum):
    """What became of a difference."""

    REPAIRING = "repairing"  # put right now; the next comparison sees whether it holds
    REPAIRED = "repaired"  # it was put right and is gone
    ALERTED = "alerted"  # left as it is, because a repair could do harm: somebody has to look
    GONE = "gone"  # it went away without Cordon


@dataclass(frozen=True, slots=True)
class DriftEntry:
    """One difference. Without a `device_id` it is one of the broker itself; `node` is where it was seen.

    `since` and `until` are Unix seconds; `until` is `None` while it lasts. `detail`: how it is repaired, or why not.
    """

    device_id: str
    what: str
    node: str
    state: DriftState
    detail: str
    since: float = 0.0
    until: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same difference in the next comparison."""
        return self.device_id, self.what, self.node


class DriftLog:
    """Open differences, and the last of those that are closed."""

    def __init__(self) -> None:
        """Empty: differences are facts of the broker and are found again after a restart."""
        self._open: dict[tuple[str, str, str], DriftEntry] = {}
        self._closed: deque[DriftEntry] = deque(maxlen=MAX_CLOSED)

    def note(self, found: Iterable[DriftEntry], nodes: frozenset[str], now: float) -> list[DriftEntry]:
        """Take what a comparison of these nodes found; those that are new, or are new again.

        A difference seen at another node stays open until that node is looked at again.
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
        """What differs now, oldest first."""
        return sorted(self._open.values(), key=lambda one: (one.since, one.key))

    @property
    def closed(self) -> list[DriftEntry]:
        """What differed and does not any more, newest first."""
        return list(reversed(self._closed))
