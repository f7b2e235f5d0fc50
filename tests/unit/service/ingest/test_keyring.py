"""Whose signature counts, against a real registry: the present certificate of the device, and no other one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.identity.certificates import Certificate
from controller.service.identity.services import IdentityServices
from controller.service.ingest.keyring import FRESH, DeviceKeyring
from device_agent.identity.keypair import make_csr
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.identity import authority_settings
from tests.support.receipts import verdicts
from tests.support.signing_device import SigningDevice

DEVICE = "edge-1"
REFUSED = [("rejected", "bad_signature")]
TAKEN = [("accepted", None)]
LATER = [("rejected", "too_many")]


@dataclass
class Scenario:
    """A controller with an authority, whose ingest asks its registry."""

    harness: ControllerHarness
    identity: IdentityServices
    keyring: DeviceKeyring
    seq: int = 0

    async def certified(self, name: str = DEVICE, origin: str = "token:t1") -> tuple[SigningDevice, Certificate]:
        """A key of this name with its certificate."""
        device = SigningDevice(name)
        held = await self.identity.certificates.registry.of(name)
        wanted = self.identity.certificates.authority.read(make_csr(device.key, name))
        made = self.identity.certificates.sign_client(wanted, held, origin)
        await self.identity.certificates.registry.add(made)
        self.identity.certificates.on_changed(name)
        return device, made

    async def report(self, signer: SigningDevice, topic: str = DEVICE, **more: Any) -> list[tuple[str, str | None]]:
        """What is said to a new report of this signer in the branch of `topic`."""
        self.seq += 1
        answer = await verdicts(self.harness, signer.full(self.seq, self.harness.clock.at, 22, **more), device_id=topic)
        await self.keyring.refresh_pending()
        return answer

    async def details(self, kind: AuditKind) -> list[dict[str, Any]]:
        """Of the device's lines of this kind, oldest first; all of them are alerts."""
        lines = await self.harness.store.audit(device_id=DEVICE, kind=kind, newest_first=False)
        assert all(line.entry.alert for line in lines)
        return [dict(line.entry.detail or {}) for line in lines]


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    async with open_harness(tmp_path / "c.db", settings=authority_settings(tmp_path)) as harness:
        yield Scenario(harness, harness.identity, harness.signing.keyring)


async def test_the_key_of_a_certificate_counts_without_a_first_contact(scenario: Scenario) -> None:
    device, _ = await scenario.certified()
    assert await scenario.report(device) == LATER  # while it is found out
    assert await scenario.report(device) == TAKEN


async def test_a_revoked_certificates_signature_stops_counting_at_once(scenario: Scenario) -> None:
    device, made = await scenario.certified()
    await scenario.report(device)
    assert await scenario.report(device) == TAKEN
    await scenario.identity.revocation.revoke([made.serial], "operator:ada", "key_compromise", "stolen")
    assert await scenario.report(device) == LATER  # nothing of before counts, not even for a moment
    assert await scenario.report(device) == REFUSED
    (row,) = await scenario.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)
    assert (row["topic"], row["certificate"], row["why"]) == (DEVICE, DEVICE, "it is revoked")
    again, _ = await scenario.certified(origin="token:t2")
    await scenario.report(again)
    assert await scenario.report(again) == TAKEN
    assert await scenario.report(device) == REFUSED
    assert "it is revoked" in (await scenario.details(AuditKind.REPORT_REJECTED))[-1]["detail"]


async def test_a_certificate_that_expired_signs_nothing(scenario: Scenario) -> None:
    device, made = await scenario.certified()
    await scenario.report(device)
    assert await scenario.report(device) == TAKEN
    scenario.harness.clock.at = made.end + 1
    assert await scenario.report(device) == TAKEN  # known from a moment ago, and looked up again
    assert await scenario.report(device) != TAKEN


async def test_a_former_certificate_counts_until_the_present_one_has_signed(scenario: Scenario, tmp_path: Path) -> None:
    old, made = await scenario.certified()
    await scenario.report(old)
    assert await scenario.report(old) == TAKEN
    scenario.harness.clock.at += 1
    new, _ = await scenario.certified(origin=f"renewal:{made.serial}")
    assert await scenario.report(old) == LATER
    assert await scenario.report(old) == TAKEN  # the new pair has not connected yet
    assert await scenario.report(new) == TAKEN
    assert await scenario.report(old) == REFUSED
    (refused,) = await scenario.details(AuditKind.REPORT_REJECTED)
    assert "a newer one of this device has signed since" in refused["detail"]
    (row,) = await scenario.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)
    assert (row["certificate"], row["why"]) == (DEVICE, "a newer one of this device has signed since")
    settings = authority_settings(tmp_path)
    async with open_harness(tmp_path / "c.db", clock=scenario.harness.clock, settings=settings) as harness:  # a restart
        again = Scenario(harness, harness.identity, harness.signing.keyring, scenario.seq)
        assert await again.report(old) == LATER
        assert await again.report(old) == REFUSED
        assert await again.report(new) == TAKEN


async def test_another_devices_certificate_signs_nothing(scenario: Scenario) -> None:
    device, _ = await scenario.certified()
    other, _ = await scenario.certified("edge-2")
    await scenario.report(device)
    assert await scenario.report(device) == TAKEN
    assert await scenario.report(other) == REFUSED
    (refused,) = await scenario.details(AuditKind.REPORT_REJECTED)
    assert refused["detail"] == "signed with a key that is not this device's; the report names edge-2"
    (row,) = await scenario.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)
    assert {key: row[key] for key in ("topic", "payload", "certificate", "why")} == {
        "topic": DEVICE, "payload": "edge-2", "certificate": "edge-2", "why": "the certificate is another device's",
    }  # fmt: skip
    # One that says it is of the device, and one that nobody made a certificate for.
    assert await scenario.report(other, device_id=DEVICE) == REFUSED
    scenario.harness.clock.at += FRESH + 1
    assert await scenario.report(SigningDevice(DEVICE)) == REFUSED
    assert [
        (one["certificate"], one["why"]) for one in await scenario.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)
    ][1:] == [("", "unknown key")]


async def test_its_own_signature_about_another_device_is_refused(scenario: Scenario) -> None:
    device, _ = await scenario.certified()
    await scenario.report(device)
    assert await scenario.report(device) == TAKEN
    assert await scenario.report(device, device_id="edge-2") == [("rejected", "wrong_device")]
    (row,) = await scenario.details(AuditKind.REPORT_REJECTED)
    assert row["reason"] == "wrong_device"


async def test_many_strangers_are_looked_up_once(scenario: Scenario) -> None:
    device, _ = await scenario.certified()
    await scenario.report(device)
    assert await scenario.report(device) == TAKEN
    for _ in range(5):
        assert await scenario.report(SigningDevice(DEVICE)) == REFUSED
    assert len(await scenario.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)) == 1
