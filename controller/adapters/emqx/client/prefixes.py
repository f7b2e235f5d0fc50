"""First levels of topics that begin with `$` and that the fleet uses: a restriction has to name each of them."""

from typing import Final

from controller.adapters.emqx.client import left_open_requests, requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.coalescing import SingleFlightRead
from controller.ports.broker_tables import KNOWN_PREFIXES, MAX_PREFIXES
from controller.ports.clock import Clock
from controller.ports.errors import BrokerError

PREFIX_SECONDS: Final = 60.0  # how long a reading of all routes is used again
FORGET_SECONDS: Final = 3600.0  # without being seen, longer than between two comparisons
# A client brings prefixes into use by subscribing: clients have half of the places, and of one client only a few count.
MAX_OF_ROUTES: Final = 32
MAX_OF_CLIENT: Final = 8
RULES: Final = ""  # the source of what operators wrote
ROUTES: Final = "routes"  # the source of topics of which the broker names no client
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


def own_rule(topic: str, permission: str, action: str) -> bool:
    """Whether a rule is one that a restriction denies a prefix with: it shows no use of the prefix."""
    prefix, _, rest = topic.partition("/")
    return prefix.startswith("$") and rest == "#" and permission == "deny" and action == "all"


class PrefixesInUse:
    """Collects prefixes from the broker's routes and rules for all, and from rows that others read.

    A prefix that nobody has used for `FORGET_SECONDS` is forgotten. `left_out`: those for which there is no place.
    """

    def __init__(self, api: EmqxApi, clock: Clock) -> None:
        self._api = api.prompt()
        self._clock = clock
        self._seen: dict[str, float] = {}  # when a prefix was last seen
        self._source: dict[str, str] = {}  # who brought it into use; what a rule names is the rules'
        self._left_out: dict[str, float] = {}
        self._read_at: float | None = None
        self._flight = SingleFlightRead(self._read)

    @property
    def found(self) -> frozenset[str]:
        self._forget()
        return frozenset(self._seen)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Prefixes in use that no rule denies, because there are too many; at most `MAX_PREFIXES` of them."""
        self._forget()
        return tuple(sorted(self._left_out))

    def note(self, topic: str, source: str = RULES) -> None:
        """Notes the prefix of a topic that `source` uses: `RULES`, `ROUTES`, or a client id."""
        prefix = prefix_of(topic)
        if not prefix:
            return
        now = self._clock.monotonic()
        if prefix in self._seen:
            self._seen[prefix] = now
            if source == RULES:
                self._source[prefix] = RULES
        elif self._has_place(source) or self._make_place(source):
            self._seen[prefix], self._source[prefix] = now, source
            self._left_out.pop(prefix, None)
        else:
            self._leave_out(prefix, now)

    def _has_place(self, source: str) -> bool:
        self._forget()
        if len(self._seen) >= MAX_PREFIXES:
            return False
        if source == RULES:
            return True
        sources = list(self._source.values())
        of_clients = sum(each != RULES for each in sources)
        return of_clients < MAX_OF_ROUTES and (source == ROUTES or sources.count(source) < MAX_OF_CLIENT)

    def _make_place(self, source: str) -> bool:
        """Gives a rule's prefix the place of one that only clients use."""
        if source != RULES:
            return False
        client = next((each for each in reversed(self._seen) if self._source[each] != RULES), None)
        if client is None:
            return False
        self._leave_out(client, self._drop(client))
        return True

    def _leave_out(self, prefix: str, seen: float) -> None:
        if prefix in self._left_out or len(self._left_out) < MAX_PREFIXES:
            self._left_out[prefix] = seen

    def _drop(self, prefix: str) -> float:
        del self._source[prefix]
        return self._seen.pop(prefix)

    def _forget(self) -> None:
        before = self._clock.monotonic() - FORGET_SECONDS
        for prefix in [each for each, at in self._seen.items() if at < before]:
            self._drop(prefix)
        self._left_out = {each: at for each, at in self._left_out.items() if at >= before}

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
            self.note(route.topic, ROUTES)
        self._read_at = at
