"""Certificates: the authority, the registry, and revocation."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from controller.api.approval_views import ApprovalRequestView, request_view
from controller.api.auth import PrincipalDep, scope
from controller.api.context import (
    ContainmentDep,
    ContainmentServices,
    FleetDep,
    IdentityDep,
    OwnCertificatesDep,
    writable,
)
from controller.api.errors import ApiError, problems
from controller.api.fields import (
    Body,
    DeviceIdFilter,
    DeviceIdPath,
    NextKey,
    OptionalTimestamp,
    PageKey,
    PageLimit,
    PageOffset,
    ReasonText,
    UtcTimestamp,
    View,
)
from controller.api.waiting import RequestWait, WaitDep, proof_in_force
from controller.domain.containment.proof import ProofState
from controller.domain.guards.approvals import ApprovalKind, ApprovalRequest
from controller.domain.identity.certificates import Certificate, CertificateKind
from controller.domain.policy.model import ContainmentLevel
from controller.domain.principal import Principal
from controller.service.approvals.book import TooManyApprovalRequestsError
from controller.service.containment.operator_actions import OperatorRequest, ProtectedDeviceError
from controller.service.identity.own_certificates import OwnCertificateInUseError, OwnCertificates
from controller.service.identity.services import IdentityServices
from controller.service.waiting import ProofWatch, WaitEnd

router = APIRouter(prefix="/certificates", tags=["certificates"], responses=problems(401, 403, 404, 422, 429, 503))
SerialPath = Annotated[str, Path(pattern=r"^[1-9a-f][0-9a-f]{0,39}$", description="serial number, in hex")]
RevocationReason = Literal[
    "unspecified",
    "key_compromise",
    "affiliation_changed",
    "superseded",
    "cessation_of_operation",
    "privilege_withdrawn",
]
_UNKNOWN: Final = "there is no such certificate in the registry"


class CertificateView(View):
    serial: str
    issuer: str
    kind: CertificateKind
    name: str
    not_before: Annotated[UtcTimestamp, Field(validation_alias="start")]
    not_after: Annotated[UtcTimestamp, Field(validation_alias="end")]
    issued_at: UtcTimestamp
    origin: str
    holds: bool
    revoked_at: OptionalTimestamp
    reason: str


class CertificatePage(View):
    items: tuple[CertificateView, ...]
    total: int
    limit: int
    offset: int
    next: NextKey


class AuthorityView(View):
    """`fingerprint`: for `cordon-agent enrol --ca-fingerprint`."""

    fingerprint: str
    subject: str
    issuing_subject: str
    issuing_until: Annotated[UtcTimestamp, Field(validation_alias="issuing_end")]
    root_until: Annotated[UtcTimestamp, Field(validation_alias="root_end")]
    crl_url: str
    lists: tuple["CrlView", ...]


class CrlView(View):
    issuer: Annotated[str, Field(validation_alias="name")]
    next_update: UtcTimestamp


class RevokedDeviceView(View):
    """The proof that a device is isolated."""

    device_id: str
    proof: ProofState
    proven: bool
    trouble: str


class RevocationResultView(View):
    """The revoked certificates; their devices stay isolated until they have a new one.

    `request`: nothing was revoked: a second person has to approve it.
    """

    items: tuple[CertificateView, ...] = ()
    devices: tuple[RevokedDeviceView, ...] = ()
    waited: WaitEnd = WaitEnd.NO
    request: ApprovalRequestView | None = None


class RevocationBody(Body):
    """`word`: for the revocation list; `reason`: for the audit log; `even_protected`: a protected device too."""

    reason: ReasonText
    even_protected: bool = False
    word: Annotated[RevocationReason, Field(description="RFC 5280's reason")] = "unspecified"


def _certificate(certificate: Certificate, now: float) -> CertificateView:
    return CertificateView.of(certificate, holds=certificate.is_valid(now))


def identity_of(identity: IdentityServices | None) -> IdentityServices:
    """Returns the services of the certificate authority.

    Raises:
        ApiError: 404, this controller has no authority.
    """
    if identity is None:
        text = "this controller has no certificate authority: make one with `cordon ca init`, and set authority.folder"
        raise ApiError(404, "no_authority", text)
    return identity


_ASKED: Final[dict[int | str, dict[str, Any]]] = {
    **problems(409),
    202: {"model": RevocationResultView, "description": "a second person has to approve; nothing was revoked"},
}


@router.get("", dependencies=[scope("read")], responses=problems(404))
async def list_certificates(
    fleet: FleetDep,
    identity: IdentityDep,
    name: DeviceIdFilter = None,
    *,
    good: Annotated[bool, Query(description="leave out what is expired or revoked")] = False,
    limit: PageLimit = 100,
    offset: PageOffset = 0,
    after: PageKey = None,
) -> CertificatePage:
    """Lists certificates, newest first."""
    now, registry = fleet.clock.now(), identity_of(identity).certificates.registry
    found, total = await registry.certificates(
        name=name, good_at=now if good else None, limit=limit, offset=offset, after=after
    )
    items = tuple(_certificate(one, now) for one in found)
    following = found[-1].serial if len(found) == limit else None
    return CertificatePage(items=items, total=total, limit=limit, offset=offset, next=following)


@router.get("/authority", dependencies=[scope("read")])
async def show_authority(identity: IdentityDep) -> AuthorityView:
    """Returns the issuing authority and its revocation lists."""
    certificates = identity_of(identity).certificates
    return AuthorityView.of(certificates.authority.info, lists=certificates.lists)


@router.post("/publish", dependencies=[scope("identity"), Depends(writable)])
async def publish(identity: IdentityDep) -> CrlView:
    """Publishes a new revocation list if something changed; returns its issuer and next update."""
    return CrlView.of(await identity_of(identity).certificates.publish())


@router.post("/serials/{serial}/revoke", dependencies=[scope("identity"), Depends(writable)], responses=_ASKED)
async def revoke_serial(
    containment: ContainmentDep,
    identity: IdentityDep,
    own: OwnCertificatesDep,
    caller: PrincipalDep,
    serial: SerialPath,
    body: RevocationBody,
    response: Response,
    wait: WaitDep,
) -> RevocationResultView:
    """Revokes a certificate and isolates its device until it has a new one."""
    found = await identity_of(identity).certificates.registry.find(serial)
    if found is None:
        raise ApiError(404, "certificate_unknown", _UNKNOWN)
    asked = await _revocation_request(containment, own, caller, [found], body)
    if asked is not None:
        response.status_code = 202
        return RevocationResultView(request=request_view(asked, containment.fleet.clock.now()))
    done = await identity_of(identity).revocation.revoke([serial], caller.actor, body.word, body.reason)
    return await _revoked(containment, done, wait)


@router.post("/devices/{device_id}/revoke", dependencies=[scope("identity"), Depends(writable)], responses=_ASKED)
async def revoke_device(
    containment: ContainmentDep,
    identity: IdentityDep,
    own: OwnCertificatesDep,
    caller: PrincipalDep,
    device_id: DeviceIdPath,
    body: RevocationBody,
    response: Response,
    wait: WaitDep,
) -> RevocationResultView:
    """Revokes every certificate of a device, and isolates it until it has a new one."""
    identity = identity_of(identity)
    held = await identity.certificates.registry.of(device_id)
    if not held:
        raise ApiError(404, "certificate_unknown", f"no certificate of {device_id} is in the registry")
    asked = await _revocation_request(containment, own, caller, held, body)
    if asked is not None:
        response.status_code = 202
        return RevocationResultView(request=request_view(asked, containment.fleet.clock.now()))
    done = await identity.revocation.revoke_device(device_id, caller.actor, body.word, body.reason)
    return await _revoked(containment, done, wait)


async def _revocation_request(
    containment: ContainmentServices,
    own: OwnCertificates,
    caller: Principal,
    certificates: Sequence[Certificate],
    body: RevocationBody,
) -> ApprovalRequest | None:
    """Counts a revocation like a containment by hand, since it isolates; returns the request that it needs, if any.

    Raises:
        ApiError: 409, a device is protected, the controller itself uses a certificate, or too many requests are open.
    """
    fleet = containment.fleet
    if await own.uses(certificates):
        raise ApiError(409, "own_certificate", str(OwnCertificateInUseError()))
    valid = [one for one in certificates if one.is_valid(fleet.clock.now())]
    names = {one.name for one in valid if one.kind is CertificateKind.CLIENT} - fleet.own.ids.keys()
    if not names:
        return None
    wanted = OperatorRequest(
        ApprovalKind.REVOKE,
        tuple(sorted(names)),
        caller,
        body.reason,
        ContainmentLevel.ISOLATED,
        even_protected=body.even_protected,
        serials=tuple(one.serial for one in valid),
        word=body.word,
    )
    try:
        return await containment.operators.charge(wanted)
    except ProtectedDeviceError as e:
        raise ApiError(409, "device_protected", f"{e} (`even_protected`)") from e
    except TooManyApprovalRequestsError as e:
        raise ApiError(409, "too_many_requests", str(e)) from e


async def _revoked(
    containment: ContainmentServices, done: Sequence[Certificate], wait: RequestWait
) -> RevocationResultView:
    """Returns the revoked certificates once every device is proven isolated or the wait is over."""
    now = containment.fleet.clock.now()
    clients = {one.name for one in done if one.kind is CertificateKind.CLIENT}
    names = sorted(clients - containment.fleet.own.ids.keys())  # the controller itself is not isolated
    waited = await wait.until({name: ProofWatch(partial(proof_in_force, containment, name)) for name in names})
    proofs = ((name, proof_in_force(containment, name)) for name in names)
    return RevocationResultView(
        items=tuple(_certificate(one, now) for one in done),
        devices=tuple(
            RevokedDeviceView(
                device_id=name, proof=proof.state, proven=proof.state is ProofState.PROVEN, trouble=proof.trouble
            )
            for name, proof in proofs
        ),
        waited=waited,
    )
