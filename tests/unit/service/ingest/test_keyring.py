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
from device_agent.identity.keypair import request
from tests.support.controller_harness import World, world
from tests.support.identity import authority_settings
from tests.support.receipts import verdicts
from tests.support.signing_device import Signing

DEVICE = "edge-1"
REFUSED = [("rejected", "bad_signature")]
TAKEN = [("accepted", None)]
LATER = [("rejected", "too_many")]


@dataclass
class Scene:
    """A controller with an authority, whose ingest asks its registry."""

    world: World
    identity: IdentityServices
    keyring: DeviceKeyring
    seq: int = 0

    async def certified(self, name: str = DEVICE, origin: str = "token:t1") -> tuple[Signing, Certificate]:
        """A key of this name with its certificate."""
        device = Signing(name)
        held = await self.identity.certificates.registry.of(name)
        wanted = self.identity.certificates.authority.read(request(device.key, name))
        made = self.identity.certificates.sign_client(wanted, held, origin)
        await self.identity.certificates.registry.add(made)
        self.identity.certificates.on_changed(name)
        return device, made

    async def report(self, signer: Signing, topic: str = DEVICE, **more: Any) -> list[tuple[str, str | None]]:
        """What is said to a new report of this signer in the branch of `topic`."""
        self.seq += 1
        answer = await verdicts(self.world, signer.full(self.seq, self.world.clock.at, 22, **more), device_id=topic)
        await self.keyring.drain()
        return answer

    async def details(self, kind: AuditKind) -> list[dict[str, Any]]:
        """Of the device's lines of this kind, oldest first; all of them are alerts."""
        lines = await self.world.store.audit(device_id=DEVICE, kind=kind, newest_first=False)
        assert all(line.entry.alert for line in lines)
        return [dict(line.entry.detail or {}) for line in lines]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with world(tmp_path / "c.db", settings=authority_settings(tmp_path)) as place:
        yield Scene(place, place.identity, place.signing.keyring)


async def test_the_key_of_a_certificate_counts_without_a_first_contact(scene: Scene) -> None:
    device, _ = await scene.certified()
    assert await scene.report(device) == LATER  # while it is found out
    assert await scene.report(device) == TAKEN


async def test_a_revoked_certificates_signature_stops_counting_at_once(scene: Scene) -> None:
    device, made = await scene.certified()
    await scene.report(device)
    assert await scene.report(device) == TAKEN
    await scene.identity.revocation.revoke([made.serial], "operator:ada", "key_compromise", "stolen")
    assert await scene.report(device) == LATER  # nothing of before counts, not even for a moment
    assert await scene.report(device) == REFUSED
    (row,) = await scene.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)
    assert (row["topic"], row["certificate"], row["why"]) == (DEVICE, DEVICE, "it is revoked")
    again, _ = await scene.certified(origin="token:t2")
    await scene.report(again)
    assert await scene.report(again) == TAKEN
    assert await scene.report(device) == REFUSED
    assert "it is revoked" in (await scene.details(AuditKind.REPORT_REJECTED))[-1]["detail"]


async def test_a_certificate_that_expired_signs_nothing(scene: Scene) -> None:
    device, made = await scene.certified()
    await scene.report(device)
    assert await scene.report(device) == TAKEN
    scene.world.clock.at = made.end + 1
    assert await scene.report(device) == TAKEN  # known from a moment ago, and looked up again
    assert await scene.report(device) != TAKEN


async def test_a_former_certificate_counts_until_the_present_one_has_signed(scene: Scene, tmp_path: Path) -> None:
    old, made = await scene.certified()
    await scene.report(old)
    assert await scene.report(old) == TAKEN
    scene.world.clock.at += 1
    new, _ = await scene.certified(origin=f"renewal:{made.serial}")
    assert await scene.report(old) == LATER
    assert await scene.report(old) == TAKEN  # the new pair has not connected yet
    assert await scene.report(new) == TAKEN
    assert await scene.report(old) == REFUSED
    (refused,) = await scene.details(AuditKind.REPORT_REJECTED)
    assert "a newer one of this device has signed since" in refused["detail"]
    (row,) = await scene.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)
    assert (row["certificate"], row["why"]) == (DEVICE, "a newer one of this device has signed since")
    settings = authority_settings(tmp_path)
    async with world(tmp_path / "c.db", clock=scene.world.clock, settings=settings) as place:  # a restart
        again = Scene(place, place.identity, place.signing.keyring, scene.seq)
        assert await again.report(old) == LATER
        assert await again.report(old) == REFUSED
        assert await again.report(new) == TAKEN


async def test_another_devices_certificate_signs_nothing(scene: Scene) -> None:
    device, _ = await scene.certified()
    other, _ = await scene.certified("edge-2")
    await scene.report(device)
    assert await scene.report(device) == TAKEN
    assert await scene.report(other) == REFUSED
    (refused,) = await scene.details(AuditKind.REPORT_REJECTED)
    assert refused["detail"] == "signed with a key that is not this device's; the report names edge-2"
    (row,) = await scene.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)
    assert {key: row[key] for key in ("topic", "payload", "certificate", "why")} == {
        "topic": DEVICE, "payload": "edge-2", "certificate": "edge-2", "why": "the certificate is another device's",
    }  # fmt: skip
    # One that says it is of the device, and one that nobody made a certificate for.
    assert await scene.report(other, device_id=DEVICE) == REFUSED
    scene.world.clock.at += FRESH + 1
    assert await scene.report(Signing(DEVICE)) == REFUSED
    assert [(one["certificate"], one["why"]) for one in await scene.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)][
        1:
    ] == [("", "unknown key")]


async def test_its_own_signature_about_another_device_is_refused(scene: Scene) -> None:
    device, _ = await scene.certified()
    await scene.report(device)
    assert await scene.report(device) == TAKEN
    assert await scene.report(device, device_id="edge-2") == [("rejected", "wrong_device")]
    (row,) = await scene.details(AuditKind.REPORT_REJECTED)
    assert row["reason"] == "wrong_device"


async def test_many_strangers_are_looked_up_once(scene: Scene) -> None:
    device, _ = await scene.certified()
    await scene.report(device)
    assert await scene.report(device) == TAKEN
    for _ in range(5):
        assert await scene.report(Signing(DEVICE)) == REFUSED
    assert len(await scene.details(AuditKind.REPORT_CERTIFICATE_MISMATCHED)) == 1
