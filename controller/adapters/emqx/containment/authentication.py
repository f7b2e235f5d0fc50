"""How well a client's identity is proved, judged from the broker's own settings and never from what a client says."""

from dataclasses import dataclass
from typing import Final

from controller.adapters.emqx.client.api import EmqxApi
from controller.adapters.emqx.client.coalescing import BatchingClientReader, SingleFlightRead
from controller.adapters.emqx.client.models import ClientRow, ListenerRow
from controller.ports.broker import AuthStrength, was_there
from controller.ports.clock import Clock
from controller.ports.errors import BrokerRefusedError

SETTINGS_SECONDS: Final = 30.0  # how long the broker's settings are believed
_TLS_KINDS: Final = ("ssl:", "wss:")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """What decides about identities, read together."""

    authenticates: bool  # an enabled authenticator is in the chain
    id_from_certificate: bool  # the global zone takes the client id from the certificate's common name
    listeners: dict[str, ListenerRow] | None  # `None`: the API key may not read them

    @property
    def floor(self) -> AuthStrength:
        """What the least proved client of this broker is."""
        if self.listeners is None:
            return AuthStrength.CLAIMED
        # Of a broker without a door all that is known is whether it asks.
        doors = {self._at(row) for row in self.listeners.values() if row.enable} or {self._asked(asks=True)}
        return next(
            grade for grade in (AuthStrength.CLAIMED, AuthStrength.KNOWN, AuthStrength.PROVEN) if grade in doors
        )

    def _at(self, listener: ListenerRow) -> AuthStrength:
        if self.id_from_certificate and _proves(listener):
            return AuthStrength.PROVEN
        return self._asked(asks=listener.enable_authn is not False)

    def _asked(self, *, asks: bool) -> AuthStrength:
        return AuthStrength.KNOWN if self.authenticates and asks else AuthStrength.CLAIMED


def grade_of(settings: AuthSettings, client: ClientRow | None) -> AuthStrength:
    """The grade of a session, or of none."""
    if client is None:
        return AuthStrength.UNSEEN if settings.floor is AuthStrength.CLAIMED else settings.floor
    listener = (settings.listeners or {}).get(client.listener)
    if settings.id_from_certificate and listener is not None and _proves(listener):
        return AuthStrength.PROVEN
    asked = settings.authenticates and client.enable_authn is not False
    return AuthStrength.KNOWN if asked else AuthStrength.CLAIMED


def grade_then(settings: AuthSettings, client: ClientRow | None, heard_at: float | None) -> AuthStrength:
    """The grade of who spoke at `heard_at` (Unix seconds; `None`: of who is there now).

    A client id has one session at a time: one that was connected before and still is was the only one that could speak.
    """
    grade = grade_of(settings, client)
    if (
        heard_at is None
        or client is None
        or grade is AuthStrength.CLAIMED
        or settings.floor is not AuthStrength.CLAIMED
    ):
        return grade
    return grade if was_there(client.connected_since, heard_at) else AuthStrength.LATER


def _proves(listener: ListenerRow) -> bool:
    """Whether nobody comes in here without a verified certificate; another zone may take the id from elsewhere."""
    tls = listener.ssl_options
    return (
        listener.id.startswith(_TLS_KINDS)
        and listener.zone == "default"
        and tls is not None
        and tls.verify == "verify_peer"
        and tls.fail_if_no_peer_cert
    )


class AuthStrengthEvaluator:
    """Grades, with the settings read at most every half minute."""

    def __init__(self, api: EmqxApi, clock: Clock, clients: BatchingClientReader) -> None:
        """Know nothing yet. `clients` reads sessions, of many at once together."""
        self._clients = clients
        self._api = api
        self._clock = clock
        self._settings: tuple[AuthSettings, float] | None = None
        self._reading = SingleFlightRead(lambda: read_settings(api.urgently()))

    async def grade(self, client_id: str, heard_at: float | None = None) -> AuthStrength:
        """How the client's identity is proved now; with `heard_at` (Unix seconds) that of who spoke then."""
        settings = await self._current()
        # Whoever asks is about to cut the client off.
        return grade_then(settings, await self._clients.get(client_id), heard_at)

    async def admits_unproven(self) -> bool:
        """Whether a client can be connected that proved nothing."""
        return (await self._current()).floor is AuthStrength.CLAIMED

    async def _current(self) -> AuthSettings:
        now = self._clock.monotonic()
        if self._settings is not None and now - self._settings[1] < SETTINGS_SECONDS:
            return self._settings[0]
        # Whoever asks while they are read is answered by one read together: a fleet that fails at once is a hundred.
        settings = await self._reading.get()
        self._settings = (settings, self._clock.monotonic())
        return settings


async def read_settings(api: EmqxApi) -> AuthSettings:
    """Read what decides about identities; what the API key may not read proves nothing, so grades fall."""
    chain = await api.authenticators()
    try:
        from_certificate = (await api.zone()).mqtt.peer_cert_as_clientid == "cn"
        listeners = {row.id: await api.listener(row.id) or row for row in await api.listeners()}
    except BrokerRefusedError:
        return AuthSettings(any(link.enable for link in chain), id_from_certificate=False, listeners=None)
    return AuthSettings(any(link.enable for link in chain), from_certificate, listeners)
