"""Renews key and certificate over MQTT at two thirds of the lifetime: asks, tries the new pair, loses nothing."""

import base64
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import ValidationError

from device_agent.host.certificate import CertificateInfo, IdentityError, leaf_in, read_file
from device_agent.host.clock import Clock
from device_agent.identity.credentials import RotatingCredentials
from device_agent.identity.store import IdentityStore
from device_agent.mqtt_client import tls_context
from device_agent.settings import Settings, read_secret
from schemas.backoff import Backoff
from schemas.base import MAX_CERTIFICATE_BYTES
from schemas.enrolment import RenewRequest, RenewResponse, renewal_bytes
from schemas.topics import UpChannel

_WAIT_SHARE: Final = 0.02  # of the lifetime
LONGEST_WAIT: Final = 3600.0
RETRY: Final = Backoff(first=30.0, cap=LONGEST_WAIT)  # seconds for an answer before asking again
REFUSED_WAIT: Final = 3600.0  # seconds after the controller said no
TRIAL_WAIT: Final = 120.0  # seconds between two trials of a new pair
MAX_TRIALS: Final = 5
SPREAD: Final = 0.02  # of the lifetime, over which the devices of a fleet that enrolled together spread
_log = logging.getLogger(__name__)


class PublishRenewal(Protocol):
    """As the link's."""

    def __call__(self, channel: UpChannel, payload: bytes, confirmed: Callable[[bool], None] | None = None) -> bool:
        """Hand a message over."""
        ...


@dataclass(frozen=True, slots=True)
class CertificateHolder:
    """Whose certificate, where it lies now, and what opens its key."""

    device_id: str
    certificate: Path
    key: Path
    passphrase: str | None


class CertificateRenewer:
    """Called from the report thread (`step`) and from the link's (`answered`); monotonic seconds throughout."""

    def __init__(
        self,
        holder: CertificateHolder,
        store: IdentityStore,
        publish: PublishRenewal,
        reconnect: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._holder = holder
        self._store = store
        self._publish = publish
        self._reconnect = reconnect
        self._clock = clock
        self._leaf: CertificateInfo | None = None
        self._csr: str | None = None
        self._next = 0.0
        self._requests = 0  # without an answer
        self._trials = 0

    def promoted(self) -> None:
        """The new pair has connected: it is this device's."""
        self._holder = CertificateHolder(
            self._holder.device_id, self._store.current, self._store.current, self._holder.passphrase
        )
        self._leaf, self._csr, self._trials, self._requests = None, None, 0, 0
        self._next = 0.0  # the wait was for a trial that did not connect: the next renewal has its own time
        _log.info("renewed: the new certificate has connected and is in use")

    def step(self) -> None:
        """Do what is due; cheap when nothing is."""
        now = self._clock.monotonic()
        if now < self._next:
            return
        try:
            self._step(now)
        except (IdentityError, OSError) as e:
            self._next = now + LONGEST_WAIT
            _log.error("the certificate cannot be renewed: %s", e)

    def _step(self, now: float) -> None:
        if self._store.candidate.exists():
            self._try_again(now)
            return
        leaf = self._leaf or leaf_in(self._holder.certificate)
        self._leaf = leaf
        left = self._due(leaf) - self._clock.now().timestamp()
        if left > 0:
            self._next = now + min(left, LONGEST_WAIT)
            return
        if self._publish(UpChannel.RENEW, self._request(leaf)):
            self._next = now + min(RETRY.ceiling(self._requests), max(1.0, _WAIT_SHARE * (leaf.end - leaf.start)))
            self._requests += 1

    def _due(self, leaf: CertificateInfo) -> float:
        share = int.from_bytes(hashlib.sha256(leaf.serial.encode()).digest()[:4], "big") / 2**32
        return leaf.renew_at + share * SPREAD * (leaf.end - leaf.start)

    def _request(self, leaf: CertificateInfo) -> bytes:
        from device_agent.identity.keypair import read_key, request, sign  # X.509 is large: only to renew

        holder = self._holder
        if self._csr is None:
            self._csr = request(self._store.pending_key(), holder.device_id)
        present: Any = read_key(read_file(holder.key), holder.passphrase)
        proof = sign(present, renewal_bytes(holder.device_id, leaf.serial, self._csr))
        body = RenewRequest(
            device_id=holder.device_id, serial=leaf.serial, csr=self._csr, proof=base64.b64encode(proof).decode()
        )
        return body.model_dump_json().encode()

    def answered(self, payload: bytes) -> None:
        """The controller's answer; anything else is passed over."""
        csr = self._csr
        if csr is None or len(payload) > MAX_CERTIFICATE_BYTES:
            return
        try:
            answer = RenewResponse.model_validate_json(payload)
        except ValidationError:
            _log.warning("an answer about a certificate could not be read")
            return
        if answer.request != hashlib.sha256(csr.encode()).hexdigest():
            return
        if answer.certificate is None:
            self._next = self._clock.monotonic() + REFUSED_WAIT
            _log.error("the controller renews no certificate: %s (%s)", answer.refused, answer.detail)
            return
        try:
            self._store.offer(answer.certificate, answer.chain, self._holder.device_id)
        except (IdentityError, OSError) as e:
            _log.error("the new certificate cannot be used: %s", e)
            return
        self._trials, self._next = 1, self._clock.monotonic() + TRIAL_WAIT
        _log.info("a new certificate has come; connecting with it")
        self._reconnect()

    def _try_again(self, now: float) -> None:
        """The new pair has not connected: the old one is in use, or the broker is away."""
        self._next = now + TRIAL_WAIT
        self._trials += 1
        if self._trials > MAX_TRIALS:
            _log.error("the broker did not accept the new certificate %d times: it is given up", MAX_TRIALS)
            self._store.discard()
            self._trials, self._csr, self._requests = 0, None, 0
            self._next = now + REFUSED_WAIT
            return
        self._reconnect()


class DeviceRenewal:
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
        self._holder = CertificateHolder(settings.device_id, mqtt.certificate, mqtt.key, passphrase)
        self._store = IdentityStore(settings.agent.state_dir, passphrase)
        self._renewal: CertificateRenewer | None = None
        self.has_moved = False
        self.on_renewed: Callable[[Path], None] | None = None  # with the file of the pair that has connected
        self.credentials = RotatingCredentials(mqtt, self._store, tls_context, self._promoted)

    def use(self, publish: PublishRenewal, reconnect: Callable[[], None]) -> None:
        """The link to ask over, and how it is made to connect anew."""
        self._renewal = CertificateRenewer(self._holder, self._store, publish, reconnect, self._clock)

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
