"""What the broker needs before Cordon can contain anyone: shown first, written once, and taken back after a demo."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import DATABASE, SourceRow, rule_text
from controller.ports.broker_setup import SettingChange
from controller.ports.broker_tables import AccessRule, AccessRules
from schemas import topics


@dataclass(frozen=True, slots=True)
class SetupSnapshot:
    """The broker's settings before Cordon touched them."""

    controller_id: str
    sources: tuple[SourceRow, ...]
    all_rules: AccessRules
    controller_rules: AccessRules


@dataclass(frozen=True, slots=True)
class ExecutableChange:
    """A change, and how it is made."""

    change: SettingChange
    make: Callable[[EmqxApi], Awaitable[None]]


def rules_for_all() -> AccessRules:
    """What every device may do with its own branch, and nobody with another's, whatever `no_match` says."""
    return (
        AccessRule(topics.up_branch("${clientid}"), "allow", "publish"),
        AccessRule(topics.down_branch("${clientid}"), "allow", "subscribe"),
        AccessRule(topics.everything(), "deny", "all"),
    )


def rules_for_controller() -> AccessRules:
    """What the controller needs of the rules that bind everybody else."""
    return (
        AccessRule(topics.ALL_UP, "allow", "subscribe"),
        AccessRule(topics.PRESENCE, "allow", "subscribe"),
        AccessRule(topics.down_all(), "allow", "publish"),
    )


async def snapshot(api: EmqxApi, controller_id: str) -> SetupSnapshot:
    """Read the settings that setup may change."""
    sources = await api.sources()
    has_database = any(source.type == DATABASE for source in sources)
    return SetupSnapshot(
        controller_id=controller_id,
        sources=sources,
        all_rules=await api.all_rules() if has_database else (),
        controller_rules=await api.rules(controller_id) if has_database else (),
    )


def plan(before: SetupSnapshot) -> tuple[ExecutableChange, ...]:
    """What has to change; empty when all is there. Pure: the functions inside are only called by who applies them."""
    todos = [_source_todo(before.sources), _all_todo(before.all_rules), _controller_todo(before)]
    return tuple(todo for todo in todos if todo is not None)


async def apply(api: EmqxApi, todos: tuple[ExecutableChange, ...]) -> tuple[SettingChange, ...]:
    """Make the changes, in order."""
    for todo in todos:
        await todo.make(api)
    if todos:
        await api.clear_all_caches()
    return tuple(todo.change for todo in todos)


async def restore_sources(api: EmqxApi, before: tuple[SourceRow, ...]) -> list[str]:
    """Put the database source back where it was, or remove it again; returns what had to stay, and why.

    A database source that setup added stays while it holds anybody's rules: removing it would delete them.
    """
    kinds = [source.type for source in before]
    if DATABASE not in kinds:
        return await _remove_database(api)
    await _put_database_back(api, before, kinds.index(DATABASE))
    return []


def without(now: AccessRules, ours: AccessRules, before: AccessRules) -> AccessRules:
    """The rules as they were, with what others have added since, and without Cordon's own."""
    if now == _in_front(ours, before):
        return before
    return tuple(rule for rule in now if rule not in ours or rule in before)


async def _remove_database(api: EmqxApi) -> list[str]:
    async for client_id, _ in api.client_rules():
        return [f"the built-in database stays: {client_id} has rules in it"]
    if await api.has_user_rules():
        return ["the built-in database stays: a user name has rules in it"]
    await api.delete_source(DATABASE)
    return []


async def _put_database_back(api: EmqxApi, sources: tuple[SourceRow, ...], index: int) -> None:
    now = await api.sources()
    kinds = [source.type for source in sources]
    if [source.type for source in now] != kinds:
        await api.move_source(DATABASE, f"after:{kinds[index - 1]}" if index else "front")
    if next((source for source in now if source.type == DATABASE), None) != sources[index]:
        await api.write_source(sources[index])


def _source_todo(sources: tuple[SourceRow, ...]) -> ExecutableChange | None:
    kinds = [source.type for source in sources]
    had = ", ".join(source.type + ("" if source.enable else " (off)") for source in sources) or "none"
    others = ", ".join(kind for kind in kinds if kind != DATABASE)
    after = f"{DATABASE}, {others}" if others else DATABASE
    change = SettingChange(what="whom the broker asks for access, in order", before=had, after=after)
    found = next((source for source in sources if source.type == DATABASE), None)
    if found is None:
        return ExecutableChange(change, lambda api: api.create_database())
    if kinds[0] == DATABASE and found.enable:
        return None

    async def make(api: EmqxApi) -> None:
        if not found.enable:
            await api.write_source(found.model_copy(update={"enable": True}))
        if kinds[0] != DATABASE:
            await api.move_source(DATABASE, "front")

    return ExecutableChange(change, make)


def _all_todo(had: AccessRules) -> ExecutableChange | None:
    wanted = _in_front(rules_for_all(), had)
    if wanted == had:
        return None
    change = SettingChange(what="rules for all clients", before=text(had), after=text(wanted))
    return ExecutableChange(change, lambda api: api.write_all_rules(wanted))


def _controller_todo(before: SetupSnapshot) -> ExecutableChange | None:
    wanted = _in_front(rules_for_controller(), before.controller_rules)
    if wanted == before.controller_rules:
        return None
    what = f"rules of the client {before.controller_id}"
    change = SettingChange(what=what, before=text(before.controller_rules), after=text(wanted))
    return ExecutableChange(change, lambda api: api.write_rules(before.controller_id, wanted))


def _in_front(needed: AccessRules, had: AccessRules) -> AccessRules:
    """The needed rules first, the others behind them in their order."""
    return needed + tuple(rule for rule in had if rule not in needed)


def text(rules: AccessRules) -> str:
    """For an operator's eyes."""
    return "\n".join(rule_text(rule) for rule in rules) or "none"
