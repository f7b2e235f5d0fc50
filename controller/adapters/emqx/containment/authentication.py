"""How strongly a client is authenticated, derived from the broker's settings and never from the client's statements."""

import math
from dataclasses import dataclass
from typing import Any, Final

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.coalescing import BatchingClientReader, SingleFlightRead
from controller.adapters.emqx.client.models import ClientRow, ListenerRow
from controller.adapters.emqx.wildcard import is_wildcard_banned
from controller.ports.broker import AuthStrength, was_connected
from controller.ports.clock import Clock
from controller.ports.errors import BrokerAnswerError, BrokerRefusedError, BrokerWaitsError

SETTINGS_SECONDS: Final = 30.0  # how long the broker's settings are cached
# How long they serve while they cannot be read: EMQX lists its listeners only once a hung node is given up (minutes).
SETTINGS_STALE_SECONDS: Final = 300.0
_TLS_KINDS: Final = ("ssl:", "wss:")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """The settings that decide about identities, read together."""

    authenticates: bool  # an enabled authenticator is in the chain
    id_from_certificate: bool  # the global zone takes the client id from the certificate's common name
    listeners: dict[str, ListenerRow] | None  # `None`: the API key may not read them
    binds_id: bool = False  # whoever the authenticators admit has the client id that belongs to the password
    checks_username: bool = True  # the authenticators admit a user name only with its own password
    refuses_wildcard: bool = True  # the client id `+` cannot connect, so a topic shows its sender's id
    username_from_certificate: bool = False  # the global zone takes the user name from the common name

    @property
    def floor(self) -> AuthStrength:
        """The strength of the least authenticated client that this broker admits."""
        if self.listeners is None:
            return AuthStrength.CLAIMED
        # Of a broker without listeners only its authentication chain is known.
        admitted = {self._at(row) for row in self.listeners.values() if row.enable} or {self._by_chain(asked=True)}
        weakest_first = (AuthStrength.CLAIMED, AuthStrength.ADMITTED, AuthStrength.KNOWN, AuthStrength.PROVEN)
        return next(strength for strength in weakest_first if strength in admitted)

    def _at(self, listener: ListenerRow) -> AuthStrength:
        if self.id_from_certificate and _requires_certificate(listener):
            return AuthStrength.PROVEN
        return self._by_chain(asked=listener.enable_authn is not False)

    def _by_chain(self, *, asked: bool) -> AuthStrength:
        if not self.authenticates or not asked:
            return AuthStrength.CLAIMED
        return AuthStrength.KNOWN if self.binds_id else AuthStrength.ADMITTED

    @property
    def is_open(self) -> bool:
        """Whether some client can connect with an id that is not its own."""
        return self.floor in (AuthStrength.CLAIMED, AuthStrength.ADMITTED)


def auth_strength(settings: AuthSettings, client: ClientRow | None) -> AuthStrength:
    """The strength of a session, or of having none."""
    if client is None:
        return AuthStrength.UNSEEN if settings.is_open else settings.floor
    if settings.is_open and not settings.refuses_wildcard:
        # The client `+` may have published in the branch of this one, whatever its session shows.
        return settings.floor
    listener = (settings.listeners or {}).get(client.listener)
    if settings.id_from_certificate and listener is not None and _requires_certificate(listener):
        return AuthStrength.PROVEN
    if not settings.authenticates or client.enable_authn is False:
        return AuthStrength.CLAIMED
    is_own = settings.binds_id or (settings.checks_username and client.username == client.clientid)
    return AuthStrength.KNOWN if is_own else AuthStrength.ADMITTED


def proves_username(settings: AuthSettings, client: ClientRow | None) -> bool:
    """Whether a connected client proved its user name; what may not be read proves nothing."""
    if client is None or not client.connected or settings.listeners is None:
        return False
    listener = settings.listeners.get(client.listener)
    if settings.username_from_certificate and listener is not None and _requires_certificate(listener):
        return True
    is_asked = settings.authenticates and client.enable_authn is not False
    return is_asked and settings.checks_username


def auth_strength_at(settings: AuthSettings, client: ClientRow | None, heard_at: float | None) -> AuthStrength:
    """The strength of the sender of `heard_at` (Unix seconds; `None`: of the present session).

    A client id has one session at a time: a session that was connected before and still is must be the sender's.
    """
    strength = auth_strength(settings, client)
    if (
        heard_at is None
        or client is None
        or strength in (AuthStrength.CLAIMED, AuthStrength.ADMITTED)
        or not settings.is_open
    ):
        return strength
    return strength if was_connected(client.connected_since, heard_at) else AuthStrength.LATER


def _requires_certificate(listener: ListenerRow) -> bool:
    """Whether it admits only verified certificates; another zone than the default may take the id from elsewhere."""
    tls = listener.ssl_options
    return (
        listener.id.startswith(_TLS_KINDS)
        and listener.zone == "default"
        and tls is not None
        and tls.verify == "verify_peer"
        and tls.fail_if_no_peer_cert
    )


class AuthStrengthEvaluator:
    """Judges sessions by settings that are read at most every `SETTINGS_SECONDS`."""

    def __init__(self, api: EmqxApi, clock: Clock, clients: BatchingClientReader) -> None:
        self._clients = clients
        self._clock = clock
        self._settings: tuple[AuthSettings, float] | None = None
        self._retry_at = 0.0
        self._read = SingleFlightRead(lambda: read_settings(api.with_priority().prompt()))

    async def auth_strength(self, client_id: str, heard_at: float | None = None) -> AuthStrength:
        """How the client is authenticated now; with `heard_at` (Unix seconds), how the sender of then was."""
        settings = await self._current()
        return auth_strength_at(settings, await self._clients.get(client_id), heard_at)

    async def is_connected(self, client_id: str) -> bool:
        row = await self._clients.get(client_id)
        return row is not None and row.connected

    async def has_session(self, client_id: str) -> bool:
        return await self._clients.get(client_id) is not None

    async def proves_username(self, client_id: str) -> bool:
        """Whether the client is connected and proved its user name."""
        return proves_username(await self._current(), await self._clients.get(client_id))

    async def allows_unauthenticated(self) -> bool:
        return (await self._current()).is_open

    async def _current(self) -> AuthSettings:
        now = self._clock.monotonic()
        age = math.inf if self._settings is None else now - self._settings[1]
        if self._settings is not None and (age < SETTINGS_SECONDS or now < self._retry_at):
            return self._settings[0]
        try:
            # Callers share one read: a fleet that fails at once is a hundred.
            settings = await self._read.get()
        except BrokerWaitsError:
            if self._settings is None or age >= SETTINGS_STALE_SECONDS:
                raise
            self._retry_at = min(now + SETTINGS_SECONDS, self._settings[1] + SETTINGS_STALE_SECONDS)
            return self._settings[0]
        self._settings = (settings, self._clock.monotonic())
        return settings


async def read_settings(api: EmqxApi) -> AuthSettings:
    """Reads what decides about identities; what the API key may not read proves nothing, so the strength falls."""
    chain = [link for link in await api.send(requests.read_authenticators()) if link.enable]
    by_client_id = bool(chain) and all(link.is_by_client_id for link in chain)
    checks_username = all(link.checks_username for link in chain)
    refuses_wildcard = bool(await is_wildcard_banned(api))
    try:
        mqtt = (await api.send(requests.read_zone())).mqtt
        listeners = await _read_listeners(api)
    except BrokerRefusedError:
        return AuthSettings(bool(chain), False, None, by_client_id, checks_username, refuses_wildcard)
    # Another zone than the default may not take the id from the user name.
    one_zone = all(row.zone == "default" for row in listeners.values() if row.enable)
    binds_id = by_client_id or (checks_username and mqtt.use_username_as_clientid is True and one_zone)
    from_certificate = mqtt.peer_cert_as_clientid == "cn"
    return AuthSettings(
        bool(chain),
        from_certificate,
        listeners,
        binds_id,
        checks_username,
        refuses_wildcard,
        username_from_certificate=mqtt.peer_cert_as_username == "cn",
    )


async def _read_listeners(api: EmqxApi) -> dict[str, ListenerRow]:
    """The listeners by id. While a node hangs EMQX does not list them, but gives them as configuration."""
    try:
        rows = await api.send(requests.read_listeners())
        details = {row.id: await api.send(requests.read_listener(row.id)) for row in rows}
    except BrokerWaitsError:
        return _configured_listeners(await api.send(requests.read_section("listeners")))
    return {row.id: details[row.id] or row for row in rows}


def _configured_listeners(section: dict[str, Any]) -> dict[str, ListenerRow]:
    """The listeners by id of a section that has them by kind and name."""
    try:
        rows = [
            ListenerRow.model_validate({**fields, "id": f"{kind}:{name}", "type": kind})
            for kind, named in section.items()
            for name, fields in named.items()
        ]
    except (AttributeError, TypeError, ValueError) as e:
        raise BrokerAnswerError(f"section listeners: {type(e).__name__}") from e
    return {row.id: row for row in rows}
