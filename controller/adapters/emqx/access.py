"""Access rules at EMQX: client by client, or a hundred clients in one call where none of them has any yet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.requests import SUBSCRIPTIONS_AT_ONCE, portions
from controller.adapters.emqx.client.responses import EmqxConflictError
from controller.adapters.emqx.tables import EmqxTables
from controller.domain.broker.access import CompiledRules, revoked_topics
from controller.domain.containment.plan import Subject
from controller.ports.access import AccessBroker
from controller.ports.broker_tables import AccessRules


class EmqxAccess(AccessBroker):
    def __init__(self, api: EmqxApi, tables: EmqxTables) -> None:
        self._api = api
        self._tables = tables

    async def rules(self, client_id: str) -> AccessRules | None:
        return await self._api.send(requests.read_rules(Subject.client(client_id)))

    async def rules_of_all(self, wanted: Collection[str]) -> Mapping[str, AccessRules]:
        return {client: rules async for client, rules in self._tables.rules("", wanted.__contains__)}

    async def add(self, client_ids: Sequence[str], rules: AccessRules) -> bool:
        request = requests.add_rules([(Subject.client(client_id), rules) for client_id in client_ids])
        try:
            # Repeated after a lost answer it would find its own rows, and take them for those of others.
            await self._api.send(replace(request, repeat=False))
        except EmqxConflictError:
            return False
        return True

    async def write(self, client_id: str, rules: AccessRules | None) -> None:
        subject = Subject.client(client_id)
        if rules is None:
            await self._api.send(requests.delete_rules(subject))
        else:
            await self._api.send(requests.write_rules(subject, rules))

    async def settle(self, client_id: str, rules: CompiledRules) -> None:
        cleared = await self._api.send(requests.clear_cache(client_id))
        if not cleared and await self._api.send(requests.read_client(client_id)) is None:
            return  # neither connected nor away with a session
        rows = await self._api.send(requests.read_subscriptions(client_id)) or ()
        refused = revoked_topics(rules, client_id, tuple(row.topic for row in rows))
        for portion in portions(refused, SUBSCRIPTIONS_AT_ONCE):
            await self._api.send(requests.unsubscribe(client_id, portion))
