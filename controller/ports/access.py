"""What access rules for the fleet need of the broker and of the store."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.domain.broker.access import AccessGrant, CompiledRules
from controller.ports.broker_tables import AccessRule, AccessRules


def as_broker_rules(rules: CompiledRules) -> AccessRules:
    """The same rules in the broker's form."""
    return tuple(AccessRule(one.topic, one.permission, one.action, one.qos, one.retain) for one in rules)


class AccessBroker(Protocol):
    """Reads and writes the clients' own rules. Errors are `BrokerError` and its kinds."""

    async def rules(self, client_id: str) -> AccessRules | None:
        """The client's own rules; `None` if it has none."""
        ...

    async def rules_of_all(self, wanted: Collection[str]) -> Mapping[str, AccessRules]:
        """The own rules of the wanted clients that have any, read page by page."""
        ...

    async def add(self, client_ids: Sequence[str], rules: AccessRules) -> bool:
        """Gives these rules to clients without own rules; false, and writes nothing, if one of them has some."""
        ...

    async def write(self, client_id: str, rules: AccessRules | None) -> None:
        """Replaces the client's own rules; `None` deletes them."""
        ...

    async def settle(self, client_id: str, rules: CompiledRules) -> None:
        """Clears the cache of a connected client, and ends its subscriptions that the rules do not allow."""
        ...


@dataclass(frozen=True, slots=True)
class WrittenRules:
    """The rules that Cordon wrote for a device, or is writing: until `done`, the broker may still have `previous`."""

    rules: CompiledRules
    previous: CompiledRules | None = None
    done: bool = True


@dataclass(frozen=True, slots=True)
class StoredTemplates:
    """The text of the templates file in force, when it was set (Unix seconds) and by whom."""

    text: str
    at: float
    actor: str


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """A grant; `ended_at` is `None` while it lasts."""

    grant: AccessGrant
    ended_at: float | None


class AccessStore(Protocol):
    """Durable: what a method stored survives power loss once it returns. Errors are `StoreError` and its kinds."""

    async def templates(self) -> StoredTemplates | None:
        """The templates in force."""
        ...

    async def put_templates(self, kept: StoredTemplates) -> None:
        """Puts these templates in force."""
        ...

    async def drop_templates(self) -> None:
        """No templates are in force any longer."""
        ...

    async def written(self, device_ids: Sequence[str] | None = None) -> Mapping[str, WrittenRules]:
        """The rules of every device, for the start; or of some."""
        ...

    async def begin(self, rows: Mapping[str, WrittenRules]) -> None:
        """Stores rules before they are written at the broker."""
        ...

    async def done(self, device_ids: Sequence[str]) -> None:
        """Marks the rules as written at the broker."""
        ...

    async def forget(self, device_ids: Sequence[str]) -> None:
        """Cordon manages the rules of these devices no longer, and has deleted its own."""
        ...

    async def open_grants(self, device_id: str | None = None) -> Sequence[AccessGrant]:
        """Every grant that has not ended, for the start; or those of a device."""
        ...

    async def put_grant(self, grant: AccessGrant) -> None:
        """Adds a grant."""
        ...

    async def end_grants(self, grant_ids: Sequence[str], at: float) -> None:
        """Marks grants as ended."""
        ...

    async def grants(self, *, device_id: str | None = None, limit: int = 200) -> Sequence[GrantRecord]:
        """Grants, newest first, ended grants too."""
        ...
