"""Retention of rejected messages, from an index in memory, so that an insert does not search the table."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Self

from controller.adapters.sql.options import StoreOptions


class DeadLetterIndex:
    """Numbers and devices of the stored dead letters; deletes the oldest of a device first, then the oldest of all."""

    def __init__(self, kept: Iterable[tuple[int, str]], next_seq: int, *, most: int, most_per_device: int) -> None:
        """Takes the rows of the table, oldest first, the next number, and the bounds."""
        self._most = most
        self._most_per_device = most_per_device
        self._all: OrderedDict[int, str] = OrderedDict()
        self._by_device: dict[str, deque[int]] = {}
        self._next = next_seq
        self._left_over: list[int] = []
        for seq, device_id in kept:
            self._left_over += self._keep(seq, device_id)

    @classmethod
    def of(cls, kept: Sequence[tuple[int, str]], options: StoreOptions) -> Self:
        """The index of the rows of a table, oldest first."""
        bounds = {"most": options.max_dead_letters, "most_per_device": options.max_dead_letters_per_device}
        return cls(kept, kept[-1][0] + 1 if kept else 1, **bounds)

    def add(self, device_id: str) -> tuple[int, list[int]]:
        """Returns the number of a new dead letter, and the numbers of those to delete."""
        seq = self._next
        self._next += 1
        gone = self._left_over + self._keep(seq, device_id)
        self._left_over = []  # what a lower bound than before leaves over goes with the first insert
        return seq, gone

    def _keep(self, seq: int, device_id: str) -> list[int]:
        gone: list[int] = []
        mine = self._by_device.setdefault(device_id, deque())
        mine.append(seq)
        self._all[seq] = device_id
        if len(mine) > self._most_per_device:
            gone.append(mine.popleft())
            del self._all[gone[-1]]
        if len(self._all) > self._most:
            oldest, whose = self._all.popitem(last=False)
            self._by_device[whose].popleft()
            if not self._by_device[whose]:
                del self._by_device[whose]
            gone.append(oldest)
        return gone
