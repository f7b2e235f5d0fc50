"""What a comparison reads of the broker: its tables as one node lists them, row by row, and single rows once more."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from controller.ports.broker import AccessRules, Ban

# Whether the rows of this client id are worth taking apart; the others cost no more than their JSON.
SubjectFilter = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class TableCounts:
    """Rows of one node's tables; `None` where it does not tell."""

    bans: int | None
    rules: int | None


class BrokerTables(Protocol):
    """The broker's tables, asked of one node at a time.

    `node` is one of `addresses`, and is asked once. Errors are `BrokerError` and its kinds.
    """

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every configured node."""
        ...

    def bans(self, node: str, wanted: SubjectFilter) -> AsyncIterator[Ban]:
        """Bans of client ids that Cordon made or whose client id is wanted, page by page."""
        ...

    def rules(self, node: str, wanted: SubjectFilter) -> AsyncIterator[tuple[str, AccessRules]]:
        """The rules of every wanted client that has any of its own, page by page."""
        ...

    async def counts(self, node: str) -> TableCounts:
        """How many rows the node holds: two small requests, however large the tables."""
        ...

    async def ban_of(self, node: str, client_id: str) -> Ban | None:
        """The client id's own row."""
        ...

    async def rules_of(self, node: str, client_id: str) -> AccessRules | None:
        """The client's own rules, `None` if it has none."""
        ...

    async def write_rules(self, node: str, client_id: str, rules: AccessRules) -> None:
        """Write them through this node, which then holds them whatever it missed."""
        ...

    async def write_ban(self, node: str, ban: Ban) -> None:
        """Write the row through this node; one that is there stays."""
        ...
