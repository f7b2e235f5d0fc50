"""What access rules for the fleet need of the broker and of the store."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.domain.broker.access import AccessGrant, CompiledRules
from controller.ports.broker_tables import AccessRules


class AccessBroker(Protocol):
    """Rules of clients, written and settled. Errors are `BrokerError` and its kinds."""

    async def rules(self, client_id: str) -> AccessRules | None:
        """The client's own rules; `None` if it has none."""
        ...

    async def rules_of_all(self, wanted: Collection[str]) -> Mapping[str, AccessRules]:
        """The own rules of those of the wanted clients that have any, read page by page."""
        ...

    async def add(self, client_ids: Sequence[str], rules: AccessRules) -> bool:
        """Give clients without rules of their own these; false, and nothing is written, if one of them has some."""
        ...

    async def write(self, client_id: str, rules: AccessRules | None) -> None:
        """Replace the client's own rules; `None` takes them away."""
        ...

    async def settle(self, client_id: str, rules: CompiledRules) -> None:
        """Let a connected client forget what it was allowed, and end subscriptions that the rules refuse now."""
        ...


@dataclass(frozen=True, slots=True)
class WrittenRules:
    """What Cordon wrote for a device, or is about to: while not `done`, `previous` may still be at the broker."""

    rules: CompiledRules
    previous: CompiledRules | None = None
    done: bool = True


@dataclass(frozen=True, slots=True)
class StoredTemplates:
    """The file in force, as it was given."""

    text: str
    at: float
    actor: str


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """A grant with its end; `ended_at` is `None` while it lasts."""

    grant: AccessGrant
    ended_at: float | None


class AccessStore(Protocol):
    """Durable: what returned survives power loss. Errors are `StoreError` and its kinds."""

    async def templates(self) -> StoredTemplates | None:
        """The templates in force."""
        ...

    async def put_templates(self, kept: StoredTemplates) -> None:
        """Put these in force."""
        ...

    async def written(self) -> Mapping[str, WrittenRules]:
        """What was written for every device, or is about to be, for the start."""
        ...

    async def begin(self, rows: Mapping[str, WrittenRules]) -> None:
        """Before anything is written at the broker."""
        ...

    async def done(self, device_ids: Sequence[str]) -> None:
        """The broker has it."""
        ...

    async def forget(self, device_ids: Sequence[str]) -> None:
        """Cordon gives these devices no rules any more, and took away those it gave."""
        ...

    async def open_grants(self) -> Sequence[AccessGrant]:
        """Every grant that has not ended, for the start."""
        ...

    async def put_grant(self, grant: AccessGrant) -> None:
        """Keep a new grant."""
        ...

    async def end_grants(self, grant_ids: Sequence[str], at: float) -> None:
        """They ended."""
        ...

    async def grants(self, *, device_id: str | None = None, limit: int = 200) -> Sequence[GrantRecord]:
        """Grants, newest first, ended ones too."""
        ...
