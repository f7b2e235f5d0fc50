"""What of a broker only its own configuration can change, or what is not changed without being asked for by name."""

from typing import Any, Final

from controller.adapters.emqx.client.api import EmqxApi
from controller.domain.broker.inspection import is_loopback, parse_bind
from controller.ports.broker_setup import DesiredSetup, ManualStep
from controller.ports.errors import BrokerError

_TLS: Final = ("ssl", "wss")
_TLS_OPTIONS: Final = (
    ("verify", "verify_peer", "a certificate is not looked at otherwise"),
    ("fail_if_no_peer_cert", True, "who shows no certificate comes in otherwise"),
)


async def left_to_do(
    api: EmqxApi,
    wanted: DesiredSetup,
    mqtt: dict[str, Any] | None,
    settings: dict[str, Any] | None,
    authenticator: str,
) -> tuple[ManualStep, ...]:
    """Everything that `setup` does not do by itself."""
    left: list[ManualStep] = []
    if wanted.username and not authenticator:
        text = "authentication = [{mechanism = password_based, backend = built_in_database, user_id_type = username}]"
        left.append(ManualStep("an authenticator that knows users", "nobody is asked for a password", text))
    if mqtt is None:
        limits = f"mqtt.max_inflight = {wanted.receive_maximum or 1000}\nmqtt.max_mqueue_len = 100000"
        left.append(ManualStep("limits of sessions", "the API key may not read or change the zone", limits))
    elif mqtt.get("peer_cert_as_clientid") != "cn" and not wanted.client_id_from_certificate:
        why = "a device can take another's client id; `--with-client-id` sets it for all clients"
        left.append(ManualStep("client ids from certificates", why, "mqtt.peer_cert_as_clientid = cn"))
    if settings is not None and settings.get("no_match") != "deny" and not wanted.deny_unmatched:
        why = "what no rule allows is allowed; give devices rules first, then `--with-no-match`"
        left.append(ManualStep("what no rule decides", why, "authorization.no_match = deny"))
    return (*left, *await _listeners(api))


async def _listeners(api: EmqxApi) -> list[ManualStep]:
    try:
        rows = await api.listeners()
        whole = [(row, await api.listener(row.id)) for row in rows if row.enable]
    except BrokerError as e:
        return [ManualStep("listeners", f"they cannot be read: {e}", "")]
    left: list[ManualStep] = []
    for row, more in whole:
        kind, _, name = row.id.partition(":")
        if row.type not in _TLS:
            if not is_loopback(parse_bind(row.bind)[0]):
                why = "MQTT in clear text can be reached from other machines"
                left.append(
                    ManualStep(
                        f"listener {row.id}",
                        why,
                        f'listeners.{kind}.{name}.bind = "127.0.0.1:{parse_bind(row.bind)[1]}"',
                    )
                )
            continue
        tls = None if more is None else more.ssl_options
        if tls is None:
            left.append(
                ManualStep(
                    f"listener {row.id}", "its TLS settings are not told: see that they are these", _wanted(kind, name)
                )
            )
            continue
        wrong = [(key, value, why) for key, value, why in _TLS_OPTIONS if getattr(tls, key) != value]
        if wrong:
            reasons = "; ".join(why for _, _, why in wrong)
            left.append(ManualStep(f"listener {row.id}", reasons, _wanted(kind, name)))
    return left


def _wanted(kind: str, name: str) -> str:
    prefix = f"listeners.{kind}.{name}.ssl_options"
    lines = [f"{prefix}.{key} = {str(value).lower()}" for key, value, _ in _TLS_OPTIONS]
    return "\n".join([*lines, f"{prefix}.cacertfile = <the authority of your devices>"])
