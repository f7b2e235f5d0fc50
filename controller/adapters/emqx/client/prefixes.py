"""First levels of topics that begin with `$` and that the fleet uses: a restriction has to name each of them."""

from typing import Final

from controller.adapters.emqx.client import left_open_requests, requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.coalescing import SingleFlightRead
from controller.ports.broker_tables import KNOWN_PREFIXES, MAX_PREFIXES
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError

PREFIX_SECONDS: Final = 60.0  # how long a reading of all routes is used again
_STRIPPED: Final = {"$share": 2, "$delayed": 2, "$queue": 1, "$exclusive": 1}  # levels before the topic itself
_WILDCARDS: Final = frozenset("+#")


def prefix_of(topic: str) -> str:
    """The first level of the topic itself if it begins with `$` and is no known one, else empty."""
    levels = topic.removeprefix("eq ").split("/")
    while levels and levels[0] in _STRIPPED:
        levels = levels[_STRIPPED[levels[0]] :]
    first = levels[0] if levels else ""
    is_new = first.startswith("$") and first not in KNOWN_PREFIXES and not _WILDCARDS & set(first) and "${" not in first
    return first if is_new else ""


class PrefixesInUse:
    """Collects prefixes from the broker's routes and rules for all, and from rows that others read."""

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        self._api = api.prompt()
        self._clock = clock
        self._found: set[str] = set()
        self._read_at: float | None = None
        self._flight = SingleFlightRead(self._read)

    @property
    def found(self) -> frozenset[str]:
        return frozenset(self._found)

    @property
    def are_too_many(self) -> bool:
        """Whether there may be more than the rules of a client can name."""
        return len(self._found) >= MAX_PREFIXES

    def note(self, topic: str) -> None:
        prefix = prefix_of(topic)
        if prefix and len(self._found) < MAX_PREFIXES:
            self._found.add(prefix)

    async def refresh(self) -> str:
        """Reads the routes and the rules for all, if that was not done within `PREFIX_SECONDS`.

        Returns:
            Why they could not be read, else empty: then only what was seen before is named.
        """
        if self._read_at is not None and self._clock.monotonic() - self._read_at < PREFIX_SECONDS:
            return ""
        try:
            await self._flight.get()
        except BrokerError as e:
            return str(e)
        return ""

    async def _read(self) -> None:
        at = self._clock.monotonic()
        row = await self._api.send(requests.read_all_rules())
        for rule in () if row is None else row.rules:
            self.note(rule.topic)
        async for route in self._api.rows(left_open_requests.list_routes):
            self.note(route.topic)
        self._read_at = at
