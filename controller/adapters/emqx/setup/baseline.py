"""The least setup with which Cordon can contain devices: the order of EMQX's sources, rules for Cordon's topics."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import DATABASE, SourceRow, rule_text, rules_of
from controller.domain.containment.plan import Subject
from controller.ports.broker_setup import SettingChange
from controller.ports.broker_tables import AccessRule, AccessRules
from schemas import topics

SOURCE_ORDER: Final = "order of authorization sources"


@dataclass(frozen=True, slots=True)
class SetupSnapshot:
    """The settings that the baseline may change, as they are."""

    controller_id: str
    sources: tuple[SourceRow, ...]
    all_rules: AccessRules
    controller_rules: AccessRules
    other_rules: Mapping[str, AccessRules] = field(default_factory=dict)  # of the other controllers, by client id


@dataclass(frozen=True, slots=True)
class ExecutableChange:
    """A change, and what makes it."""

    change: SettingChange
    make: Callable[[EmqxApi], Awaitable[None]]


def rules_for_all() -> AccessRules:
    """A device may use its own branch, and nobody the branch of another, whatever `no_match` says."""
    return (
        AccessRule(topics.up_branch("${clientid}"), "allow", "publish"),
        AccessRule(topics.down_branch("${clientid}"), "allow", "subscribe"),
        AccessRule(topics.ALL_TOPICS, "deny", "all"),
    )


def rules_for_controller() -> AccessRules:
    """The controller's own rules, which EMQX consults before those for all."""
    return (
        AccessRule(topics.ALL_UP, "allow", "subscribe"),
        AccessRule(topics.PRESENCE, "allow", "subscribe"),
        AccessRule(topics.ALL_DOWN, "allow", "publish"),
    )


async def read_all_rules(api: EmqxApi) -> AccessRules:
    row = await api.send(requests.read_all_rules())
    return () if row is None else rules_of(row)


async def snapshot(api: EmqxApi, controller_id: str, others: Sequence[str] = ()) -> SetupSnapshot:
    """`others`: client ids of the other controllers."""
    sources = await api.send(requests.read_sources())
    all_rules: AccessRules = ()
    controller_rules: AccessRules = ()
    other_rules: dict[str, AccessRules] = dict.fromkeys(others, ())
    if any(source.type == DATABASE for source in sources):
        all_rules = await read_all_rules(api)
        own_rules = await api.send(requests.read_rules(Subject.client(controller_id)))
        controller_rules = own_rules or ()
        for other in others:
            found = await api.send(requests.read_rules(Subject.client(other)))
            other_rules[other] = found or ()
    return SetupSnapshot(controller_id, sources, all_rules, controller_rules, other_rules)


def plan(before: SetupSnapshot) -> tuple[ExecutableChange, ...]:
    """The changes that are needed; empty when all is there. Pure: `apply` makes them."""
    changes = [_source_change(before.sources), _all_rules_change(before.all_rules)]
    controllers = {before.controller_id: before.controller_rules, **before.other_rules}
    changes += [_controller_rules_change(client_id, rules) for client_id, rules in controllers.items()]
    return tuple(change for change in changes if change is not None)


async def apply(api: EmqxApi, changes: tuple[ExecutableChange, ...]) -> tuple[SettingChange, ...]:
    """Makes the changes, in order."""
    for change in changes:
        await change.make(api)
    if changes:
        await api.send(requests.clear_all_caches())
    return tuple(change.change for change in changes)


async def restore_sources(api: EmqxApi, before: tuple[SourceRow, ...]) -> list[str]:
    """Puts the database source back where it was, or removes it again; returns what had to stay, and why.

    A database source that setup added stays while it holds anybody's rules: removing it would delete them.
    """
    kinds = [source.type for source in before]
    if DATABASE not in kinds:
        return await _remove_database(api)
    await _move_database_back(api, before, kinds.index(DATABASE))
    return []


def without_cordon_rules(now: AccessRules, ours: AccessRules, before: AccessRules) -> AccessRules:
    """The rules as they were before, with what others have added since."""
    if now == _in_front(ours, before):
        return before
    return tuple(rule for rule in now if rule not in ours or rule in before)


async def _remove_database(api: EmqxApi) -> list[str]:
    async for row in api.rows(requests.list_client_rules):
        return [f"the built-in database stays: {row.clientid} has rules in it"]
    if (await api.send(requests.list_user_rules(limit=1))).data:
        return ["the built-in database stays: a user name has rules in it"]
    await api.send(requests.delete_source(DATABASE))
    return []


async def _move_database_back(api: EmqxApi, sources: tuple[SourceRow, ...], index: int) -> None:
    now = await api.send(requests.read_sources())
    kinds = [source.type for source in sources]
    if [source.type for source in now] != kinds:
        await api.send(requests.move_source(DATABASE, f"after:{kinds[index - 1]}" if index else "front"))
    if next((source for source in now if source.type == DATABASE), None) != sources[index]:
        await api.send(requests.write_source(sources[index]))


def _source_change(sources: tuple[SourceRow, ...]) -> ExecutableChange | None:
    kinds = [source.type for source in sources]
    before = ", ".join(source.type + ("" if source.enable else " (off)") for source in sources) or "none"
    others = ", ".join(kind for kind in kinds if kind != DATABASE)
    after = f"{DATABASE}, {others}" if others else DATABASE
    change = SettingChange(what=SOURCE_ORDER, before=before, after=after)
    database = next((source for source in sources if source.type == DATABASE), None)
    if database is None:
        return ExecutableChange(change, lambda api: api.send(requests.create_database()))
    if kinds[0] == DATABASE and database.enable:
        return None

    async def make(api: EmqxApi) -> None:
        if not database.enable:
            await api.send(requests.write_source(database.model_copy(update={"enable": True})))
        if kinds[0] != DATABASE:
            await api.send(requests.move_source(DATABASE, "front"))

    return ExecutableChange(change, make)


def _all_rules_change(before: AccessRules) -> ExecutableChange | None:
    wanted = _in_front(rules_for_all(), before)
    if wanted == before:
        return None
    change = SettingChange(what="rules for all clients", before=rules_text(before), after=rules_text(wanted))
    return ExecutableChange(change, lambda api: api.send(requests.write_all_rules(wanted)))


def _controller_rules_change(client_id: str, rules: AccessRules) -> ExecutableChange | None:
    controller = Subject.client(client_id)
    wanted = _in_front(rules_for_controller(), rules)
    if wanted == rules:
        return None
    what = f"rules of the client {client_id}"
    change = SettingChange(what=what, before=rules_text(rules), after=rules_text(wanted))
    return ExecutableChange(change, lambda api: api.send(requests.write_rules(controller, wanted)))


def _in_front(needed: AccessRules, before: AccessRules) -> AccessRules:
    """The needed rules first, the others behind them in their order."""
    return needed + tuple(rule for rule in before if rule not in needed)


def rules_text(rules: AccessRules) -> str:
    return "\n".join(rule_text(rule) for rule in rules) or "none"
