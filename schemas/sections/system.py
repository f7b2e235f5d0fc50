"""Sections about what runs and what is open: sockets, services, firewall."""

from typing import Annotated, Final, Literal

from pydantic import Field

from schemas.base import Counter, Name, Text, Wire, Word

MAX_SOCKETS: Final = 256  # entries of a report; what is cut is counted in `truncated`
MAX_UNITS: Final = 384


class ListeningSocket(Wire):
    """A socket that waits for others; `process` is empty where the device may not see it."""

    proto: Literal["tcp", "udp"]
    address: Text
    port: Annotated[int, Field(ge=1, le=65535)]
    process: Text = ""


class SocketsSection(Wire):
    """Every listening TCP and bound UDP socket."""

    state: Literal["ok"] = "ok"
    listening: Annotated[tuple[ListeningSocket, ...], Field(max_length=MAX_SOCKETS)] = ()
    truncated: Counter = 0


class ServiceUnit(Wire):
    """A service of the init system, or an entry of inetd (`inetd:` before its name)."""

    name: Name
    enabled: bool
    active: bool


class ServicesSection(Wire):
    """Every service that is enabled or running."""

    state: Literal["ok"] = "ok"
    units: Annotated[tuple[ServiceUnit, ...], Field(max_length=MAX_UNITS)] = ()
    truncated: Counter = 0


class FirewallSection(Wire):
    """Whether something filters traffic; `default_input` is what happens to a packet no rule speaks of."""

    state: Literal["ok"] = "ok"
    backend: Word
    active: bool
    default_input: Literal["accept", "drop", "reject", "unknown"] = "unknown"
    rules: Annotated[int, Field(ge=0, le=1_000_000)] = 0
