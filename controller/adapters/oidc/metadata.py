"""Discovery: what the provider says of itself, checked before any of it is used."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.adapters.oidc.exchange import MAX_URL, endpoint_problem
from controller.ports.identity_provider import ProviderUnavailableError

WELL_KNOWN: Final = "/.well-known/openid-configuration"
_Url = Annotated[str, Field(min_length=1, max_length=MAX_URL)]


class ProviderMetadata(BaseModel):
    """The parts of the document that a sign-in needs; `..._parameter_supported`: RFC 9207."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    issuer: _Url
    authorization_endpoint: _Url
    token_endpoint: _Url
    jwks_uri: _Url
    token_endpoint_auth_methods_supported: Annotated[list[str], Field(max_length=64)] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False


def metadata_url(issuer: str) -> str:
    """Where the issuer's document is."""
    return issuer.removesuffix("/") + WELL_KNOWN


def checked_metadata(document: dict[str, Any], issuer: str) -> ProviderMetadata:
    """Returns the metadata of exactly this issuer.

    Raises:
        ProviderUnavailableError: a part is missing or wrong, or the document is another issuer's.
    """
    url = metadata_url(issuer)
    try:
        found = ProviderMetadata.model_validate(document)
    except ValidationError as e:
        fields = ", ".join(sorted({str(one["loc"][0]) for one in e.errors() if one["loc"]}))
        raise ProviderUnavailableError(f"{url}: missing or not valid: {fields}") from e
    if found.issuer != issuer:
        raise ProviderUnavailableError(f"{url}: names another issuer than accounts.sso.issuer")
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        if problem := endpoint_problem(getattr(found, name), issuer):
            raise ProviderUnavailableError(f"{url}: {name} {problem}")
    return found
