"""Loads what only commands need when the first one comes: most devices wait for years."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

from device_agent.domain.verdict import Judge, Judgement

if TYPE_CHECKING:
    from device_agent.actions.base import Action


class LateJudge:
    """A judge that is made when it is asked first."""

    def __init__(self, make: Callable[[], Judge]) -> None:
        self._make = make
        self._made: Judge | None = None
        self._mutex = Lock()

    def judge(self, raw: bytes, *, last_counter: int, known: Collection[str], now: datetime) -> Judgement:
        """As the judge that is made."""
        with self._mutex:
            if self._made is None:
                self._made = self._make()
        return self._made.judge(raw, last_counter=last_counter, known=known, now=now)


class LateActions(Mapping[str, "Action"]):
    """Actions that are made when one is looked for first, beside those that are there at once."""

    def __init__(
        self, make: Callable[[], "Mapping[str, Action]"], *, at_once: "Mapping[str, Action] | None" = None
    ) -> None:
        self._make = make
        self.at_once: Mapping[str, Action] = at_once or {}
        self._made: Mapping[str, Action] | None = None
        self._mutex = Lock()

    def __getitem__(self, name: str) -> "Action":
        return self.at_once[name] if name in self.at_once else self._others()[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._others(), **self.at_once})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _others(self) -> "Mapping[str, Action]":
        with self._mutex:
            if self._made is None:
                self._made = self._make()
            return self._made
