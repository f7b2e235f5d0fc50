"""Certificate revocation lists for brokers and devices, without a token."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from controller.api.auth import public
from controller.api.context import IdentityDep
from controller.api.errors import ApiError, problems
from controller.ports.certificates import PublishedCrl
from controller.service.identity.services import IdentityServices

router = APIRouter(
    prefix="/crl",
    tags=["certificates"],
    dependencies=[public("brokers and devices: lists are signed, and name serial numbers only")],
    responses=problems(404, 422),
)
IssuerPath = Annotated[str, Path(pattern=r"^[0-9a-f]{40}$", description="key identifier of the issuer, in hex")]
_DER = {"content": {"application/pkix-crl": {}}, "description": "the list"}
_PEM = {"content": {"application/x-pem-file": {}}, "description": "the list"}


@router.get("/{issuer}.pem", response_class=Response, responses={200: _PEM})
async def crl_pem(identity: IdentityDep, issuer: IssuerPath) -> Response:
    """Returns the list in PEM, as EMQX fetches it."""
    return Response(_list(identity, issuer).pem, media_type="application/x-pem-file")


@router.get("/{issuer}.crl", response_class=Response, responses={200: _DER})
async def crl_der(identity: IdentityDep, issuer: IssuerPath) -> Response:
    """Returns the list in DER (RFC 5280)."""
    return Response(_list(identity, issuer).der, media_type="application/pkix-crl")


def _list(identity: IdentityServices | None, issuer: str) -> PublishedCrl:
    found = None if identity is None else identity.certificates.published_crl(issuer)
    if found is None:
        raise ApiError(404, "crl_unknown", "this controller has no list of that issuer")
    return found
