"""Renewal over MQTT: a device requests a certificate for a new key and proves the present one."""

import asyncio
import base64
import binascii
import hashlib
from typing import Final

from controller.domain.events import CloneSuspected
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.ports.certificates import (
    AuthorityError,
    CertificateRequest,
    CertificateRequestRefusedError,
    RenewalRefusal,
)
from controller.ports.errors import StoreError
from controller.ports.log import Log
from controller.ports.messages import Messages
from controller.service.fleet_state import FleetState
from controller.service.identity.certificates import CertificateService
from schemas.enrolment import RenewRequest, RenewResponse, renewal_bytes
from schemas.topics import DownChannel, down

MAX_WAITING: Final = 10_000  # requests; more are dropped, and the device sends them again
AT_ONCE: Final = 64  # requests processed at a time
# Valid certificates of one device; beyond them it gets one a day. A lifetime needs three, but a device whose broker
# refuses the new one tries another key each hour, and must not be locked out by that.
MAX_VALID: Final = 8
EVERY_WITH_ENOUGH: Final = 86_400.0  # seconds
ANSWER_EXPIRY: Final = 600  # seconds; by then the device has sent its request again
_OVER: Final = "the present certificate is expired or revoked: an operator has to approve a new enrolment"


class RenewalService:
    """Answers requests in the background."""

    def __init__(self, certificates: CertificateService, fleet: FleetState, messages: Messages, log: Log) -> None:
        self._certificates = certificates
        self._fleet = fleet
        self._messages = messages
        self._log = log
        self._waiting: dict[str, RenewRequest] = {}  # the last request of each device
        self._wake = asyncio.Event()

    def enqueue(self, device_id: str, request: RenewRequest) -> None:
        """Enqueues a request; a repeated request is answered once."""
        if device_id not in self._waiting and len(self._waiting) >= MAX_WAITING:
            return
        self._waiting[device_id] = request
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self.run_once()

    async def run_once(self) -> None:
        """Answers some requests at a time: the store commits them together."""
        taken = [(one, self._waiting.pop(one)) for one in list(self._waiting)[:AT_ONCE]]
        async with asyncio.TaskGroup() as group:
            for device_id, request in taken:
                group.create_task(self._answer(device_id, request), name=f"renewal {device_id}")

    async def _answer(self, device_id: str, request: RenewRequest) -> None:
        digest = hashlib.sha256(request.csr.encode()).hexdigest()
        try:
            answer = await self._renew(device_id, request, digest)
        except CertificateRequestRefusedError as e:
            if self._fleet.budget.admits_line(device_id, self._fleet.clock.now()):
                self._log("renewal refused", {"device": device_id, "code": e.code, "why": str(e)})
            answer = RenewResponse(request=digest, refused=e.code, detail=str(e)[:1000])
        except (AuthorityError, StoreError) as e:
            if self._fleet.budget.admits_line(device_id, self._fleet.clock.now()):
                self._log("renewal failed", {"device": device_id, "error": str(e)})
            return  # the device sends the request again
        payload = answer.model_dump_json(exclude_none=True).encode()
        topic = down(device_id, DownChannel.CERTIFICATE)
        self._messages.publish(topic, payload, expiry_seconds=ANSWER_EXPIRY)

    async def _renew(self, device_id: str, request: RenewRequest, digest: str) -> RenewResponse:
        certificates = self._certificates
        held = await certificates.registry.of(device_id)
        wanted = certificates.authority.read(request.csr)
        self._check(device_id, request, wanted, held, certificates)
        made = certificates.sign_client(wanted, held, f"renewal:{request.serial}")
        given = await certificates.registry.renew(made, request.serial)
        if given is RenewalRefusal.OVER:
            raise CertificateRequestRefusedError("certificate_over", _OVER)
        if given is RenewalRefusal.KEY_USED:
            raise CertificateRequestRefusedError("key_used", "this key is in a certificate of another device")
        certificates.on_changed(device_id)
        if given.serial == made.serial and any(one.origin == given.origin for one in held):
            # The key has two successors: a copy of the device renews too, or its disk was restored.
            how = "its certificate was renewed twice, for two keys"
            await self._fleet.apply_and_commit(device_id, CloneSuspected(self._fleet.new_id(), how, (), 2, "proven"))
        return RenewResponse(request=digest, certificate=given.pem, chain=certificates.authority.chain)

    def _check(
        self,
        device_id: str,
        request: RenewRequest,
        wanted: CertificateRequest,
        held: tuple[Certificate, ...],
        certificates: CertificateService,
    ) -> None:
        """Checks that the sender has the present key; the broker's authentication is not enough.

        Raises:
            CertificateRequestRefusedError: the proof or the request is not valid.
        """
        now = self._fleet.clock.now()
        present = next(
            (one for one in held if one.serial == request.serial and one.kind is CertificateKind.CLIENT), None
        )
        if wanted.name != device_id or request.device_id != device_id:
            raise CertificateRequestRefusedError("wrong_name", "the request is for another device")
        if present is None:
            raise CertificateRequestRefusedError(
                "certificate_unknown", "the present certificate is not in the registry"
            )
        if not present.is_valid(now):
            raise CertificateRequestRefusedError("certificate_over", _OVER)
        if wanted.key == present.key or any(
            one.key == wanted.key and one.origin != f"renewal:{request.serial}" for one in held
        ):
            raise CertificateRequestRefusedError("key_used", "a renewal needs a new key")
        if _has_enough(held, wanted.key, now):
            text = f"the device has {MAX_VALID} valid certificates, and one more only each day: is its key copied?"
            raise CertificateRequestRefusedError("too_many_certificates", text)
        try:
            proof = base64.b64decode(request.proof, validate=True)
        except binascii.Error as e:
            raise CertificateRequestRefusedError("proof_malformed", "the proof is not base64") from e
        if not certificates.authority.verify(present, renewal_bytes(device_id, request.serial, request.csr), proof):
            raise CertificateRequestRefusedError("proof_wrong", "the present key did not sign this request")
        if now < present.renewable_from:
            text = "less than a third of the present certificate's lifetime is over: is the device's clock right?"
            raise CertificateRequestRefusedError("too_early", text)


def _has_enough(held: tuple[Certificate, ...], key: str, now: float) -> bool:
    """Whether the device gets no certificate for this key now; one that it has already is given again."""
    valid = [one for one in held if one.kind is CertificateKind.CLIENT and one.is_valid(now)]
    is_given = any(one.key == key for one in held)
    return not is_given and len(valid) >= MAX_VALID and max(one.issued_at for one in valid) > now - EVERY_WITH_ENOUGH
