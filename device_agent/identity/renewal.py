"""Renews key and certificate over MQTT at two thirds of the lifetime; the old pair stays until the new one connects."""

import base64
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import ValidationError

from device_agent.host.certificate import CertificateInfo, IdentityError, read_certificate_info, read_file
from device_agent.host.clock import Clock
from device_agent.identity.credentials import RotatingCredentials
from device_agent.identity.store import IdentityStore
from device_agent.mqtt_client import tls_context
from device_agent.settings import Settings, read_key_passphrase
from schemas.backoff import Backoff
from schemas.base import MAX_CERTIFICATE_BYTES
from schemas.enrolment import RenewRequest, RenewResponse, renewal_bytes
from schemas.topics import UpChannel

_WAIT_SHARE: Final = 0.02  # of the lifetime
LONGEST_WAIT: Final = 3600.0
RETRY: Final = Backoff(first=30.0, cap=LONGEST_WAIT)  # seconds for an answer before asking again
REFUSED_WAIT: Final = 3600.0  # seconds after the controller refused
CONNECT_WAIT: Final = 120.0  # seconds between two attempts to connect with a new pair
TOO_EARLY: Final = "too_early"  # the controller's code: less than a third of the lifetime is over by its clock
_EARLY_WAIT_SHARE: Final = 1 / 6  # of the lifetime
MAX_CONNECT_ATTEMPTS: Final = 5
JITTER_FRACTION: Final = 0.02  # of the lifetime: spreads devices that enrolled at the same time
_log = logging.getLogger(__name__)


class RenewalLink(Protocol):
    """The connection that a renewal needs: `MqttClient` is one."""

    def publish(self, channel: UpChannel, payload: bytes) -> bool:
        """Returns whether the message was handed to the broker."""
        ...

    def reconnect(self) -> None:
        """Reconnects with the credentials that are in force then."""
        ...


@dataclass(frozen=True, slots=True)
class CertificateHolder:
    """The device, the files of its current pair, and the passphrase of the key."""

    device_id: str
    certificate: Path
    key: Path
    passphrase: str | None


class CertificateRenewer:
    """Renews one certificate: `step` runs in the report thread, `on_answer` in the thread of the link."""

    def __init__(
        self, holder: CertificateHolder, store: IdentityStore, clock: Clock, on_renewed: Callable[[Path], None]
    ) -> None:
        """`on_renewed` is called with the file of the renewed pair once the broker accepted it."""
        self._holder = holder
        self._initial_certificate = holder.certificate
        self._store = store
        self._clock = clock
        self._on_renewed = on_renewed
        self._certificate: CertificateInfo | None = None
        self._csr: str | None = None
        # Seconds since the machine started: a device that sleeps most of the time renews in time too.
        self._next = 0.0
        self._in_use_since = clock.since_boot()
        self._is_new = False  # issued when it came into use, not found at the start
        self._requests = 0  # without an answer
        self._connect_attempts = 0

    @property
    def certificate_path_changed(self) -> bool:
        """Whether the certificate in use lies elsewhere than at the start."""
        return self._holder.certificate != self._initial_certificate

    def on_promoted(self) -> None:
        """Takes the renewed pair, which the broker accepted, as the current one."""
        current = self._store.current
        self._holder = CertificateHolder(self._holder.device_id, current, current, self._holder.passphrase)
        self._certificate, self._csr, self._connect_attempts, self._requests = None, None, 0, 0
        self._in_use_since, self._is_new = self._clock.since_boot(), True
        self._next = 0.0  # the wait was for an attempt that failed: the next renewal has its own time
        _log.info("renewed: the new certificate has connected and is in use")
        self._on_renewed(current)

    def step(self, link: RenewalLink) -> None:
        """Asks for a certificate, or retries a new one, when that is due."""
        now = self._clock.since_boot()
        if now < self._next:
            return
        try:
            self._step(link, now)
        except (IdentityError, OSError) as e:
            self._next = now + LONGEST_WAIT
            _log.error("the certificate cannot be renewed: %s", e)

    def _step(self, link: RenewalLink, now: float) -> None:
        if self._store.candidate.exists():
            self._retry_candidate(link, now)
            return
        certificate = self._certificate = self._certificate or read_certificate_info(self._holder.certificate)
        spread = int.from_bytes(hashlib.sha256(certificate.serial.encode()).digest()[:4], "big") / 2**32
        held, wall = self._clock.since_boot() - self._in_use_since, self._clock.now().timestamp()
        left = certificate.renewal_due_in(wall, held, is_new=self._is_new, spread=spread * JITTER_FRACTION)
        if left > 0:
            self._next = now + min(left, LONGEST_WAIT)
            return
        if link.publish(UpChannel.RENEW, self._request(certificate)):
            longest = max(1.0, _WAIT_SHARE * certificate.lifetime)
            self._next = now + min(RETRY.ceiling(self._requests), longest)
            self._requests += 1

    def _request(self, info: CertificateInfo) -> bytes:
        from device_agent.identity.keypair import make_csr, read_key, sign  # large: only to renew

        holder = self._holder
        if self._csr is None:
            self._csr = make_csr(self._store.pending_key(), holder.device_id)
        current_key: Any = read_key(read_file(holder.key), holder.passphrase)
        proof = sign(current_key, renewal_bytes(holder.device_id, info.serial, self._csr))
        body = RenewRequest(
            device_id=holder.device_id, serial=info.serial, csr=self._csr, proof=base64.b64encode(proof).decode()
        )
        return body.model_dump_json().encode()

    def on_answer(self, payload: bytes, link: RenewalLink) -> None:
        """Connects with the certificate that the controller issued; an answer to another request is ignored."""
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
            self._next = self._clock.since_boot() + self._refused_wait(answer.refused)
            _log.error("the controller refused to renew the certificate: %s (%s)", answer.refused, answer.detail)
            return
        try:
            self._store.save_candidate(answer.certificate, answer.chain, self._holder.device_id)
        except (IdentityError, OSError) as e:
            _log.error("the new certificate cannot be used: %s", e)
            return
        self._connect_attempts, self._next = 1, self._clock.since_boot() + CONNECT_WAIT
        _log.info("received a new certificate; connecting with it")
        link.reconnect()

    def _refused_wait(self, code: str | None) -> float:
        """A request that is too early, because this device's clock is ahead, is repeated some times in a lifetime."""
        if code != TOO_EARLY or self._certificate is None:
            return REFUSED_WAIT
        return max(1.0, _EARLY_WAIT_SHARE * self._certificate.lifetime)

    def _retry_candidate(self, link: RenewalLink, now: float) -> None:
        """Connects once more with the new pair: the broker was unreachable, or did not accept it."""
        self._next = now + CONNECT_WAIT
        self._connect_attempts += 1
        if self._connect_attempts > MAX_CONNECT_ATTEMPTS:
            _log.error("the broker did not accept the new certificate %d times: it is discarded", MAX_CONNECT_ATTEMPTS)
            self._store.discard()
            self._connect_attempts, self._csr, self._requests = 0, None, 0
            self._next = now + REFUSED_WAIT
            return
        link.reconnect()


def load_renewal(
    settings: Settings, clock: Clock, on_renewed: Callable[[Path], None]
) -> tuple[CertificateRenewer, RotatingCredentials]:
    """Returns what renews the certificate of the settings, and the credentials for the connection.

    Raises:
        AgentError: the passphrase cannot be read.
        OSError: certificate or key cannot be loaded.
    """
    mqtt = settings.mqtt
    assert mqtt.certificate is not None
    assert mqtt.key is not None
    passphrase = read_key_passphrase(mqtt)
    holder = CertificateHolder(settings.device_id, mqtt.certificate, mqtt.key, passphrase)
    store = IdentityStore(settings.agent.state_dir, passphrase)
    renewer = CertificateRenewer(holder, store, clock, on_renewed)
    return renewer, RotatingCredentials(mqtt, store, tls_context, renewer.on_promoted)
