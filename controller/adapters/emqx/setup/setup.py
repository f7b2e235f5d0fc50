"""EMQX brought to what Cordon needs: sources, rules, limits, the controller's user, and what was asked for by name.

Zone settings go through `PUT /configs/global_zone`, which replaces the sections it is given: the whole `mqtt` section
is read, two or three keys are changed, and it is written back.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

import controller.adapters.emqx.setup.baseline as base
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import DATABASE, SourceRow
from controller.adapters.emqx.setup.baseline import ExecutableChange, SetupSnapshot
from controller.adapters.emqx.setup.manual_steps import left_to_do
from controller.ports.broker_setup import BrokerSetup, DesiredSetup, SavePreviousSetup, SettingChange, SetupPlan
from controller.ports.broker_tables import AccessRule, AccessRules
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerNotFoundError, BrokerRefusedError

QUEUE: Final = 100_000  # messages that wait for a controller that is away; the audit wants 10,000 at least
ENOUGH_QUEUE: Final = 10_000
_ZONE: Final = "/configs/global_zone"
_SETTINGS: Final = "/authorization/settings"
_MQTT_KEYS: Final = ("max_inflight", "max_mqueue_len", "peer_cert_as_clientid")
_OF_ALL: Final = "it is a setting of all clients"
_RENAMES: Final = "clients whose id is not their certificate's common name get another one, and lose their session"
_CUTS_OFF: Final = "cuts off every client that no rule allows what it does"
_RULES: Final = TypeAdapter(tuple[AccessRule, ...])
_SOURCES: Final = TypeAdapter(tuple[SourceRow, ...])


@dataclass(frozen=True, slots=True)
class PreviousBrokerSettings:
    """Everything that setup may change, as it was. `None` is what the API key may not read, or EMQX does not have."""

    base: SetupSnapshot
    mqtt: dict[str, Any] | None
    settings: dict[str, Any] | None
    authenticator: str  # the built-in one that knows user names; empty if there is none
    user: str
    has_user: bool

    def text(self) -> str:
        """To be kept: of the zone only what setup changes."""
        mqtt = None if self.mqtt is None else {key: self.mqtt.get(key) for key in _MQTT_KEYS}
        return json.dumps(
            {
                "controller_id": self.base.controller_id,
                "sources": [row.model_dump(mode="json") for row in self.base.sources],
                "all_rules": [asdict(rule) for rule in self.base.all_rules],
                "controller_rules": [asdict(rule) for rule in self.base.controller_rules],
                "mqtt": mqtt,
                "no_match": None if self.settings is None else self.settings.get("no_match"),
                "authenticator": self.authenticator,
                "user": self.user,
                "has_user": self.has_user,
            }
        )


class EmqxSetup(BrokerSetup):
    """See the port."""

    def __init__(self, api: EmqxApi) -> None:
        """Use these calls."""
        self._api = api

    async def state(self, controller_id: str) -> str:
        """What `undo` takes: everything that setup may change, as it is now."""
        return (await self._read(controller_id, "")).text()

    async def changes(self, wanted: DesiredSetup) -> Sequence[SettingChange]:
        """See the port."""
        before = await self._read(wanted.controller_id, wanted.username)
        return [todo.change for todo in _todos(before, wanted)]

    async def plan(self, wanted: DesiredSetup) -> SetupPlan:
        """See the port."""
        before = await self._read(wanted.controller_id, wanted.username)
        changes = tuple(todo.change for todo in _todos(before, wanted))
        return SetupPlan(
            changes, await left_to_do(self._api, wanted, before.mqtt, before.settings, before.authenticator)
        )

    async def apply(
        self, wanted: DesiredSetup, keep: SavePreviousSetup, *, safe_only: bool = False
    ) -> Sequence[SettingChange]:
        """See the port."""
        before = await self._read(wanted.controller_id, wanted.username)
        todos = tuple(todo for todo in _todos(before, wanted) if not (safe_only and todo.change.danger))
        if todos:
            await keep(before.text())
        return await base.apply(self._api, todos)

    async def plan_undo(self, before: str) -> Sequence[SettingChange]:
        """See the port."""
        return [todo.change for todo in await self._undoing(_parsed(before))]

    async def undo(self, before: str) -> Sequence[str]:
        """See the port."""
        was = _parsed(before)
        for todo in await self._undoing(was):
            await todo.make(self._api)
        left = list(await base.restore_sources(self._api, was.sources))
        await self._api.clear_all_caches()
        return left

    async def _undoing(self, was: "_Kept") -> list[ExecutableChange]:
        now = await self._read(was.controller_id, was.user)
        todos = [
            *_rules_back(was, now.base),
            *_zone_back(was.mqtt, now.mqtt),
            *_no_match_back(was.no_match, now.settings),
        ]
        if was.user and not was.has_user and now.has_user and now.authenticator == was.authenticator:
            change = SettingChange(f"user {was.user} of {was.authenticator}", "there", "removed")
            path = _user_path(was.authenticator, was.user)
            todos.append(ExecutableChange(change, _asking("DELETE", path, "delete user")))
        if [row.type for row in now.base.sources] != [row.type for row in was.sources]:
            order = tuple(", ".join(row.type for row in rows) or "none" for rows in (now.base.sources, was.sources))
            todos.append(ExecutableChange(SettingChange("whom the broker asks for access, in order", *order), _nothing))
        return todos

    async def _read(self, controller_id: str, username: str) -> PreviousBrokerSettings:
        authenticator = await self._authenticator()
        has_user = bool(username) and bool(authenticator) and await self._has_user(authenticator, username)
        return PreviousBrokerSettings(
            base=await base.snapshot(self._api, controller_id),
            mqtt=_section(await self._maybe(_ZONE), "mqtt"),
            settings=await self._maybe(_SETTINGS),
            authenticator=authenticator,
            user=username,
            has_user=has_user,
        )

    async def _maybe(self, path: str) -> dict[str, Any] | None:
        """A section, `None` where the key may not read it or this EMQX does not have it."""
        try:
            data = (await self._api.ask("GET", path, "read settings")).data
        except (BrokerRefusedError, BrokerNotFoundError):
            return None
        except BrokerAnswerError:
            return None  # an EMQX without this page answers with one of HTML
        return data if isinstance(data, dict) else None

    async def _authenticator(self) -> str:
        rows = await self._api.authenticators()
        return next(
            (row.id for row in rows if row.enable and row.backend == DATABASE and row.user_id_type == "username"), ""
        )

    async def _has_user(self, authenticator: str, name: str) -> bool:
        try:
            await self._api.ask("GET", _user_path(authenticator, name), "read user")
        except BrokerNotFoundError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Kept:
    controller_id: str
    sources: tuple[SourceRow, ...]
    all_rules: AccessRules
    controller_rules: AccessRules
    mqtt: dict[str, Any] | None
    no_match: str | None
    authenticator: str
    user: str
    has_user: bool


def _parsed(text: str) -> _Kept:
    try:
        raw = json.loads(text)
        for name, kind in (("all_rules", _RULES), ("controller_rules", _RULES), ("sources", _SOURCES)):
            raw[name] = kind.validate_python(raw[name])
        return _Kept(**raw)
    except (ValueError, KeyError, TypeError, ValidationError) as e:
        raise BrokerError("what was kept of the broker's settings cannot be read: put them back by hand") from e


def _section(data: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    found = None if data is None else data.get(name)
    return found if isinstance(found, dict) else None


def _todos(before: PreviousBrokerSettings, wanted: DesiredSetup) -> tuple[ExecutableChange, ...]:
    todos = [*_user_todo(before, wanted), *base.plan(before.base), *_zone_todo(before, wanted)]
    if wanted.deny_unmatched and before.settings is not None and before.settings.get("no_match") != "deny":
        todos.append(_no_match_todo(before.settings, "deny"))
    return tuple(todos)


def _user_todo(before: PreviousBrokerSettings, wanted: DesiredSetup) -> list[ExecutableChange]:
    if not wanted.username or not wanted.password or not before.authenticator or before.has_user:
        return []
    body = {"user_id": wanted.username, "password": wanted.password, "is_superuser": False}
    change = SettingChange(f"user {wanted.username} of {before.authenticator}", "none", "there, not a superuser")
    path = f"/authentication/{quote(before.authenticator, safe='')}/users"
    return [ExecutableChange(change, _asking("POST", path, "add user", body))]


def _zone_todo(before: PreviousBrokerSettings, wanted: DesiredSetup) -> list[ExecutableChange]:
    if before.mqtt is None:
        return []
    mqtt, todos = before.mqtt, []
    target: dict[str, Any] = {}
    if wanted.receive_maximum and _number(mqtt.get("max_inflight")) < wanted.receive_maximum:
        target["max_inflight"] = wanted.receive_maximum
    if wanted.receive_maximum and 0 < _number(mqtt.get("max_mqueue_len")) < ENOUGH_QUEUE:
        target["max_mqueue_len"] = QUEUE
    if target:
        todos.append(_zone_change(mqtt, target, "limits of the controller's session", _OF_ALL))
    if wanted.client_id_from_certificate and mqtt.get("peer_cert_as_clientid") != "cn":
        target = {**target, "peer_cert_as_clientid": "cn"}
        todos = [*todos, _zone_change(mqtt, target, "where the client id comes from", _RENAMES)]
    return todos


def _number(value: Any) -> int:
    """A limit as a number; `infinity` and what makes no sense count as enough."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 1 << 30


def _zone_change(mqtt: dict[str, Any], target: dict[str, Any], what: str, danger: str) -> ExecutableChange:
    before = "\n".join(f"mqtt.{key} = {mqtt.get(key)}" for key in target)
    after = "\n".join(f"mqtt.{key} = {value}" for key, value in target.items())
    body = {"mqtt": {**mqtt, **target}}
    return ExecutableChange(SettingChange(what, before, after, danger), _asking("PUT", _ZONE, "write zone", body))


def _zone_back(was: dict[str, Any] | None, now: dict[str, Any] | None) -> list[ExecutableChange]:
    if was is None or now is None:
        return []
    target = {key: value for key, value in was.items() if key in _MQTT_KEYS and now.get(key) != value}
    return [_zone_change(now, target, "settings of the zone", _RENAMES)] if target else []


def _no_match_todo(settings: dict[str, Any], value: str) -> ExecutableChange:
    before, after = (f"authorization.no_match = {one}" for one in (settings.get("no_match"), value))
    change = SettingChange("what no rule decides", before, after, _CUTS_OFF if value == "deny" else "")
    return ExecutableChange(change, _asking("PUT", _SETTINGS, "write settings", {**settings, "no_match": value}))


def _no_match_back(was: str | None, now: dict[str, Any] | None) -> list[ExecutableChange]:
    return [] if was is None or now is None or now.get("no_match") == was else [_no_match_todo(now, was)]


def _rules_back(was: _Kept, now: SetupSnapshot) -> list[ExecutableChange]:
    """Take Cordon's rules away and leave what others have added since."""
    everybody = base.without(now.all_rules, base.rules_for_all(), was.all_rules)
    own = base.without(now.controller_rules, base.rules_for_controller(), was.controller_rules)
    controller_id = was.controller_id

    async def all_back(api: EmqxApi) -> None:
        await (api.write_all_rules(everybody) if everybody else api.delete_all_rules())

    async def own_back(api: EmqxApi) -> None:
        await (api.write_rules(controller_id, own) if own else api.delete_rules(controller_id))

    todos = []
    if everybody != now.all_rules:
        todos.append(
            ExecutableChange(
                SettingChange("rules for all clients", base.text(now.all_rules), base.text(everybody)), all_back
            )
        )
    if own != now.controller_rules:
        change = SettingChange(f"rules of the client {controller_id}", base.text(now.controller_rules), base.text(own))
        todos.append(ExecutableChange(change, own_back))
    return todos


def _user_path(authenticator: str, name: str) -> str:
    return f"/authentication/{quote(authenticator, safe='')}/users/{quote(name, safe='')}"


def _asking(method: Any, path: str, what: str, body: object = None) -> Callable[[EmqxApi], Awaitable[None]]:
    async def make(api: EmqxApi) -> None:
        await api.ask(method, path, what, body=body)

    return make


async def _nothing(_api: EmqxApi) -> None:
    """The order of sources is put back at the end, by `restore_sources`."""
