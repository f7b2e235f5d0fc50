"""At which addresses of its pages Cordon takes passkeys, and why not at others. Pure."""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_HOST: Final = 255  # characters of a Host header


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Whom a passkey is for, in the words of WebAuthn: `rp_id` is a host name, `origin` the address of the page."""

    rp_id: str
    origin: str


def origin_of(scheme: str, host: str) -> str | None:
    """Returns the origin of a request by its scheme and Host header, as browsers write it; None if there is none."""
    if not 0 < len(host) <= MAX_HOST or scheme not in _DEFAULT_PORTS or not host.isascii():
        return None
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.netloc != host or "@" in host or parts.path:
        return None
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}" if port in (None, _DEFAULT_PORTS[scheme]) else f"{scheme}://{shown}:{port}"


def relying_party(origin: str | None, configured: str | None) -> RelyingParty | str:
    """Returns whom passkeys are for on a page at `origin`, or the reason why it takes none.

    `configured`: the address at which browsers reach Cordon. What a request says of its host proves nothing, so that
    without it only `localhost` is taken, which is this machine for every browser.
    """
    if origin is None:
        return "passkeys need a host name, and this request names none"
    parts = urlsplit(origin)
    name = parts.hostname or ""
    if _is_address(name):
        return f"passkeys need a host name, and this page was opened at the address {name}"
    if name == "localhost" or origin == configured:
        if parts.scheme != "https" and name != "localhost":
            return "passkeys need HTTPS"
        return RelyingParty(name, origin)
    return f"passkeys need accounts.url in cordon.toml to be the address of this page, {origin}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
