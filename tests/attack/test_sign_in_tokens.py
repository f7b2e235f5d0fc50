"""ID tokens and answers of a provider that is hostile, or of somebody in its place."""

import asyncio
import base64
import hmac
import json
import math
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from controller.adapters.oidc import exchange
from controller.adapters.oidc.id_token import Expected, half_hash, verified_claims
from controller.adapters.oidc.keys import key_set
from controller.adapters.oidc.metadata import WELL_KNOWN, checked_metadata
from controller.adapters.oidc.provider import REST_SECONDS
from controller.ports.identity_provider import (
    IdentityNotProvedError,
    IdentityProviderError,
    ProviderBusyError,
    ProviderUnavailableError,
)
from tests.support.clocks import START
from tests.support.oidc import CLIENT, SIGNING_KEY, ScriptedProvider, attempt, scripted_provider, signed

ISSUER: Final = "https://id.example.com"
RSA_KEY: Final = RSAKey.generate_key(2048, {"kid": "rsa"})
FOREIGN: Final = ECKey.generate_key("P-256", {"kid": "2026"})  # of an attacker, under the name of the real one
KEYS: Final = KeySet([SIGNING_KEY, RSA_KEY])
GOOD: Final[dict[str, Any]] = {
    "iss": ISSUER, "aud": CLIENT, "sub": "u-1", "iat": START, "exp": START + 300, "nonce": "n-1",
    "auth_time": START - 5, "at_hash": half_hash("at", "ES256"),
}  # fmt: skip
WANTED: Final = Expected(ISSUER, CLIENT, "n-1", "at", START)


def check(token: str) -> None:
    verified_claims(token, KEYS, WANTED, START)


def test_the_good_token_of_these_tests_is_taken() -> None:
    check(signed(GOOD))


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://id.example.com/"}, {"iss": "https://evil.example.com"}, {"iss": None}, {"iss": [ISSUER]},
        {"aud": "other"}, {"aud": []}, {"aud": ["other"]}, {"aud": None}, {"aud": {"cordon": 1}},
        {"aud": [CLIENT, "other"]}, {"aud": [CLIENT, "other"], "azp": "other"}, {"azp": "other"},
        {"exp": START - 61}, {"exp": None}, {"exp": "never"}, {"exp": True}, {"exp": math.nan}, {"exp": math.inf},
        {"nbf": START + 61}, {"nbf": "x"}, {"iat": START + 61}, {"iat": START - 661}, {"iat": None}, {"iat": math.nan},
        {"nonce": "n-2"}, {"nonce": None}, {"nonce": ["n-1"]}, {"nonce": ""},
        {"at_hash": half_hash("another", "ES256")}, {"at_hash": ""}, {"at_hash": 7},
        {"auth_time": START - 61}, {"auth_time": None}, {"auth_time": True}, {"auth_time": "now"},
        {"auth_time": math.nan},
        {"sub": ""}, {"sub": None}, {"sub": 7}, {"sub": "x" * 256}, {"sub": "a\nb"},
    ],
    ids=str,
)  # fmt: skip
def test_one_wrong_claim_is_enough(changed: dict[str, Any]) -> None:
    claims = {name: value for name, value in {**GOOD, **changed}.items() if value is not None}
    with pytest.raises(IdentityNotProvedError):
        check(signed(claims))


def _unsigned(algorithm: str) -> str:
    return f"{_part({'alg': algorithm, 'kid': '2026'})}.{_part(GOOD)}."


def _hmac_with(secret: bytes) -> str:
    """By hand: the library refuses to do it."""
    head = ".".join(_part(one) for one in ({"alg": "HS256", "kid": "rsa"}, GOOD))
    return f"{head}.{_encoded(hmac.digest(secret, head.encode(), 'sha256'))}"


def _part(content: object) -> str:
    return _encoded(json.dumps(content).encode())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


FORGED: Final[dict[str, Callable[[], str]]] = {
    "alg none": lambda: _unsigned("none"),
    "alg None": lambda: _unsigned("None"),
    "no signature": lambda: _unsigned("ES256"),
    "HS256 with the public key in PEM": lambda: _hmac_with(RSA_KEY.as_pem(private=False)),
    "HS256 with the public key as JWK": lambda: _hmac_with(json.dumps(RSA_KEY.as_dict(private=False)).encode()),
    "another key by the same name": lambda: signed(GOOD, FOREIGN),
    "its key in the jwk header": lambda: signed(GOOD, FOREIGN, jwk=FOREIGN.as_dict(private=False)),
    "its key in the jwk header, no kid": lambda: signed(GOOD, FOREIGN, kid=None, jwk=FOREIGN.as_dict(private=False)),
    "an address of keys in the header": lambda: signed(GOOD, FOREIGN, jku="https://evil.example.com/jwks"),
    "an address of a certificate": lambda: signed(GOOD, FOREIGN, x5u="https://evil.example.com/c.pem"),
    "an unknown kid": lambda: signed(GOOD, kid="2031"),
    "the kid of another key": lambda: signed(GOOD, kid="rsa"),
    "no kid, several keys": lambda: signed(GOOD, kid=None),
    "an algorithm that is not allowed": lambda: signed(GOOD, RSA_KEY, alg="RS512"),
    "PS256": lambda: signed(GOOD, RSA_KEY, alg="PS256"),
    "a cut signature": lambda: signed(GOOD)[:-4],
    "an unknown critical header": lambda: f"{_part({'alg': 'ES256', 'kid': '2026', 'crit': ['x'], 'x': 1})}.e30.AAAA",
    "changed claims": lambda: ".".join(
        (signed(GOOD).split(".")[0], signed({**GOOD, "sub": "root"}).split(".")[1], signed(GOOD).split(".")[2])
    ),
    "claims that are no object": lambda: signed(GOOD).split(".")[0] + ".W10." + signed(GOOD).split(".")[2],
    "nothing": lambda: "",
    "no token": lambda: "a.b.c",
    "five parts": lambda: "a.b.c.d.e",
    "a header that is a list": lambda: "W10.e30.AAAA",
    "a huge token": lambda: "e" * 300_000,
    "a deep header": lambda: base64.urlsafe_b64encode(b"[" * 5_000).decode() + ".e30.AAAA",
}


@pytest.mark.parametrize("made", FORGED.values(), ids=FORGED)
def test_a_forged_token_proves_nothing(made: Callable[[], str]) -> None:
    with pytest.raises(IdentityNotProvedError):
        check(made())


def test_keys_that_anybody_could_use_or_break_are_not_taken() -> None:
    weak = [
        OctKey.generate_key(256, {"kid": "2026"}).as_dict(),
        {"kty": "RSA", "kid": "2026", "e": "AQAB", "n": _encoded(b"\xff" * 128)},
        ECKey.generate_key("P-521", {"kid": "2026"}).as_dict(private=False),
        {**SIGNING_KEY.as_dict(private=False), "use": "enc"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "n": "", "e": "AQAB"},
        {"kty": ["EC"]},
        "key",
        None,
    ]
    with pytest.raises(ProviderUnavailableError, match="no key"):
        key_set({"keys": weak}, "x")
    with pytest.raises(ProviderUnavailableError):
        key_set({"keys": [SIGNING_KEY.as_dict(private=False)] * 65}, "x")
    assert len(key_set({"keys": [*weak, SIGNING_KEY.as_dict(private=False)]}, "x").keys) == 1


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65536
        await asyncio.sleep(0)


async def _silent() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


def _deep() -> Response:
    return Response(b'{"a":' + b"[" * 100_000)


HOSTILE: Final[dict[str, Callable[[], Response]]] = {
    "endless": lambda: StreamingResponse(_endless()),
    "never whole": lambda: StreamingResponse(_silent()),
    "huge": lambda: Response(b'{"a":"' + b"x" * exchange.MAX_ANSWER + b'"}'),
    "compressed": lambda: Response(b"{}", headers={"content-encoding": "gzip"}),
    "deep": _deep,
    "a list": lambda: JSONResponse([]),
    "no JSON": lambda: Response(b"<html>"),
    "a huge number": lambda: Response(b'{"a":' + b"9" * 5000 + b"}"),
    "an error": lambda: JSONResponse({}, 500),
    "a redirect": lambda: RedirectResponse("/elsewhere"),
}


@pytest.mark.parametrize("path", [WELL_KNOWN, "/jwks", "/token"])
async def test_no_answer_of_a_provider_holds_or_fills_the_controller(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(exchange, "SECONDS", 0.1)
    async with scripted_provider() as (served, port):
        one = attempt()
        served.nonce = one.nonce
        for name, answer in HOSTILE.items():
            served.answers[path] = answer
            served.clock.at += REST_SECONDS
            with pytest.raises(IdentityProviderError):
                await port.identity({"code": "c"}, one)
            assert served.requests[-1] == path, f"{name}: a redirect was followed"
            assert port._exchange._under_way == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://id.example.com/x", "file:///etc/passwd",
        "//evil.example.com", "https://u:p@evil.example.com/", "https://evil.example.com/#x", "javascript:alert(1)",
        "http://127.evil.example.com/", "http://localhost.evil.example.com/", "https://a b/", "https://x:99999/",
        "https://[::1", "https://" + "a" * 2100, "",
    ],
)  # fmt: skip
def test_metadata_sends_nothing_to_addresses_without_encryption(url: str) -> None:
    """Only a provider on this machine may have further addresses by plain HTTP, on this machine too."""
    for issuer in (ISSUER, "http://127.0.0.1:9000"):
        document = ScriptedProvider(issuer).document()
        assert checked_metadata(document, issuer).issuer == issuer
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            with pytest.raises(ProviderUnavailableError, match=name):
                checked_metadata({**document, name: url}, issuer)
    with pytest.raises(ProviderUnavailableError, match="jwks_uri"):
        checked_metadata({**ScriptedProvider(ISSUER).document(), "jwks_uri": "http://127.0.0.1:9000/"}, ISSUER)


@pytest.mark.parametrize("wrong", ["https://evil.example.com", ISSUER + "/", None, 7, [ISSUER]])
def test_metadata_of_another_issuer_is_not_used(wrong: object) -> None:
    with pytest.raises(ProviderUnavailableError, match="issuer"):
        checked_metadata({**ScriptedProvider(ISSUER).document(), "issuer": wrong}, ISSUER)


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_of_another_provider_redeems_nothing(announced: bool) -> None:
    """Mixed-up issuers (RFC 9207): the code of one provider must not be sent to another."""
    async with scripted_provider() as (served, port):
        served.metadata["authorization_response_iss_parameter_supported"] = announced
        one = attempt()
        served.nonce = one.nonce
        for answer in ({"code": "c", "iss": "https://evil.example.com"}, {"error": "access_denied", "iss": ""}):
            with pytest.raises(IdentityNotProvedError, match="another issuer"):
                await port.identity(answer, one)
        if announced:
            with pytest.raises(IdentityNotProvedError, match="another issuer"):
                await port.identity({"code": "c"}, one)
        assert not served.forms, "nothing was redeemed"
        assert (await port.identity({"code": "c", "iss": served.issuer}, one)).subject == "u-1"


async def test_a_flood_of_sign_ins_is_refused_instead_of_collected() -> None:
    one = exchange.ProviderExchange(ssl.create_default_context())
    one._under_way = exchange.AT_ONCE
    with pytest.raises(ProviderBusyError):
        await one.fetch("https://id.example.com/")
    assert one._under_way == exchange.AT_ONCE
