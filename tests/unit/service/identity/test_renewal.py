"""Renewal on the controller's side: given to who proves the present key, refused to everybody else."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controller.domain.audit_kinds import AuditKind
from controller.domain.identity.certificates import Certificate
from controller.ports.messages import IncomingMessage
from controller.service.identity.renewal import EVERY_WITH_ENOUGH, MAX_VALID
from controller.service.identity.services import IdentityServices
from device_agent.identity.keypair import make_csr, sign
from schemas.enrolment import RenewRequest, RenewResponse, renewal_bytes
from schemas.topics import DownChannel, UpChannel, down, up
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.identity import DAY, authority_settings

DEVICE = "edge-1"


@dataclass(slots=True)
class Scenario:
    harness: ControllerHarness
    identity: IdentityServices
    key: Any
    present: Certificate

    async def ask(self, body: dict[str, Any], device: str = DEVICE, *, retain: bool = False) -> RenewResponse | None:
        """Over the ingest, as a device asks; the answer on its topic."""
        payload = json.dumps(body).encode()
        message = IncomingMessage(
            up(device, UpChannel.RENEW), payload, 1, retain=retain, dup=False, ticket=1, received_at=0.0
        )
        await self.harness.ingest.process_batch([message])
        await self.identity.renewals.run_once()
        told = [payload for topic, payload in self.harness.link.sent if topic == down(device, DownChannel.CERTIFICATE)]
        return RenewResponse.model_validate_json(told[-1]) if told else None


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    async with open_harness(tmp_path / "cordon.db", settings=authority_settings(tmp_path)) as one:
        identity = one.identity
        key = ec.generate_private_key(ec.SECP256R1())
        authority = identity.certificates.authority
        present = identity.certificates.sign_client(authority.read(make_csr(key, DEVICE)), (), "token:t1")
        await identity.certificates.registry.add(present)
        one.clock.at += 20 * DAY
        yield Scenario(one, identity, key, present)


def wanted(scenario: Scenario, **changes: Any) -> dict[str, Any]:
    """A good request, changed; `signer` proves instead of the present key."""
    fresh = changes.pop("fresh", None) or ec.generate_private_key(ec.SECP256R1())
    signer = changes.pop("signer", scenario.key)
    body: dict[str, Any] = {
        "v": 1, "device_id": DEVICE, "serial": scenario.present.serial, "csr": make_csr(fresh, DEVICE), **changes,
    }  # fmt: skip
    proof = sign(signer, renewal_bytes(body["device_id"], body["serial"], body["csr"]))
    return {"proof": base64.b64encode(proof).decode(), **body}


async def test_who_proves_the_present_key_gets_a_new_certificate(scenario: Scenario) -> None:
    body = wanted(scenario)
    answer = await scenario.ask(body)
    assert answer is not None
    assert answer.certificate is not None
    assert answer.request == hashlib.sha256(body["csr"].encode()).hexdigest()
    leaf = x509.load_pem_x509_certificate(answer.certificate.encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.chain.encode()))
    found = await scenario.identity.certificates.registry.of(DEVICE)
    assert [one.origin for one in found] == ["token:t1", f"renewal:{scenario.present.serial}"]
    assert "edge-1" not in devices_of(scenario.harness.fleet)  # asking for a certificate is no report


async def test_asking_again_gets_the_same_certificate(scenario: Scenario) -> None:
    fresh = ec.generate_private_key(ec.SECP256R1())
    first, second = await scenario.ask(wanted(scenario, fresh=fresh)), await scenario.ask(wanted(scenario, fresh=fresh))
    assert first is not None
    assert second is not None
    assert first.certificate == second.certificate
    assert len(await scenario.identity.certificates.registry.of(DEVICE)) == 2


ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "another key proves": ("proof_wrong", {"signer": ec.generate_private_key(ec.SECP256R1())}),
    "for another id": ("wrong_name", {"csr": make_csr(ec.generate_private_key(ec.SECP256R1()), "edge-2")}),
    "of a certificate nobody knows": ("certificate_unknown", {"serial": "abcdef"}),
    "a weak key": ("key_weak", {"csr": make_csr(rsa.generate_private_key(65537, 1024), DEVICE)}),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_everybody_else_is_refused(scenario: Scenario, attack: str) -> None:
    code, changes = ATTACKS[attack]
    answer = await scenario.ask(wanted(scenario, **changes))
    assert answer is not None
    assert (answer.certificate, answer.refused) == (None, code)
    assert [event for event, _ in scenario.harness.logged].count("renewal refused") == 1
    assert len(await scenario.identity.certificates.registry.of(DEVICE)) == 1


async def test_the_present_key_is_not_certified_again(scenario: Scenario) -> None:
    answer = await scenario.ask(wanted(scenario, fresh=scenario.key))
    assert answer is not None
    assert answer.refused == "key_used"


@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_what_does_not_hold_any_more_renews_nothing(scenario: Scenario, how: str) -> None:
    if how == "revoked":
        await scenario.identity.revocation.revoke([scenario.present.serial], "operator:ada", "unspecified", "stolen")
    else:
        scenario.harness.clock.at = scenario.present.end + 1
    answer = await scenario.ask(wanted(scenario))
    assert answer is not None
    assert answer.refused == "certificate_over"


async def test_a_request_on_the_topic_of_another_device_is_refused_before_it_is_read(scenario: Scenario) -> None:
    assert await scenario.ask(wanted(scenario), "edge-2") is None
    (letter,) = await scenario.harness.store.dead_letters()
    assert (letter.reason, letter.device_id) == ("wrong_device", "edge-2")


async def test_a_retained_request_is_none(scenario: Scenario) -> None:
    assert await scenario.ask(wanted(scenario), retain=True) is None


async def test_of_many_requests_of_one_device_the_last_is_answered(scenario: Scenario) -> None:
    bodies = [RenewRequest.model_validate(wanted(scenario)) for _ in range(3)]
    for body in bodies:
        scenario.identity.renewals.enqueue(DEVICE, body)
    await scenario.identity.renewals.run_once()
    (told,) = [
        payload for topic, payload in scenario.harness.link.sent if topic == down(DEVICE, DownChannel.CERTIFICATE)
    ]
    assert RenewResponse.model_validate_json(told).request == hashlib.sha256(bodies[-1].csr.encode()).hexdigest()


async def test_a_certificate_that_is_followed_by_two_keys_is_an_alert(scenario: Scenario) -> None:
    first, second = await scenario.ask(wanted(scenario)), await scenario.ask(wanted(scenario))
    assert first is not None
    assert second is not None
    assert first.certificate != second.certificate
    (line,) = await scenario.harness.store.audit(kind=AuditKind.DEVICE_CLONE_SUSPECTED)
    assert line.entry.alert


async def test_a_certificate_that_is_new_is_not_renewed(scenario: Scenario) -> None:
    """The device's clock is ahead: the controller bounds how often it gets a certificate."""
    scenario.harness.clock.at = scenario.present.renewable_from - 1
    answer = await scenario.ask(wanted(scenario))
    assert answer is not None
    assert (answer.certificate, answer.refused) == (None, "too_early")
    assert len(await scenario.identity.certificates.registry.of(DEVICE)) == 1
    scenario.harness.clock.at = scenario.present.renewable_from
    answer = await scenario.ask(wanted(scenario))
    assert answer is not None
    assert answer.certificate is not None


async def test_a_key_of_another_device_is_refused(scenario: Scenario) -> None:
    certificates = scenario.identity.certificates
    shared = ec.generate_private_key(ec.SECP256R1())
    await certificates.registry.add(
        certificates.sign_client(certificates.authority.read(make_csr(shared, "edge-2")), (), "token:t1")
    )
    answer = await scenario.ask(wanted(scenario, fresh=shared))
    assert answer is not None
    assert (answer.certificate, answer.refused) == (None, "key_used")


async def test_one_device_has_a_bounded_number_of_valid_certificates(scenario: Scenario) -> None:
    """Finding: one certificate was renewed each second, for a new key each time."""
    last = ec.generate_private_key(ec.SECP256R1())
    for number in range(1, MAX_VALID):
        scenario.harness.clock.at += 2.0
        answer = await scenario.ask(wanted(scenario, fresh=last if number == MAX_VALID - 1 else None))
        assert answer is not None
        assert answer.certificate is not None
    scenario.harness.clock.at += 2.0
    refused = await scenario.ask(wanted(scenario))
    assert refused is not None
    assert (refused.certificate, refused.refused) == (None, "too_many_certificates")
    scenario.harness.clock.at += 2.0
    again = await scenario.ask(wanted(scenario, fresh=last))
    assert again is not None
    assert again.certificate is not None, "an answer that was lost is given again"
    registry = scenario.identity.certificates.registry
    assert len(await registry.of(DEVICE)) == MAX_VALID
    scenario.harness.clock.at += EVERY_WITH_ENOUGH
    daily = await scenario.ask(wanted(scenario))
    assert daily is not None
    assert daily.certificate is not None, "one a day: a device whose broker refuses new certificates is not locked out"
    scenario.harness.clock.at += 2.0
    refused = await scenario.ask(wanted(scenario))
    assert refused is not None
    assert refused.refused == "too_many_certificates"
