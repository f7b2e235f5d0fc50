"""What a controller needs to forward requests to the one that leads."""

import contextlib
import ssl
from urllib.parse import urlsplit

from controller.adapters.http_peers import HttpPeers, loopback_mark
from controller.adapters.logs import logger_for
from controller.adapters.sql.peer_key import peer_key
from controller.api.context import Services
from controller.api.forwarding import PeerAccess
from controller.app.adapters import Adapters
from controller.ports.errors import SettingsError
from controller.service.settings.base import host_of, is_loopback, is_wildcard
from controller.service.settings.settings import Settings


async def peer_access(
    stack: contextlib.AsyncExitStack, settings: Settings, adapters: Adapters, services: Services
) -> PeerAccess | None:
    """How to reach the leader, until `stack` ends; `None` where no other controller may work with the store.

    Raises:
        SettingsError: `controller.ca` or `controller.url` cannot be used.
        StoreError: the key of the controllers could not be read.
    """
    leases = adapters.leases
    if not leases.is_shared:
        return None
    own, may_be_plain, mark = settings.controller.url, settings.api.unsafe_plain_http, loopback_mark()
    if own is not None and not _is_on_loopback(own) and not usable(own, mark, may_be_plain=may_be_plain):
        raise SettingsError(
            f"controller.url: others would send tokens in clear text to {own}, or reach nobody there: name this host"
            " with https, or set unsafe_plain_http = true in [api] of each controller"
        )
    try:
        tls = ssl.create_default_context(cafile=settings.controller.ca)
    except OSError as e:
        raise SettingsError(f"controller.ca: {settings.controller.ca} cannot be used: {e}") from e
    peers = HttpPeers.over_tls(tls)
    stack.push_async_callback(peers.close)

    log = logger_for("api")
    refused: set[str] = set()

    def leader_url() -> str:
        if leases.is_leader or not leases.leader_url:  # it is about to lead, or leads no more
            return ""
        url = usable(leases.leader_url, mark, may_be_plain=may_be_plain)
        if not url and leases.leader_url not in refused:
            refused.add(leases.leader_url)
            why = "it is on loopback of another host, or not https"
            log("the leader is not asked", {"alert": True, "leader": leases.leader_url, "why": why})
        return url

    return PeerAccess(
        await peer_key(adapters.store),
        peers,
        lambda: services.leader is not None and leases.is_leader,
        leader_url,
        adapters.clock.now,
        log,
    )


def usable(url: str, mark: str, *, may_be_plain: bool) -> str:
    """Returns where a controller is asked that announced `url`; empty if credentials must not be sent there.

    `mark`: of this host's loopback network, which the URL of a controller there has as its fragment: a loopback address
    of another host is that of any program here.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = parts.hostname
    if not host or "@" in parts.netloc or parts.scheme not in ("http", "https") or is_wildcard(host):
        return ""
    if is_loopback(host):
        return url.partition("#")[0] if mark and parts.fragment == mark else ""
    return url if parts.scheme == "https" or may_be_plain else ""


def _is_on_loopback(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


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
    log, said = logger_for("app"), "other controllers cannot reach this one while it leads"
    if url is None:
        log(said, {"alert": True, "why": "api.listen names no address of this host: set [controller] url"})
        return
    if _is_on_loopback(url):
        log(said, {"alert": True, "why": f"{url} is for this host alone: set [controller] url, if there are others"})
        url = f"{url}#{loopback_mark()}"
    await adapters.leases.announce(url)
