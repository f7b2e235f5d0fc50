"""Loads what only commands need with the first command: most devices receive none for a long time."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING

from device_agent.domain.command_counters import CommandCounters
from device_agent.domain.verdict import CommandVerdict, EnvelopeVerifier

if TYPE_CHECKING:
    from device_agent.actions.base import Action


class LazyCommandVerifier:
    """A verifier that is made when the first envelope is received."""

    def __init__(self, make: Callable[[], EnvelopeVerifier]) -> None:
        self._make = make
        self._verifier: EnvelopeVerifier | None = None
        self._mutex = Lock()

    def verify(
        self, raw: bytes, *, counters: CommandCounters, known_command_ids: Collection[str], now: datetime
    ) -> CommandVerdict:
        with self._mutex:
            if self._verifier is None:
                self._verifier = self._make()
        return self._verifier.verify(raw, counters=counters, known_command_ids=known_command_ids, now=now)


class LazyActions(Mapping[str, "Action"]):
    """Actions by name: the `eager` ones exist from the start, `load` makes the others at the first look-up."""

    def __init__(
        self, load: Callable[[], "Mapping[str, Action]"], *, eager: "Mapping[str, Action] | None" = None
    ) -> None:
        self._load = load
        self.eager: Mapping[str, Action] = eager or {}
        self._loaded: Mapping[str, Action] | None = None
        self._mutex = Lock()

    def __getitem__(self, name: str) -> "Action":
        return self.eager[name] if name in self.eager else self._lazy()[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._lazy(), **self.eager})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _lazy(self) -> "Mapping[str, Action]":
        with self._mutex:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded
