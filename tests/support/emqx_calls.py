"""Short forms of single requests to EMQX's API, through Cordon's own client."""

from functools import partial
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi, find_ban
from controller.adapters.emqx.client.http import HttpLimits
from controller.adapters.emqx.client.models import ClientRow
from controller.domain.containment.plan import Subject
from controller.ports.broker_tables import AccessRules, Ban

# A busy machine is no hung node: for tests of healthy brokers.
PATIENT: Final = HttpLimits(prompt_attempt_seconds=10.0, prompt_call_seconds=20.0)


async def rules_of(api: EmqxApi, client_id: str) -> AccessRules:
    rules = await api.send(requests.read_rules(Subject.client(client_id)))
    return rules or ()


async def write_rules(api: EmqxApi, client_id: str, rules: AccessRules) -> None:
    await api.send(requests.write_rules(Subject.client(client_id), rules))


async def delete_rules(api: EmqxApi, client_id: str) -> bool:
    return await api.send(requests.delete_rules(Subject.client(client_id)))


async def clients_with_rules(api: EmqxApi) -> list[str]:
    return [row.clientid async for row in api.rows(requests.list_client_rules)]


async def ban_of(api: EmqxApi, client_id: str) -> Ban | None:
    subject = Subject.client(client_id)
    return await find_ban(api, partial(requests.read_ban, subject), subject)


async def add_ban(api: EmqxApi, client_id: str, by: str, until: float | None = None) -> Ban:
    ban, made = await api.send(requests.add_ban(Subject.client(client_id), by=by, reason="theirs", until=until))
    assert made
    return ban


async def lift_ban(api: EmqxApi, client_id: str) -> bool:
    return await api.send(requests.lift_ban(Subject.client(client_id)))


async def session_of(api: EmqxApi, client_id: str) -> ClientRow | None:
    return await api.send(requests.read_client(client_id))


async def subscriptions_of(api: EmqxApi, client_id: str) -> tuple[str, ...]:
    rows = await api.send(requests.read_subscriptions(client_id))
    return tuple(row.topic for row in rows or ())


async def publish(api: EmqxApi, topic: str, payload: bytes) -> bool:
    return await api.send(requests.publish(topic, payload))
