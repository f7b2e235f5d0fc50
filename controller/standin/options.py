"""Options of a stand-in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

MAX_NODES = 9  # node numbers have one digit, as in EMQX's port arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class StandInOptions:
    """Options of a stand-in; a missing port or 0 means any free port.

    TLS listeners are opened when `tls_ca`, `tls_cert` and `tls_key` are all given; they require a client certificate.
    """

    api_secret: str
    api_key: str = "cordon"
    nodes: int = 1
    host: str = "127.0.0.1"
    mqtt_ports: tuple[int, ...] = ()
    tls_ports: tuple[int, ...] = ()
    api_ports: tuple[int, ...] = ()
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    users: tuple[tuple[str, str], ...] = ()
    no_match: Literal["allow", "deny"] = "allow"
    config: Any = None  # see `controller.standin.overrides`

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise ValueError(f"nodes must be between 1 and {MAX_NODES}, not {self.nodes}")
        if not self.api_secret:
            raise ValueError("api_secret must not be empty")
        given = [p for p in (self.tls_ca, self.tls_cert, self.tls_key) if p is not None]
        if given and len(given) != 3:
            raise ValueError("tls_ca, tls_cert and tls_key belong together")
        if self.tls_ports and not given:
            raise ValueError("tls_ports need tls_ca, tls_cert and tls_key")

    @property
    def tls(self) -> bool:
        """Whether TLS listeners are opened."""
        return self.tls_ca is not None
