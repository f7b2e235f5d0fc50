"""Sets EMQX up for Cordon: sources, rules, the controller's user, and what an operator requests by name.

The limits of the controller's session belong to a zone of its own, which only EMQX's configuration can make: no limit
of all clients is changed for its sake. `PUT /configs/global_zone` refuses anything but the whole zone, so it is read,
one key is changed, and it is written back.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

import controller.adapters.emqx.setup.baseline as base
from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.http import ApiRequest, HttpMethod
from controller.adapters.emqx.client.models import DATABASE, SourceRow
from controller.adapters.emqx.client.paths import quoted
from controller.adapters.emqx.setup.baseline import ExecutableChange, SetupSnapshot
from controller.adapters.emqx.setup.manual_steps import manual_steps
from controller.adapters.emqx.wildcard import ban_wildcard, is_wildcard_banned, unban_wildcard
from controller.domain.containment.plan import Subject
from controller.ports.broker_setup import (
    NO_MATCH_STEP,
    BrokerSetup,
    DesiredSetup,
    SavePreviousSetup,
    SettingChange,
    SetupPlan,
)
from controller.ports.broker_tables import AccessRule, AccessRules
from controller.ports.errors import BrokerAnswerError, BrokerError, BrokerNotFoundError, BrokerRefusedError

WILDCARD_BAN: Final = "ban of the client id +"
_ZONE: Final = "/configs/global_zone"
_SETTINGS: Final = "/authorization/settings"
_MQTT_KEYS: Final = ("peer_cert_as_clientid",)
_RENAMES: Final = "clients whose id is not their certificate's common name get another one, and lose their session"
_CUTS_OFF: Final = "cuts off every client that uses a topic which no rule allows"
_RULES: Final = TypeAdapter(tuple[AccessRule, ...])
_SOURCES: Final = TypeAdapter(tuple[SourceRow, ...])


@dataclass(frozen=True, slots=True)
class PreviousBrokerSettings:
    """Everything that setup may change, as it was. `None` is what the API key may not read, or EMQX does not have."""

    base: SetupSnapshot
    zone: dict[str, Any] | None
    settings: dict[str, Any] | None
    authenticator: str  # the built-in authenticator by user name; empty if there is none
    user: str
    has_user: bool
    has_wildcard_ban: bool | None

    @property
    def mqtt(self) -> dict[str, Any] | None:
        """The section `mqtt` of the zone."""
        return None if self.zone is None else self.zone["mqtt"]

    def text(self) -> str:
        """JSON for the store; of the zone only what setup changes."""
        mqtt = None if self.mqtt is None else {key: self.mqtt.get(key) for key in _MQTT_KEYS}
        return json.dumps(
            {
                "controller_id": self.base.controller_id,
                "sources": [row.model_dump(mode="json") for row in self.base.sources],
                "all_rules": [asdict(rule) for rule in self.base.all_rules],
                "controller_rules": [asdict(rule) for rule in self.base.controller_rules],
                "other_rules": {
                    client_id: [asdict(rule) for rule in rules] for client_id, rules in self.base.other_rules.items()
                },
                "mqtt": mqtt,
                "no_match": None if self.settings is None else self.settings.get("no_match"),
                "authenticator": self.authenticator,
                "user": self.user,
                "has_user": self.has_user,
                "has_wildcard_ban": self.has_wildcard_ban,
            }
        )


class EmqxSetup(BrokerSetup):
    def __init__(self, api: EmqxApi) -> None:
        self._api = api

    async def state(self, controller_id: str) -> str:
        """Everything that setup may change, as it is now, as `undo` takes it."""
        return (await self._read(controller_id, "")).text()

    async def changes(self, wanted: DesiredSetup) -> Sequence[SettingChange]:
        before = await self._read(wanted.controller_id, wanted.username, wanted.others)
        return [change.change for change in _changes(before, wanted)]

    async def plan(self, wanted: DesiredSetup) -> SetupPlan:
        before = await self._read(wanted.controller_id, wanted.username, wanted.others)
        changes = tuple(change.change for change in _changes(before, wanted))
        left = await manual_steps(self._api, wanted, before.mqtt, before.settings, before.authenticator)
        return SetupPlan(changes, left)

    async def apply(
        self, wanted: DesiredSetup, save: SavePreviousSetup, *, safe_only: bool = False
    ) -> Sequence[SettingChange]:
        before = await self._read(wanted.controller_id, wanted.username, wanted.others)
        changes = tuple(change for change in _changes(before, wanted) if not (safe_only and change.change.danger))
        if changes:
            await save(before.text())
        return await base.apply(self._api, changes)

    async def plan_undo(self, before: str, others: Sequence[str] = ()) -> Sequence[SettingChange]:
        return [change.change for change in await self._undo_changes(_parsed(before), others)]

    async def undo(self, before: str, others: Sequence[str] = ()) -> Sequence[str]:
        was = _parsed(before)
        for change in await self._undo_changes(was, others):
            await change.make(self._api)
        left = list(await base.restore_sources(self._api, was.sources))
        await self._api.send(requests.clear_all_caches())
        return left

    async def _undo_changes(self, was: "_SavedState", others: Sequence[str]) -> list[ExecutableChange]:
        now = await self._read(was.controller_id, was.user, [one for one in others if one != was.controller_id])
        changes = [
            *_restore_rules(was, now.base),
            *_restore_zone(was.mqtt, now.zone),
            *_restore_no_match(was.no_match, now.settings),
        ]
        if was.has_wildcard_ban is False and now.has_wildcard_ban:
            changes.append(ExecutableChange(SettingChange(WILDCARD_BAN, "for ever", "removed"), unban_wildcard))
        if was.user and not was.has_user and now.has_user and now.authenticator == was.authenticator:
            change = SettingChange(f"user {was.user} of {was.authenticator}", "there", "removed")
            path = _user_path(was.authenticator, was.user)
            changes.append(ExecutableChange(change, _sender("DELETE", path, "delete user")))
        if [row.type for row in now.base.sources] != [row.type for row in was.sources]:
            order = tuple(", ".join(row.type for row in rows) or "none" for rows in (now.base.sources, was.sources))
            changes.append(ExecutableChange(SettingChange(base.SOURCE_ORDER, *order), _left_to_restore_sources))
        return changes

    async def _read(self, controller_id: str, username: str, others: Sequence[str] = ()) -> PreviousBrokerSettings:
        authenticator = await self._authenticator()
        has_user = bool(username) and bool(authenticator) and await self._has_user(authenticator, username)
        zone = await self._read_optional(_ZONE)
        return PreviousBrokerSettings(
            base=await base.snapshot(self._api, controller_id, others),
            zone=zone if zone is not None and isinstance(zone.get("mqtt"), dict) else None,
            settings=await self._read_optional(_SETTINGS),
            authenticator=authenticator,
            user=username,
            has_user=has_user,
            has_wildcard_ban=await is_wildcard_banned(self._api),
        )

    async def _read_optional(self, path: str) -> dict[str, Any] | None:
        """Reads a section, `None` where the key may not read it or this EMQX does not have it."""
        try:
            data = await self._api.send(requests.json_request("GET", path, "read settings"))
        except (BrokerRefusedError, BrokerNotFoundError):
            return None
        except BrokerAnswerError:
            return None  # an EMQX without this path answers with a page of HTML
        return data if isinstance(data, dict) else None

    async def _authenticator(self) -> str:
        rows = await self._api.send(requests.read_authenticators())
        by_name = (row.id for row in rows if row.enable and row.backend == DATABASE and row.user_id_type == "username")
        return next(by_name, "")

    async def _has_user(self, authenticator: str, name: str) -> bool:
        try:
            await self._api.send(requests.json_request("GET", _user_path(authenticator, name), "read user"))
        except BrokerNotFoundError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _SavedState:
    controller_id: str
    sources: tuple[SourceRow, ...]
    all_rules: AccessRules
    controller_rules: AccessRules
    mqtt: dict[str, Any] | None
    no_match: str | None
    authenticator: str
    user: str
    has_user: bool
    has_wildcard_ban: bool | None = True
    other_rules: Mapping[str, AccessRules] = field(default_factory=dict)


def _parsed(text: str) -> _SavedState:
    try:
        raw = json.loads(text)
        for name, kind in (("all_rules", _RULES), ("controller_rules", _RULES), ("sources", _SOURCES)):
            raw[name] = kind.validate_python(raw[name])
        raw["other_rules"] = {name: _RULES.validate_python(rules) for name, rules in raw.get("other_rules", {}).items()}
        return _SavedState(**raw)
    except (ValueError, KeyError, TypeError, ValidationError) as e:
        raise BrokerError("the saved broker settings cannot be read: restore the settings yourself") from e


def _changes(before: PreviousBrokerSettings, wanted: DesiredSetup) -> tuple[ExecutableChange, ...]:
    changes = [*_user_changes(before, wanted), *base.plan(before.base), *_zone_changes(before, wanted)]
    if before.has_wildcard_ban is False:
        changes.append(ExecutableChange(SettingChange(WILDCARD_BAN, "none", "for ever"), ban_wildcard))
    if wanted.deny_unmatched and before.settings is not None and before.settings.get("no_match") != "deny":
        changes.append(_no_match_change(before.settings, "deny"))
    return tuple(changes)


def _user_changes(before: PreviousBrokerSettings, wanted: DesiredSetup) -> list[ExecutableChange]:
    if not wanted.username or not wanted.password or not before.authenticator or before.has_user:
        return []
    body = {"user_id": wanted.username, "password": wanted.password, "is_superuser": False}
    change = SettingChange(f"user {wanted.username} of {before.authenticator}", "none", "there, not a superuser")
    path = f"/authentication/{quoted(before.authenticator)}/users"
    return [ExecutableChange(change, _sender("POST", path, "add user", body))]


def _zone_changes(before: PreviousBrokerSettings, wanted: DesiredSetup) -> list[ExecutableChange]:
    if before.zone is None or not wanted.client_id_from_certificate:
        return []
    if before.zone["mqtt"].get("peer_cert_as_clientid") == "cn":
        return []
    return [_zone_change(before.zone, {"peer_cert_as_clientid": "cn"}, "client ids from certificates", _RENAMES)]


def _zone_change(zone: dict[str, Any], target: dict[str, Any], what: str, danger: str) -> ExecutableChange:
    mqtt = zone["mqtt"]
    before = "\n".join(f"mqtt.{key} = {mqtt.get(key)}" for key in target)
    after = "\n".join(f"mqtt.{key} = {value}" for key, value in target.items())
    body = {**zone, "mqtt": {**mqtt, **target}}
    return ExecutableChange(SettingChange(what, before, after, danger), _sender("PUT", _ZONE, "write zone", body))


def _restore_zone(was: dict[str, Any] | None, now: dict[str, Any] | None) -> list[ExecutableChange]:
    if was is None or now is None:
        return []
    target = {key: value for key, value in was.items() if key in _MQTT_KEYS and now["mqtt"].get(key) != value}
    return [_zone_change(now, target, "client ids from certificates", _RENAMES)] if target else []


def _no_match_change(settings: dict[str, Any], value: str) -> ExecutableChange:
    before, after = (f"authorization.no_match = {each}" for each in (settings.get("no_match"), value))
    change = SettingChange(NO_MATCH_STEP, before, after, _CUTS_OFF if value == "deny" else "")
    return ExecutableChange(change, _sender("PUT", _SETTINGS, "write settings", {**settings, "no_match": value}))


def _restore_no_match(was: str | None, now: dict[str, Any] | None) -> list[ExecutableChange]:
    return [] if was is None or now is None or now.get("no_match") == was else [_no_match_change(now, was)]


def _restore_rules(was: _SavedState, now: SetupSnapshot) -> list[ExecutableChange]:
    """Removes Cordon's rules and leaves what others have added since."""
    for_all = base.without_cordon_rules(now.all_rules, base.rules_for_all(), was.all_rules)

    async def restore_all(api: EmqxApi) -> None:
        request: ApiRequest[object] = requests.write_all_rules(for_all) if for_all else requests.delete_all_rules()
        await api.send(request)

    changes = []
    if for_all != now.all_rules:
        texts = (base.rules_text(now.all_rules), base.rules_text(for_all))
        changes.append(ExecutableChange(SettingChange("rules for all clients", *texts), restore_all))
    before = {was.controller_id: was.controller_rules, **was.other_rules}
    for client_id, rules in {was.controller_id: now.controller_rules, **now.other_rules}.items():
        own = base.without_cordon_rules(rules, base.rules_for_controller(), before.get(client_id, ()))
        if own != rules:
            changes.append(_restored_controller(client_id, rules, own))
    return changes


def _restored_controller(client_id: str, now: AccessRules, before: AccessRules) -> ExecutableChange:
    controller = Subject.client(client_id)

    async def restore(api: EmqxApi) -> None:
        request: ApiRequest[object] = (
            requests.write_rules(controller, before) if before else requests.delete_rules(controller)
        )
        await api.send(request)

    texts = (base.rules_text(now), base.rules_text(before))
    return ExecutableChange(SettingChange(f"rules of the client {client_id}", *texts), restore)


def _user_path(authenticator: str, name: str) -> str:
    return f"/authentication/{quoted(authenticator)}/users/{quoted(name)}"


def _sender(method: HttpMethod, path: str, what: str, body: object = None) -> Callable[[EmqxApi], Awaitable[None]]:
    async def send(api: EmqxApi) -> None:
        await api.send(requests.json_request(method, path, what, body=body))

    return send


async def _left_to_restore_sources(_api: EmqxApi) -> None:
    """`undo` restores the order of sources after all other changes."""
