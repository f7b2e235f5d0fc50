"""Loads what only commands need when the first one comes: most devices wait for years."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

from device_agent.domain.verdict import CommandVerdict, EnvelopeVerifier

if TYPE_CHECKING:
    from device_agent.actions.base import RemediationAction


class LazyCommandVerifier:
    """A judge that is made when it is asked first."""

    def __init__(self, make: Callable[[], EnvelopeVerifier]) -> None:
        self._make = make
        self._made: EnvelopeVerifier | None = None
        self._mutex = Lock()

    def judge(self, raw: bytes, *, last_counter: int, known: Collection[str], now: datetime) -> CommandVerdict:
        """As the judge that is made."""
        with self._mutex:
            if self._made is None:
                self._made = self._make()
        return self._made.judge(raw, last_counter=last_counter, known=known, now=now)


class LazyActions(Mapping[str, "RemediationAction"]):
    """Actions that are made when one is looked for first, beside those that are there at once."""

    def __init__(
        self,
        make: Callable[[], "Mapping[str, RemediationAction]"],
        *,
        at_once: "Mapping[str, RemediationAction] | None" = None,
    ) -> None:
        self._make = make
        self.at_once: Mapping[str, RemediationAction] = at_once or {}
        self._made: Mapping[str, RemediationAction] | None = None
        self._mutex = Lock()

    def __getitem__(self, name: str) -> "RemediationAction":
        return self.at_once[name] if name in self.at_once else self._others()[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._others(), **self.at_once})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _others(self) -> "Mapping[str, RemediationAction]":
        with self._mutex:
            if self._made is None:
                self._made = self._make()
            return self._made
