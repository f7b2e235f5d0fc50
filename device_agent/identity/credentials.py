"""Chooses the key pair of each connection: a new pair is tried while the old one stays usable."""

import logging
import ssl
from collections.abc import Callable

from device_agent.identity.store import IdentityStore
from device_agent.settings import MqttSettings

TlsContextLoader = Callable[[MqttSettings], ssl.SSLContext]
_log = logging.getLogger(__name__)


class RotatingCredentials:
    """`TlsCredentials` of an MQTT client, for its one thread; `on_promoted` follows once a new pair has connected."""

    def __init__(
        self, settings: MqttSettings, store: IdentityStore, load: TlsContextLoader, on_promoted: Callable[[], None]
    ) -> None:
        """Loads the current pair.

        Raises:
            OSError: the certificate, key or authority cannot be loaded (ssl.SSLError: it is not valid).
        """
        self._settings = settings
        self._store = store
        self._load = load
        self._on_promoted = on_promoted
        self._context = load(settings)
        self._candidate_context: ssl.SSLContext | None = None
        self._was_candidate = False

    def next_ssl_context(self) -> ssl.SSLContext:
        """Returns the context for the next attempt: with a candidate every second attempt uses it."""
        self._candidate_context = None
        if self._store.candidate.exists() and not self._was_candidate:
            self._candidate_context = self._load_candidate()
        self._was_candidate = self._candidate_context is not None
        return self._candidate_context or self._context

    def on_accepted(self) -> None:
        """Promotes the candidate when the broker accepted it."""
        if self._candidate_context is None:
            self._was_candidate = False
            return
        try:
            self._store.promote()
        except OSError as e:
            _log.error("the new certificate works but cannot be saved: %s", e)
            return
        self._context, self._candidate_context = self._candidate_context, None
        self._was_candidate = False  # the next candidate is tried without delay
        self._on_promoted()

    def _load_candidate(self) -> ssl.SSLContext | None:
        pair = self._store.candidate
        try:
            return self._load(self._settings.model_copy(update={"certificate": pair, "key": pair}))
        except OSError as e:
            _log.error("the new certificate cannot be loaded and is discarded: %s", e)
            self._store.discard()
            return None
