"""What a controller needs to forward requests to the one that leads."""

import contextlib
import ssl

from controller.adapters.http_peers import HttpPeers
from controller.adapters.logs import logger_for
from controller.adapters.sql.peer_key import peer_key
from controller.api.context import Services
from controller.api.forwarding import PeerAccess
from controller.app.adapters import Adapters
from controller.ports.errors import SettingsError
from controller.service.settings.base import host_of, is_wildcard
from controller.service.settings.settings import Settings


async def peer_access(
    stack: contextlib.AsyncExitStack, settings: Settings, adapters: Adapters, services: Services
) -> PeerAccess | None:
    """How to reach the leader, until `stack` ends; `None` where no other controller may work with the store.

    Raises:
        SettingsError: `controller.ca` cannot be used.
        StoreError: the key of the controllers could not be read.
    """
    leases = adapters.leases
    if not leases.is_shared:
        return None
    try:
        tls = ssl.create_default_context(cafile=settings.controller.ca)
    except OSError as e:
        raise SettingsError(f"controller.ca: {settings.controller.ca} cannot be used: {e}") from e
    peers = HttpPeers.over_tls(tls)
    stack.push_async_callback(peers.close)

    def leader_url() -> str:
        return "" if leases.is_leader else leases.leader_url  # it is about to lead, or leads no more

    return PeerAccess(
        await peer_key(adapters.store),
        peers,
        lambda: services.leader is not None and leases.is_leader,
        leader_url,
        adapters.clock.now,
        logger_for("api"),
    )


async def announce(settings: Settings, adapters: Adapters, listening: str) -> None:
    """Tells the other controllers where this one's API is; `listening`: the address of the listener.

    Raises:
        StoreError: it could not be written.
    """
    if not adapters.leases.is_shared:
        return
    url = settings.controller.url
    if url is None and not is_wildcard(host_of(settings.api.listen)):
        url = listening
    if url is None:
        why = "api.listen names no address of this host: set [controller] url"
        logger_for("app")("other controllers cannot reach this one while it leads", {"alert": True, "why": why})
        return
    await adapters.leases.announce(url)
