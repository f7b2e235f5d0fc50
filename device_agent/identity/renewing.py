"""The parts of renewal put together for a running agent; all of it is loaded only where a certificate is renewed."""

from collections.abc import Callable
from pathlib import Path

from device_agent.clock import Clock
from device_agent.identity.credentials import RotatingCredentials
from device_agent.identity.renewal import Holder, Publish, Renewal
from device_agent.identity.store import IdentityStore
from device_agent.link import tls_context
from device_agent.settings import Settings, read_secret


class Renewing:
    """One device's renewal: `credentials` for its link, then `use` with what the link offers."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Load the pair.

        Raises:
            AgentError: the passphrase cannot be read.
            OSError: certificate or key cannot be loaded.
        """
        mqtt = settings.mqtt
        assert mqtt.certificate is not None
        assert mqtt.key is not None
        self._clock = clock
        self._began_with = mqtt.certificate
        passphrase = read_secret(mqtt.key_passphrase_file) if mqtt.key_passphrase_file else None
        self._holder = Holder(settings.device_id, mqtt.certificate, mqtt.key, passphrase)
        self._store = IdentityStore(settings.agent.state_dir, passphrase)
        self._renewal: Renewal | None = None
        self.has_moved = False
        self.on_renewed: Callable[[Path], None] | None = None  # with the file of the pair that has connected
        self.credentials = RotatingCredentials(mqtt, self._store, tls_context, self._promoted)

    def use(self, publish: Publish, reconnect: Callable[[], None]) -> None:
        """The link to ask over, and how it is made to connect anew."""
        self._renewal = Renewal(self._holder, self._store, publish, reconnect, self._clock)

    def step(self) -> None:
        """Do what is due."""
        if self._renewal is not None:
            self._renewal.step()

    def answered(self, payload: bytes) -> None:
        """The controller's answer."""
        if self._renewal is not None:
            self._renewal.answered(payload)

    def _promoted(self) -> None:
        if self._renewal is not None:
            self._renewal.promoted()
        self.has_moved = self._began_with != self._store.current
        if self.on_renewed is not None:
            self.on_renewed(self._store.current)
