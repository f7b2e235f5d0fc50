"""The URL of the store: what it may hold, and what a connection is given besides."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from controller.ports.errors import SettingsError

# Anything else of libpq would change what this program relies on (time limits, encoding, one server at a time).
_OPTIONS: Final = frozenset(
    {
        "channel_binding", "gssencmode", "host", "port", "require_auth", "sslcert", "sslcrl", "sslkey", "sslmode",
        "sslrootcert", "ssl_min_protocol_version", "target_session_attrs",
    }
)  # fmt: skip
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_LIMITS: Final = {
    "connect_timeout": "5",  # seconds
    "tcp_user_timeout": "5000",  # milliseconds
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "client_encoding": "UTF8",
}


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """Parameters of a connection; `shown` is the URL for people, without secrets."""

    parameters: tuple[tuple[str, str], ...] = field(repr=False)
    shown: str

    @classmethod
    def parse(cls, url: str, password: str = "") -> "PostgresAddress":
        """Reads a URL.

        Raises:
            SettingsError: malformed, an unknown option, or a password in the URL.
        """
        found = _parameters(url)
        if "password" in found:
            raise SettingsError("a password in the URL of the store can be read by others: use store.password_file")
        shown = url.partition("?")[0]
        hosts = found.get("host", "").split(",")
        if not all(host in _LOCAL or host.startswith("/") for host in hosts):
            found.setdefault("sslmode", "verify-full")
            if found["sslmode"] == "verify-full":
                found.setdefault("sslrootcert", "system")
        found.setdefault("target_session_attrs", "read-write")
        if password:
            found["password"] = password
        return cls(tuple({**found, **_LIMITS}.items()), shown)

    def with_name(self, name: str) -> dict[str, str]:
        """Returns the parameters; `name` is what the server lists the connection as."""
        return {**dict(self.parameters), "application_name": name}


def _parameters(url: str) -> dict[str, str]:
    try:
        parts = urlsplit(url)
        given = dict(
            parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=32)
        )
    except ValueError as e:
        raise SettingsError(f"store.url is no URL: {e}") from e
    if parts.scheme not in {"postgresql", "postgres"} or parts.fragment:
        raise SettingsError("store.url is postgresql://user@host:port/database")
    unknown = sorted(set(given) - _OPTIONS)
    if unknown:
        raise SettingsError(f"store.url: unknown option {', '.join(unknown)}; possible: {', '.join(sorted(_OPTIONS))}")
    account, _, servers = parts.netloc.rpartition("@")
    user, has_password, _ = account.partition(":")
    found = {"user": unquote(user), "dbname": unquote(parts.path.lstrip("/"))}
    if has_password:
        found["password"] = ""
    hosts, ports = zip(*(_server(one) for one in servers.split(",")), strict=True)
    if any(hosts):
        found["host"] = ",".join(hosts)
    if any(ports):
        found["port"] = ",".join(ports)
    return {name: value for name, value in {**found, **given}.items() if value or name == "password"}


def _server(text: str) -> tuple[str, str]:
    text = unquote(text)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port
