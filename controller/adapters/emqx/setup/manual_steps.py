"""The part of a setup that only the broker's own configuration can change, or that an operator has to request."""

from typing import Any, Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.models import ListenerRow
from controller.adapters.emqx.controller_zone import read_controller_zone
from controller.adapters.emqx.share_group import HASH_CLIENTID, read_share_strategy
from controller.domain.broker.inspection import is_loopback, parse_bind
from controller.domain.broker.session_limits import ENOUGH_QUEUE, GLOBAL_ZONE, controller_zone, zone_limits
from controller.ports.broker_setup import NO_MATCH_STEP, DesiredSetup, ManualStep
from controller.ports.errors import BrokerError
from schemas.topics import SHARE_GROUP

_WHY_NO_MATCH: Final = (
    "topics without a matching rule are allowed, and a restricted device keeps topics that begin with `$`; "
    "give devices rules first, then `--with-no-match`"
)
_TLS: Final = ("ssl", "wss")
_TLS_OPTIONS: Final = (
    ("verify", "verify_peer", "certificates are not verified otherwise"),
    ("fail_if_no_peer_cert", True, "clients without a certificate are admitted otherwise"),
)


async def manual_steps(
    api: EmqxApi,
    wanted: DesiredSetup,
    mqtt: dict[str, Any] | None,
    settings: dict[str, Any] | None,
    authenticator: str,
) -> tuple[ManualStep, ...]:
    """Everything that `EmqxSetup.apply` does not change; `mqtt` and `settings` are `None` where they cannot be read."""
    left: list[ManualStep] = []
    if wanted.username and not authenticator:
        text = "authentication = [{mechanism = password_based, backend = built_in_database, user_id_type = username}]"
        left.append(ManualStep("an authenticator by user name", "EMQX asks no client for a password", text))
    left += [_user_step(name) for name in wanted.other_users if authenticator]
    if wanted.receive_maximum:
        left += await _limits_steps(api, wanted)
    if wanted.shares:
        left += await _share_steps(api, mqtt)
    if mqtt is None:
        why = "the API key may not read or change the zone: make sure that it is this"
        left.append(ManualStep("client ids from certificates", why, "mqtt.peer_cert_as_clientid = cn"))
    elif (
        mqtt.get("peer_cert_as_clientid") != "cn"
        and mqtt.get("use_username_as_clientid") is not True
        and not wanted.client_id_from_certificate
    ):
        why = (
            "a device can use another's client id, so a password contains nobody unless the user name is the id; "
            "`--with-client-id` sets it for all clients"
        )
        left.append(ManualStep("client ids from certificates", why, "mqtt.peer_cert_as_clientid = cn"))
    if settings is not None and settings.get("no_match") != "deny" and not wanted.deny_unmatched:
        left.append(ManualStep(NO_MATCH_STEP, _WHY_NO_MATCH, "authorization.no_match = deny"))
    return (*left, *await _listener_steps(api))


def _user_step(name: str) -> ManualStep:
    why = "only the host of that controller has its password: run `cordon broker setup` there while it is stopped, or"
    return ManualStep(f"user {name} of another controller", f"{why} add it in the dashboard", "")


async def _share_steps(api: EmqxApi, mqtt: dict[str, Any] | None) -> list[ManualStep]:
    """What to configure so that the messages of a device keep going to one controller while none comes or goes."""
    found = await read_share_strategy(api, mqtt)
    if found == HASH_CLIENTID:
        return []
    why = f"it is {found}" if found else "it cannot be read: make sure that it is this"
    text = f"broker.shared_subscription_group.{SHARE_GROUP}.strategy = {HASH_CLIENTID}"
    return [ManualStep(f"strategy of the share group {SHARE_GROUP}", why, text)]


async def _limits_steps(api: EmqxApi, wanted: DesiredSetup) -> list[ManualStep]:
    """What to configure so that reports wait for an absent controller; EMQX's defaults hold until then."""
    try:
        found = await read_controller_zone(api, wanted.controller_id, wanted.ports)
        limits, zone, listener = zone_limits(found), found["zone"], found["listener"]
    except BrokerError as e:
        return [_limits_step(f"they cannot be read: {e}", "", wanted)]
    except (KeyError, TypeError, ValueError) as e:
        return [_limits_step(f"the zone is not as expected ({type(e).__name__})", "", wanted)]
    if zone == GLOBAL_ZONE:
        kept = "no limit" if not limits.max_queue else f"{limits.max_queue} messages"
        why = (
            f"the listener {listener} has no zone of its own, so the limits of all clients hold: "
            f"{limits.max_inflight} in flight, {kept} queued"
        )
        return [_limits_step(why, listener, wanted)]
    reasons = []
    if limits.max_inflight < wanted.receive_maximum:
        reasons.append(f"{limits.max_inflight} in flight, {wanted.receive_maximum} are asked for")
    if 0 < limits.max_queue < ENOUGH_QUEUE:
        reasons.append(f"{limits.max_queue} messages queued, {ENOUGH_QUEUE} are needed")
    if limits.outgrows_heap:
        reasons.append(f"EMQX ends the session when its queue outgrows {limits.max_heap} bytes")
    return [_limits_step(f"in the zone {zone}: {'; '.join(reasons)}", listener, wanted, zone)] if reasons else []


def _limits_step(why: str, listener: str, wanted: DesiredSetup, zone: str = "cordon") -> ManualStep:
    lines = [f"zones.{zone}.{key} = {value}" for key, value in controller_zone(wanted.receive_maximum).items()]
    kind, _, name = listener.partition(":")
    if zone == "cordon" and name != "cordon":
        lines.append(f"listeners.{kind or 'ssl'}.cordon.zone = cordon")
        lines.append(f"listeners.{kind or 'ssl'}.cordon.bind = <a port of the controller's own, as in mqtt.servers>")
    return ManualStep("limits of the controller's session", why, "\n".join(lines))


async def _listener_steps(api: EmqxApi) -> list[ManualStep]:
    try:
        rows = [row for row in await api.send(requests.read_listeners()) if row.enable]
        details = [await api.send(requests.read_listener(row.id)) for row in rows]
    except BrokerError as e:
        return [ManualStep("listeners", f"they cannot be read: {e}", "")]
    steps = [_listener_step(row, detail) for row, detail in zip(rows, details, strict=True)]
    return [step for step in steps if step is not None]


def _listener_step(row: ListenerRow, detail: ListenerRow | None) -> ManualStep | None:
    kind, _, name = row.id.partition(":")
    if row.type not in _TLS:
        host, port = parse_bind(row.bind)
        if is_loopback(host):
            return None
        why = "MQTT in clear text can be reached from other machines"
        return ManualStep(f"listener {row.id}", why, f'listeners.{kind}.{name}.bind = "127.0.0.1:{port}"')
    tls = None if detail is None else detail.ssl_options
    if tls is None:
        why = "its TLS settings cannot be read: make sure that they are these"
        return ManualStep(f"listener {row.id}", why, _tls_configuration(kind, name))
    reasons = [why for key, value, why in _TLS_OPTIONS if getattr(tls, key) != value]
    return ManualStep(f"listener {row.id}", "; ".join(reasons), _tls_configuration(kind, name)) if reasons else None


def _tls_configuration(kind: str, name: str) -> str:
    prefix = f"listeners.{kind}.{name}.ssl_options"
    lines = [f"{prefix}.{key} = {str(value).lower()}" for key, value, _ in _TLS_OPTIONS]
    return "\n".join([*lines, f"{prefix}.cacertfile = <the authority of your devices>"])
