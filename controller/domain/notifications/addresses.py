"""Which addresses notifications may be sent to.

Messages say which devices are contained and why, so they leave this machine encrypted and to a verified name only. That
also keeps them from the metadata services of clouds and other plain HTTP services of the network, which have no
certificate for their name: it is why no list of forbidden networks is needed, and why another answer of DNS changes
nothing.
"""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

MAX_URL: Final = 2048  # characters
MAX_ADDRESS: Final = 254  # characters of a mail address
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_MAIL: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class AddressError(ValueError):
    """An address that nothing is sent to; the text never has the address, which may be a secret."""


def check_url(url: str) -> str:
    """Returns the URL: https, or http to this machine.

    Raises:
        AddressError: it is another one.
    """
    if len(url) > MAX_URL or not _VISIBLE.fullmatch(url):
        raise AddressError(f"a URL has at most {MAX_URL} visible ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise AddressError("this is no URL") from e
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise AddressError("a URL begins with https:// and a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise AddressError("a URL has no user, password or fragment here")
    if parts.scheme == "http" and not is_this_machine(host):
        raise AddressError("a URL with http:// is for this machine only: elsewhere anybody on the way could read along")
    return url


def origin_of(url: str) -> str:
    """Returns scheme, host and port: path and query may hold a secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}"


def check_secret_use(name: str, mail_server: str, server: str) -> None:
    """Checks that a secret goes only where it belongs: a password to its own mail server, and to nothing else.

    `mail_server`: the mail server (`host:port`) that gets the secret, empty if it is no password. `server`: that of the
    sink, empty for a URL.

    Raises:
        AddressError: it does not belong there.
    """
    if mail_server.lower() == server.lower():
        return
    if server:
        raise AddressError(
            f"{name} is no password for this server: [notifications.mail_servers] of cordon.toml says whose"
        )
    raise AddressError(f"{name} is the password of a mail server: it is neither a URL nor a key that signs")


def check_mail_address(text: str) -> str:
    """Returns a mail address `name@host` in ASCII.

    Raises:
        AddressError: it is none.
    """
    if len(text) > MAX_ADDRESS or not _MAIL.fullmatch(text):
        raise AddressError("a mail address is name@host")
    return text


def check_host(text: str) -> str:
    """Returns a host name or IP address.

    Raises:
        AddressError: it is neither.
    """
    if not _HOST.fullmatch(text) and not _is_address(text):
        raise AddressError("a mail server is a host name or an IP address")
    return text


def is_this_machine(host: str) -> bool:
    """Whether a host is the loopback of this machine, whatever DNS says."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
