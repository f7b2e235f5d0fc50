"""The zone whose limits hold for the controller's session: that of the listener which it connects to."""

from collections.abc import Collection
from typing import Any

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.domain.broker.inspection import parse_bind
from controller.domain.broker.session_limits import GLOBAL_ZONE
from controller.ports.errors import BrokerAnswerError

_SECTIONS = ("mqtt", "force_shutdown")


async def read_controller_zone(api: EmqxApi, client_id: str, ports: Collection[int]) -> dict[str, Any]:
    """Returns the id of the controller's listener, the name of its zone, and the zone's `mqtt` and `force_shutdown`.

    The listener is that of the controller's session, or the one that listens on a port of its configuration.

    Raises:
        BrokerError: something cannot be read, or it cannot be told which listener it is.
    """
    listener = await _listener(api, client_id, ports)
    detail = await api.send(requests.read_listener(listener))
    zone = GLOBAL_ZONE if detail is None else detail.zone
    sections = await api.send(requests.json_request("GET", "/configs/global_zone", "read zone"))
    own: Any = {} if zone == GLOBAL_ZONE else (await api.send(requests.read_section("zones"))).get(zone)
    if not isinstance(sections, dict) or not isinstance(own, dict):
        raise BrokerAnswerError(f"the zone {zone} of the listener {listener} is not reported")
    limits = {name: {**sections.get(name, {}), **own.get(name, {})} for name in _SECTIONS}
    return {"listener": listener, "zone": zone, **limits}


async def _listener(api: EmqxApi, client_id: str, ports: Collection[int]) -> str:
    client = await api.send(requests.read_client(client_id))
    if client is not None and client.connected and client.listener:
        return client.listener
    rows = await api.send(requests.read_listeners())
    ids = {row.id for row in rows if row.enable and parse_bind(row.bind)[1] in ports}
    if len(ids) != 1:
        found = ", ".join(sorted(ids)) or "none"
        raise BrokerAnswerError(f"the listener of {client_id} cannot be told; with its ports {sorted(ports)}: {found}")
    return ids.pop()
