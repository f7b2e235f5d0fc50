"""The address of an MQTT broker in both configurations: `mqtt://host[:port]` or `mqtts://host[:port]`."""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Host and port of a broker, and whether to use TLS."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parses an address; the port defaults to 1883 or, with TLS, 8883.

        Raises:
            ValueError: another scheme, no host, or more than host and port, such as a path or a user name.
        """
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"a server is written mqtts://host:port or mqtt://host:port, not {url!r}")
        if parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("a server is only a host and a port; user name and password have their own keys")
        return cls(host=parts.hostname, port=parts.port or _PORTS[parts.scheme], tls=parts.scheme == "mqtts")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"
