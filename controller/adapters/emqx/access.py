"""Access rules at EMQX: one by one, or a hundred clients at once where none of them has any yet."""

from collections.abc import Collection, Mapping, Sequence

from controller.adapters.emqx.client import models
from controller.adapters.emqx.client.api import RULES_PATH, EmqxApi
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.adapters.emqx.tables import EmqxTables
from controller.domain.broker.access import CompiledRules, revoked_topics
from controller.ports.access import AccessBroker
from controller.ports.broker_tables import AccessRules


class EmqxAccess(AccessBroker):
    """See the port."""

    def __init__(self, api: EmqxApi) -> None:
        """Use these calls."""
        self._api = api
        self._tables = EmqxTables(api)

    async def rules(self, client_id: str) -> AccessRules | None:
        """See the port."""
        return await self._api.rules_or_none(client_id)

    async def rules_of_all(self, wanted: Collection[str]) -> Mapping[str, AccessRules]:
        """See the port."""
        return {client: found async for client, found in self._tables.rules("", wanted.__contains__)}

    async def add(self, client_ids: Sequence[str], rules: AccessRules) -> bool:
        """See the port."""
        plain = [models.rule_body(rule) for rule in rules]
        body = [{"clientid": client_id, "rules": plain} for client_id in client_ids]
        try:
            await self._api.ask("POST", f"{RULES_PATH}/clients", "add rules", body=body, repeat=False)
        except EmqxConflictError:
            return False
        return True

    async def write(self, client_id: str, rules: AccessRules | None) -> None:
        """See the port."""
        if rules is None:
            await self._api.delete_rules(client_id)
        else:
            await self._api.write_rules(client_id, rules)

    async def settle(self, client_id: str, rules: CompiledRules) -> None:
        """See the port."""
        if not await self._api.clear_cache(client_id) and await self._api.client(client_id) is None:
            return  # neither connected nor away with a session
        refused = revoked_topics(rules, client_id, await self._api.subscriptions(client_id))
        if refused:
            await self._api.unsubscribe(client_id, refused)
