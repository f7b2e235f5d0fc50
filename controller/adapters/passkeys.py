"""`controller.ports.factors` by py_webauthn: no attestation, always with user verification."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, parse_attestation_object
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AttestationFormat,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from controller.domain.accounts.relying_party import RelyingParty
from controller.ports.factors import PasskeyCounterError, PasskeyCredential, PasskeyError, PasskeyVerifier

RP_NAME: Final = "Cordon"
TIMEOUT_MS: Final = 120_000
MAX_CREDENTIAL_ID: Final = 1023  # bytes; the most that WebAuthn allows
MAX_PUBLIC_KEY: Final = 2048  # bytes; RSA with 8192 bits has about 1100
_ALGORITHMS: Final = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
_NONE: Final = AttestationFormat.NONE
_SELF: Final = AttestationFormat.PACKED  # browsers leave a self-attestation as it is


class WebauthnPasskeys(PasskeyVerifier):
    def registration_options(
        self, party: RelyingParty, user: tuple[bytes, str], challenge: bytes, known: Sequence[bytes]
    ) -> dict[str, Any]:
        handle, name = user
        options = generate_registration_options(
            rp_id=party.rp_id,
            rp_name=RP_NAME,
            user_id=handle,
            user_name=name,
            challenge=challenge,
            timeout=TIMEOUT_MS,
            attestation=AttestationConveyancePreference.NONE,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.DISCOURAGED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=one) for one in known],
            supported_pub_key_algs=_ALGORITHMS,
        )
        return cast("dict[str, Any]", json.loads(options_to_json(options)))

    def login_options(self, party: RelyingParty, challenge: bytes, known: Sequence[bytes]) -> dict[str, Any]:
        options = generate_authentication_options(
            rp_id=party.rp_id,
            challenge=challenge,
            timeout=TIMEOUT_MS,
            allow_credentials=[PublicKeyCredentialDescriptor(id=one) for one in known],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return cast("dict[str, Any]", json.loads(options_to_json(options)))

    def registered(self, party: RelyingParty, challenge: bytes, answer: Mapping[str, Any]) -> PasskeyCredential:
        try:
            _refuse_attestation(answer)
            done = verify_registration_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=party.rp_id,
                expected_origin=party.origin,
                require_user_verification=True,
                supported_pub_key_algs=_ALGORITHMS,
            )
        except PasskeyError:
            raise
        except Exception as e:  # hostile CBOR makes the parsers below raise anything
            raise PasskeyError(_text(e)) from e
        if len(done.credential_id) > MAX_CREDENTIAL_ID or len(done.credential_public_key) > MAX_PUBLIC_KEY:
            raise PasskeyError("the id or the public key of this passkey is too large")
        return PasskeyCredential(done.credential_id, done.credential_public_key, done.sign_count)

    def credential_id(self, answer: Mapping[str, Any]) -> bytes:
        text = answer.get("id")
        if not isinstance(text, str) or not 0 < len(text) <= 2 * MAX_CREDENTIAL_ID:
            raise PasskeyError("the answer names no passkey")
        try:
            return base64url_to_bytes(text)
        except ValueError as e:
            raise PasskeyError("the answer names no passkey") from e

    def used(
        self, party: RelyingParty, challenge: bytes, answer: Mapping[str, Any], credential: PasskeyCredential
    ) -> int:
        if self.credential_id(answer) != credential.credential_id:
            raise PasskeyError("the answer is of another passkey")
        try:
            done = verify_authentication_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=party.rp_id,
                expected_origin=party.origin,
                credential_public_key=credential.public_key,
                credential_current_sign_count=0,  # looked at below: only with a right signature it tells of a copy
                require_user_verification=True,
            )
        except Exception as e:  # as above
            raise PasskeyError(_text(e)) from e
        count = done.new_sign_count
        if count <= credential.sign_count and (count or credential.sign_count):
            raise PasskeyCounterError(f"the passkey counts {count}, and counted {credential.sign_count} before")
        return count


def _refuse_attestation(answer: Mapping[str, Any]) -> None:
    """Refuses statements about the make of an authenticator: none is asked for, and their parsers are many.

    Raises:
        PasskeyError: there is one.
    """
    attestation = parse_attestation_object(base64url_to_bytes(answer["response"]["attestationObject"]))
    if attestation.fmt == _NONE or (attestation.fmt == _SELF and not attestation.att_stmt.x5c):
        return
    raise PasskeyError("this passkey comes with an attestation, which was not asked for")


def _text(error: Exception) -> str:
    return f"the answer of the browser is not valid: {error}"[:300]
