"""Enrolment: tokens, managed by operators, and the two routes of a device that has only a token."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from controller.api.auth import CallerDep, FailedAttempts, public, scope
from controller.api.certificates import identity_of
from controller.api.context import FleetDep, IdentityDep, RolloutsDep, RolloutServices, SettingsDep, writable
from controller.api.errors import ApiError, problems
from controller.api.fields import Body, DurationText, UtcTimestamp, View, to_datetime
from controller.domain.audit_kinds import AuditKind
from controller.domain.identity.certificates import RENEW_AT
from controller.domain.identity.enrolment import ANY_LOWER_CASE, IDS_PATTERN, MAX_LIFE, MAX_STARS, MAX_USES
from controller.ports.errors import BrokerError
from controller.ports.updates import UpdatesError
from controller.service.identity.enrolment import EnrolmentRefusedError, EnrolmentTokenRequest
from controller.service.settings.settings import Settings
from schemas.base import DeviceId
from schemas.durations import parse_duration
from schemas.enrolment import EnrolRequest, EnrolResponse

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_STATUS: Final = {
    "token_refused": 401,
    "id_taken": 409,
    "id_in_use": 409,
    "id_reserved": 409,
    "wrong_device": 403,
    "id_not_allowed": 403,
}

router = APIRouter(prefix="/enrolment", tags=["enrolment"])
_OPERATOR: Final = problems(401, 403, 404, 422, 429, 503)
DeviceClassName = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")]


class NewEnrolmentToken(Body):
    """`for`: lifetime; `replace`: approves another certificate for a device that has, or had, one.

    `ids`: pattern of the device ids that may enrol, with `*` and `?`; empty: any id without capital letters.
    """

    duration: Annotated[DurationText, Field(alias="for", description="90s, 10m, 2h, 7d; at most 30d")] = "24h"
    uses: Annotated[int, Field(ge=1, le=MAX_USES)] = 1
    device_class: Annotated[DeviceClassName, Field(alias="class")] = ""
    device_id: DeviceId | None = None
    replace: bool = False
    ids: Annotated[str, StringConstraints(pattern=IDS_PATTERN)] = ANY_LOWER_CASE


class EnrolmentTokenView(View):
    token_id: str
    uses_left: int
    created_at: UtcTimestamp
    expires_at: UtcTimestamp
    by: str
    device_class: str
    device_id: str
    replaces: bool
    ids: str
    over: bool


class CreatedEnrolmentToken(View):
    """`token` is shown only once; the device also needs `ca_fingerprint`."""

    token: str
    ca_fingerprint: str
    kept: EnrolmentTokenView


class EnrolmentTokenList(View):
    items: tuple[EnrolmentTokenView, ...]


@router.get("/tokens", dependencies=[scope("identity")], responses=_OPERATOR)
async def list_enrolment_tokens(fleet: FleetDep, identity: IdentityDep) -> EnrolmentTokenList:
    """Lists enrolment tokens without their secrets, newest first."""
    now = fleet.clock.now()
    found = await identity_of(identity).certificates.registry.tokens()
    return EnrolmentTokenList(items=tuple(EnrolmentTokenView.of(one, over=one.is_over(now)) for one in found))


@router.post(
    "/tokens",
    status_code=201,
    dependencies=[scope("identity"), Depends(writable)],
    responses={**_OPERATOR, **problems(409)},
)
async def create_enrolment_token(
    fleet: FleetDep, identity: IdentityDep, caller: CallerDep, body: NewEnrolmentToken
) -> CreatedEnrolmentToken:
    """Creates an enrolment token."""
    identity, lifetime = identity_of(identity), parse_duration(body.duration)
    if lifetime > MAX_LIFE:
        raise ApiError(422, "invalid", "for: an enrolment token is valid for at most 30d")
    if body.replace and body.device_id is None:
        raise ApiError(422, "invalid", "replace: approve one device by its id, with device_id")
    if body.device_id is not None and body.uses != 1:
        raise ApiError(422, "invalid", "uses: a token for one device is used once")
    if body.ids.count("*") > MAX_STARS:
        raise ApiError(422, "invalid", f"ids: a pattern has at most {MAX_STARS} `*`")
    if body.device_id is not None and body.ids:
        raise ApiError(422, "invalid", "ids: a token for one device has no pattern")
    device_id = body.device_id or ""
    wanted = EnrolmentTokenRequest(body.uses, lifetime, caller, body.device_class, device_id, body.replace, body.ids)
    try:
        secret, kept = await identity.enrolment.make_token(wanted)
    except EnrolmentRefusedError as e:
        raise ApiError(409, e.code, str(e)) from e
    view = EnrolmentTokenView.of(kept, over=kept.is_over(fleet.clock.now()))
    fingerprint = identity.certificates.authority.info.fingerprint
    return CreatedEnrolmentToken(token=secret, ca_fingerprint=fingerprint, kept=view)


@router.delete(
    "/tokens/{token_id}", status_code=204, dependencies=[scope("identity"), Depends(writable)], responses=_OPERATOR
)
async def withdraw_enrolment_token(
    identity: IdentityDep, caller: CallerDep, token_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
) -> None:
    """Revokes an enrolment token."""
    if not await identity_of(identity).enrolment.withdraw(token_id, caller):
        raise ApiError(404, "token_unknown", f"there is no enrolment token {token_id}")


@router.get(
    "/root",
    dependencies=[public("devices that enrol: they compare its fingerprint with the one they were given")],
    response_class=Response,
    responses={**problems(404), 200: {"content": {"application/x-pem-file": {}}, "description": "the root"}},
)
async def root_certificate(identity: IdentityDep) -> Response:
    """Returns the root certificate (PEM)."""
    trust = identity_of(identity).certificates.authority.trust
    return Response(trust, media_type="application/x-pem-file")


@router.post(
    "/enrol",
    dependencies=[public("devices that enrol: they bring an enrolment token in the body"), Depends(writable)],
    responses=problems(401, 403, 404, 409, 413, 422, 429, 503),
)
async def enrol(
    request: Request, rollouts: RolloutsDep, identity: IdentityDep, settings: SettingsDep, body: EnrolRequest
) -> EnrolResponse:
    """Issues a certificate for a device's own key."""
    identity, peer = identity_of(identity), request.client.host if request.client else ""
    if request.scope["scheme"] != "https" and peer not in _LOOPBACK:
        raise ApiError(403, "https_only", "enrolment needs https: give the API a certificate, or a proxy on its host")
    try:
        got = await identity.enrolment.enrol(body.token, body.device_id, body.csr, peer)
    except EnrolmentRefusedError as e:
        raise await _refusal(request, peer, e) from e
    except BrokerError as e:
        text = "the broker cannot be asked whether this id is free: try again in a moment"
        raise ApiError(503, "broker_unreachable", text, {"Retry-After": "5"}) from e
    updates_url, updates_root = await _updates(rollouts, settings)
    renew_at = got.certificate.start + (got.certificate.end - got.certificate.start) * RENEW_AT
    return EnrolResponse(
        certificate=got.certificate.pem,
        chain=got.chain,
        trust=got.trust,
        controller_keys=got.controller_keys,
        servers=got.servers,
        not_after=to_datetime(got.certificate.end),
        renew_at=to_datetime(renew_at),
        updates_url=updates_url,
        updates_root=updates_root,
    )


async def _updates(rollouts: RolloutServices, settings: Settings) -> tuple[str, str]:
    """Returns the update URL and the TUF root for a new device; both empty without a repository."""
    url = settings.updates.url
    if rollouts.updates is None or url is None:
        return "", ""
    try:
        return url, (await run_in_threadpool(rollouts.updates.root)).decode()
    except UpdatesError:
        return "", ""


async def _refusal(request: Request, peer: str, error: EnrolmentRefusedError) -> ApiError:
    """Returns the error response, and audits and limits attempts to guess a token."""
    if error.code != "token_refused":
        return ApiError(_STATUS.get(error.code, 422), error.code, str(error))
    failures = request.app.state.enrolment_failures
    assert isinstance(failures, FailedAttempts)
    wait = failures.record(peer)
    refusals = request.app.state.refusals
    if wait:
        await refusals.record(
            AuditKind.ENROLMENT_TOKEN_GUESSING_DETECTED, peer, "too many unknown tokens within a minute", alert=True
        )
        headers = {"Retry-After": str(int(wait) + 1)}
        return ApiError(429, "too_many_attempts", "too many requests without a valid token: wait a minute", headers)
    await refusals.record(AuditKind.ENROLMENT_REFUSED, peer, "unknown, used or expired token")
    return ApiError(401, error.code, str(error))
