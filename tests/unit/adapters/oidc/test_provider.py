"""Single sign-on by OpenID Connect: what is asked for, what is sent, and whose keys count."""

import base64
import ssl
import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import Key, OKPKey, RSAKey
from starlette.responses import JSONResponse

from controller.adapters.oidc.metadata import WELL_KNOWN
from controller.adapters.oidc.provider import REST_SECONDS, ROTATION_SECONDS, OidcOptions, OidcProvider
from controller.adapters.system import SystemClock
from controller.domain.accounts.sso import ProvedIdentity
from controller.ports.errors import SettingsError
from controller.ports.identity_provider import (
    IdentityNotProvedError,
    ProviderUnavailableError,
    SignInDeclinedError,
)
from tests.support.oidc import (
    CALLBACK,
    CLIENT,
    NEW_KEY,
    SECRET,
    SIGNING_KEY,
    ScriptedProvider,
    attempt,
    authorize,
    real_provider,
    scripted_provider,
)


async def _signed_in(served: ScriptedProvider, port: OidcProvider, **answer: str) -> ProvedIdentity:
    one = attempt()
    served.nonce = one.nonce
    return await port.identity({"code": "c-1", **answer}, one)


async def test_a_sign_in_at_a_real_provider() -> None:
    """oidc-provider-mock: discovery, code flow, keys and ID token are another implementation's."""
    person = {"preferred_username": "anna", "groups": ["ops"], "acr": "mfa", "amr": ["pwd", "otp"]}
    with real_provider({"u-1": person}) as issuer:
        options = OidcOptions(issuer, CLIENT, SECRET, CALLBACK)
        port = OidcProvider(options, ssl.create_default_context(), SystemClock())
        one = attempt(now=time.time())
        answer = await authorize(await port.authorization_url(one), "u-1")
        assert answer["state"] == one.state
        who = await port.identity(answer, one)
        assert (who.issuer, who.subject, who.name, who.groups) == (issuer, "u-1", "anna", ("ops",))
        assert (who.acr, who.amr) == ("mfa", ("pwd", "otp"))
        with pytest.raises(SignInDeclinedError):
            await port.identity(answer, one)  # the code was redeemed
        with pytest.raises(IdentityNotProvedError, match="nonce"):
            await port.identity(await authorize(await port.authorization_url(attempt()), "u-1"), one)


async def test_what_the_browser_is_sent_with() -> None:
    async with scripted_provider(scopes=("openid", "groups"), acr_values=("mfa", "gold"), max_age=60) as (served, port):
        served.metadata["authorization_endpoint"] = f"{served.issuer}/authorize?tenant=7"
        plain, again = attempt(), attempt(session="s-1")
        parts = urlsplit(await port.authorization_url(plain))
        assert parts.path == "/authorize"
        assert parse_qs(parts.query) == {
            "tenant": ["7"],
            "response_type": ["code"],
            "client_id": [CLIENT],
            "redirect_uri": [CALLBACK],
            "scope": ["openid groups"],
            "state": [plain.state],
            "nonce": [plain.nonce],
            "code_challenge": [plain.challenge],
            "code_challenge_method": ["S256"],
            "acr_values": ["mfa gold"],
            "max_age": ["60"],
        }
        query = parse_qs(urlsplit(await port.authorization_url(again)).query)
        assert (query["prompt"], query["max_age"]) == (["login"], ["0"])


async def test_the_code_is_redeemed_with_verifier_and_secret() -> None:
    async with scripted_provider() as (served, port):
        await _signed_in(served, port)
        assert served.forms == [
            {
                "grant_type": "authorization_code",
                "code": "c-1",
                "redirect_uri": CALLBACK,
                "code_verifier": attempt().verifier,
            }
        ]
        served.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
        served.clock.at += 3600
        await _signed_in(served, port)
        assert served.forms[1]["client_secret"] == SECRET
        served.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
        served.clock.at += 3600
        with pytest.raises(ProviderUnavailableError, match="takes no client secret"):
            await _signed_in(served, port)


async def test_a_secret_with_any_characters_is_encoded_for_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_provider() as (served, port):
        sent: list[str] = []
        post = port._exchange.post

        async def noted(url: str, form: object, headers: dict[str, str]) -> object:
            sent.append(headers["authorization"])
            return await post(url, form, headers)  # type: ignore[arg-type]

        monkeypatch.setattr(port._exchange, "post", noted)
        await _signed_in(served, port)
        assert base64.b64decode(sent[0].removeprefix("Basic ")) == b"cordon:s3cret+of%2Fthe%3Aclient"


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_tokens_of_each_allowed_algorithm_are_taken(kind: str) -> None:
    made: dict[str, Callable[[], Key]] = {
        "RS256": lambda: RSAKey.generate_key(2048, {"kid": "k"}),
        "ES256": lambda: SIGNING_KEY,
        "EdDSA": lambda: OKPKey.generate_key("Ed25519", {"kid": "k"}),
    }
    key = made[kind]()
    async with scripted_provider() as (served, port):
        served.key, served.published, served.header = key, [key], {"alg": kind}
        assert (await _signed_in(served, port)).subject == "u-1"


async def test_a_new_key_of_the_provider_is_fetched_at_most_once_in_a_while() -> None:
    async with scripted_provider() as (served, port):
        await _signed_in(served, port)
        served.key = NEW_KEY
        for _ in range(3):
            with pytest.raises(IdentityNotProvedError):
                await _signed_in(served, port)
        assert served.requests.count("/jwks") == 1
        served.published = [SIGNING_KEY, NEW_KEY]
        served.clock.at += ROTATION_SECONDS
        assert (await _signed_in(served, port)).subject == "u-1"
        assert served.requests.count("/jwks") == 2


async def test_a_withdrawn_key_does_not_count_for_long() -> None:
    async with scripted_provider() as (served, port):
        await _signed_in(served, port)
        served.published = [NEW_KEY]
        served.clock.at += 600
        with pytest.raises(IdentityNotProvedError):
            await _signed_in(served, port)


async def test_a_provider_that_is_away_is_left_in_peace_for_seconds() -> None:
    async with scripted_provider() as (served, port):
        served.answers[WELL_KNOWN] = lambda: JSONResponse({}, 503)
        for _ in range(5):
            with pytest.raises(ProviderUnavailableError, match="503"):
                await port.authorization_url(attempt())
        assert len(served.requests) == 1
        served.answers.clear()
        served.clock.at += REST_SECONDS
        assert await port.authorization_url(attempt())


async def test_errors_of_the_provider_tell_who_has_to_act() -> None:
    async with scripted_provider() as (served, port):
        for code, kind in (("invalid_grant", SignInDeclinedError), ("invalid_client", ProviderUnavailableError)):
            served.answers["/token"] = lambda code=code: JSONResponse({"error": code}, 400)  # type: ignore[misc]
            with pytest.raises(kind, match=code):
                await _signed_in(served, port)
        with pytest.raises(SignInDeclinedError, match="access_denied"):
            await port.identity({"error": "access_denied", "error_description": "<b>"}, attempt())
        with pytest.raises(SignInDeclinedError, match="with an unknown error"):
            await port.identity({"error": "<script>"}, attempt())


async def test_groups_are_what_the_named_claim_lists() -> None:
    async with scripted_provider(groups_claim="roles") as (served, port):
        found = []
        for roles in (["a", 7, "b" * 300, None], "one", None, {"a": 1}, []):
            served.claims = {"roles": roles}
            found.append((await _signed_in(served, port)).groups)
        assert found == [("a",), ("one",), None, None, ()]


@pytest.mark.parametrize(
    "issuer", ["http://id.example.com", "https://", "https://u@id.example.com", "ftp://x", "https://a/#f"]
)
def test_an_issuer_without_encryption_or_host_is_refused(issuer: str) -> None:
    with pytest.raises(SettingsError, match=r"accounts\.sso\.issuer"):
        OidcProvider(OidcOptions(issuer, CLIENT, SECRET, CALLBACK), ssl.create_default_context(), SystemClock())
