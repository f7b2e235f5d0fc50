"""Passkeys over an authenticator in software: what is right is taken, everything else refused with its reason."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from webauthn.helpers import bytes_to_base64url

from controller.adapters.passkeys import WebauthnPasskeys
from controller.domain.accounts.relying_party import RelyingParty
from controller.ports.factors import PasskeyCounterError, PasskeyCredential, PasskeyError
from tests.support.authenticator import SoftAuthenticator

PARTY = RelyingParty("cordon.example.org", "https://cordon.example.org")
CHALLENGE = b"c" * 32
passkeys = WebauthnPasskeys()


def registered(device: SoftAuthenticator) -> PasskeyCredential:
    options = passkeys.registration_options(PARTY, (b"account", "anna"), CHALLENGE, ())
    return passkeys.registered(PARTY, CHALLENGE, device.register(options))


def used(device: SoftAuthenticator, stored: PasskeyCredential, challenge: bytes = CHALLENGE) -> int:
    answer = device.use(passkeys.login_options(PARTY, challenge, [stored.credential_id]))
    return passkeys.used(PARTY, CHALLENGE, answer, stored)


def test_a_passkey_is_registered_and_used() -> None:
    device = SoftAuthenticator(PARTY.origin)
    stored = registered(device)
    assert stored.credential_id == device.credential_id
    assert used(device, stored) == 1
    assert used(device, replace(stored, sign_count=1)) == 2


def test_what_browsers_are_asked_for() -> None:
    options = passkeys.registration_options(PARTY, (b"account", "anna"), CHALLENGE, (b"known",))
    assert options["attestation"] == "none"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert [one["id"] for one in options["excludeCredentials"]] == [bytes_to_base64url(b"known")]
    assert passkeys.login_options(PARTY, CHALLENGE, [b"known"])["userVerification"] == "required"


WRONG: dict[str, Callable[[SoftAuthenticator], object]] = {
    "origin": lambda device: setattr(device, "origin", "https://evil.example"),
    "RP ID": lambda device: setattr(device, "rp_id", "evil.example"),
    "verif": lambda device: setattr(device, "verifies", False),
}


@pytest.mark.parametrize("reason", WRONG)
def test_wrong_registrations(reason: str) -> None:
    device = SoftAuthenticator(PARTY.origin)
    WRONG[reason](device)
    with pytest.raises(PasskeyError, match=reason):
        registered(device)


@pytest.mark.parametrize("reason", WRONG)
def test_wrong_uses(reason: str) -> None:
    device = SoftAuthenticator(PARTY.origin)
    stored = registered(device)
    WRONG[reason](device)
    with pytest.raises(PasskeyError, match=reason):
        used(device, stored)


def test_another_challenge_key_or_passkey_and_an_old_counter() -> None:
    device = SoftAuthenticator(PARTY.origin)
    stored = registered(device)
    with pytest.raises(PasskeyError, match="challenge"):
        used(device, stored, b"d" * 32)
    with pytest.raises(PasskeyError, match="signature"):
        used(SoftAuthenticator(PARTY.origin), stored)
    with pytest.raises(PasskeyError, match="another passkey"):
        used(replace(device, credential_id=b"other"), stored)
    for old in (replace(device, sign_count=4), replace(device, sign_count=0, counts=False)):
        with pytest.raises(PasskeyCounterError):
            used(old, replace(stored, sign_count=5))
    assert used(replace(device, counts=False, sign_count=0), stored) == 0, "many authenticators count nothing"


def test_attestations_are_refused_and_self_attestation_needs_its_signature() -> None:
    packed = {"alg": -7, "sig": b"x"}
    for fmt, statement in (("packed", {**packed, "x5c": [b"x"]}), ("fido-u2f", packed), ("tpm", packed)):
        with pytest.raises(PasskeyError, match="attestation"):
            registered(SoftAuthenticator(PARTY.origin, fmt=fmt, attestation=statement))
    with pytest.raises(PasskeyError, match="not valid"):
        registered(SoftAuthenticator(PARTY.origin, fmt="packed", attestation=packed))


def _answers(text: object) -> list[dict[str, Any]]:
    good = {"id": "AAAA", "rawId": "AAAA", "type": "public-key"}
    return [
        {},
        {"id": text},
        {**good, "response": text},
        {**good, "response": {}},
        {**good, "response": {"clientDataJSON": text, "attestationObject": text}},
        {**good, "response": {"clientDataJSON": text, "authenticatorData": text, "signature": text}},
    ]


@pytest.mark.parametrize(
    "text", [None, 1, "", "%", "AAAA", "A" * 60_000, bytes_to_base64url(b"\x81" * 40_000), "\ud800"]
)
def test_hostile_answers_are_refused(text: object) -> None:
    stored = PasskeyCredential(b"\x00\x00\x00", b"\xa0", 0)
    for answer in _answers(text):
        with pytest.raises(PasskeyError):
            passkeys.registered(PARTY, CHALLENGE, answer)
        with pytest.raises(PasskeyError):
            passkeys.used(PARTY, CHALLENGE, answer, stored)
