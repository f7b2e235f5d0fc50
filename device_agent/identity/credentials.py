"""Which pair the next connection shows: a new one is tried, and the old one stays usable until that has connected."""

import logging
import ssl
from collections.abc import Callable

from device_agent.identity.store import IdentityStore
from device_agent.settings import MqttSettings

TlsContextLoader = Callable[[MqttSettings], ssl.SSLContext]
_log = logging.getLogger(__name__)


class RotatingCredentials:
    """Contexts for a link, from its one thread. `promoted` is called when a new pair has connected."""

    def __init__(
        self, settings: MqttSettings, store: IdentityStore, load: TlsContextLoader, promoted: Callable[[], None]
    ) -> None:
        """Load what is there.

        Raises:
            OSError: the certificate, key or authority cannot be loaded (ssl.SSLError: it is not what it should be).
        """
        self._settings = settings
        self._store = store
        self._load = load
        self._promoted = promoted
        self._context = load(settings)
        self._trial: ssl.SSLContext | None = None
        self._was_trial = False

    def context(self) -> ssl.SSLContext:
        """For the next attempt: with a candidate every second one is its."""
        self._trial = None
        if self._store.candidate.exists() and not self._was_trial:
            self._trial = self._load_candidate()
        self._was_trial = self._trial is not None
        return self._trial or self._context

    def worked(self) -> None:
        """The broker accepted the last attempt."""
        if self._trial is None:
            self._was_trial = False
            return
        try:
            self._store.promote()
        except OSError as e:
            _log.error("the new certificate works but cannot be kept: %s", e)
            return
        self._context, self._trial = self._trial, None
        self._was_trial = False  # the next candidate is another one, and is tried at once
        self._promoted()

    def _load_candidate(self) -> ssl.SSLContext | None:
        pair = self._store.candidate
        try:
            return self._load(self._settings.model_copy(update={"certificate": pair, "key": pair}))
        except OSError as e:
            _log.error("the new certificate cannot be loaded and is given up: %s", e)
            self._store.discard()
            return None
