"""Revocations that isolate the controller itself, or more devices than one person or one list may isolate."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from controller.adapters.sql.certificates import SqlCertificateRegistry
from controller.domain.accounts.secret_text import digest_of
from controller.domain.audit_kinds import AuditKind
from controller.domain.containment.revocation import is_held_by_revocation, why_not_isolated
from controller.domain.device import Device
from controller.domain.events import CertificateRevoked
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards, ProtectionRules
from controller.domain.identity.certificates import Certificate, CertificateKind, validity
from controller.domain.policy.model import ContainmentLevel
from controller.domain.scopes import Scope
from controller.ports.messages import IncomingMessage
from controller.ports.store import ApiToken
from controller.service.containment.operator_actions import OperatorLimits
from controller.service.identity.services import IdentityServices
from device_agent.identity.keypair import make_csr, sign
from schemas.enrolment import RenewRequest, RenewResponse, renewal_bytes
from schemas.topics import DownChannel, UpChannel, down, up
from tests.support.api import Api, report_message
from tests.support.api import api as open_api
from tests.support.controller_harness import START
from tests.support.fleet_devices import add_devices, devices_of
from tests.support.identity import DAY, request_for
from tests.support.persons import put_holder

BASE = "/api/v1"
OWN = "cordon-controller"
WHY = {"reason": "x"}
GUARDS = FleetGuards(
    radius=BlastRadius(BlastRadiusLimits(2, 100.0, 3600.0)), protection=ProtectionRules(frozenset({"dev-prot"}))
)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An authority; one person contains three devices, lists and policies two within an hour."""
    made = open_api(tmp_path / "c.db", authority=tmp_path, guards=GUARDS, by_hand=OperatorLimits(3, 3600.0, 7200.0))
    async with made as one:
        yield one


def _identity(api: Api) -> IdentityServices:
    assert api.services.identity is not None
    return api.services.identity


async def _issue(api: Api, name: str, kind: CertificateKind = CertificateKind.CLIENT, hosts: Any = ()) -> Certificate:
    """As `cordon ca issue-client` and `issue-server` do."""
    authority = _identity(api).certificates.authority
    api.harness.clock.at += 1
    now = api.harness.clock.at
    made = authority.issue(authority.read(request_for(name)), kind, validity(now, DAY, None), now, "operator", hosts)
    await _identity(api).certificates.registry.add(made)
    return made


async def _known(api: Api, *names: str) -> dict[str, Certificate]:
    """Devices that reported a week ago, with a certificate each."""
    known = (Device(name, first_seen=START - 8 * DAY, last_seen=START) for name in names)
    await add_devices(api.harness.fleet, *known)
    return {name: await _issue(api, name) for name in names}


async def _revoke(api: Api, path: str, status: int = 200, **more: Any) -> Any:
    return await api.json("POST", f"{BASE}/certificates/{path}/revoke", status, {**WHY, **more})


def _isolated(api: Api) -> set[str]:
    return {one.device_id for one in devices_of(api.harness.fleet).values() if one.level is ContainmentLevel.ISOLATED}


async def _alerts(api: Api) -> list[str]:
    kinds = [line.entry.kind for line in await api.harness.store.audit(alerts_only=True)]
    return [kind for kind in kinds if kind == AuditKind.CERTIFICATE_REVOKED_ONLY]


async def _pass(api: Api) -> None:
    await _identity(api).revocation.run_once()
    await api.harness.drain()


# The controller's own client


async def test_a_former_certificate_of_the_controller_is_revoked_and_nobody_is_banned(api: Api) -> None:
    """Finding: the controller banned itself at the broker, and no report was received any more."""
    former, _ = await _issue(api, OWN), await _issue(api, OWN)
    answer = await _revoke(api, f"serials/{former.serial}")
    assert ([one["serial"] for one in answer["items"]], answer["devices"]) == ([former.serial], [])
    await _pass(api)
    await _pass(api)
    assert (_isolated(api), api.harness.broker.bans_held) == (set(), {})
    assert await api.harness.fleet.find(OWN) is None


@pytest.mark.parametrize("how", ["serial", "device"])
async def test_the_certificate_that_the_controller_uses_is_not_revoked_over_the_api(api: Api, how: str) -> None:
    await _issue(api, OWN)
    used = await _issue(api, OWN)
    refused = await _revoke(api, f"serials/{used.serial}" if how == "serial" else f"devices/{OWN}", 409)
    assert refused["error"]["code"] == "own_certificate"
    known = await _identity(api).certificates.registry.find(used.serial)
    assert known is not None
    assert known.revoked_at is None


@pytest.mark.parametrize("how", ["list", "registry"])
async def test_neither_a_list_nor_the_registry_isolates_the_controller(api: Api, how: str) -> None:
    used = await _issue(api, OWN)
    if how == "list":
        await _identity(api).revocation.revoke_listed([used.serial], "listed")
    else:
        await SqlCertificateRegistry(api.harness.store).revoke([used.serial], api.harness.clock.at, "unspecified")
    for _ in range(3):
        await _pass(api)
    assert (_isolated(api), api.harness.broker.bans_held) == (set(), {})
    assert len(await _alerts(api)) == 1


async def test_reports_in_the_controllers_own_name_make_it_no_device(api: Api) -> None:
    await api.harness.ingest.process_batch([report_message(OWN, (2375,), 1)])
    assert await api.harness.fleet.find(OWN) is None
    (dead,) = await api.harness.store.dead_letters()
    assert dead.reason == "wrong_device"


async def test_a_controller_that_an_earlier_version_isolated_is_released(api: Api) -> None:
    used = await _issue(api, OWN)
    fleet = api.harness.fleet
    now = api.harness.clock.at
    await add_devices(fleet, Device(OWN, first_seen=START, last_seen=START))
    await fleet.apply_and_commit(OWN, CertificateRevoked(fleet.new_id(), (used.serial,), "operator:x", "x"))
    await api.harness.drain()
    assert OWN in api.harness.broker.bans_held
    body = {"devices": [OWN], "level": "isolated", "even_protected": True, **WHY}
    assert (await api.json("PUT", f"{BASE}/quarantine", 409, body))["error"]["code"] == "device_protected"
    await SqlCertificateRegistry(api.harness.store).revoke([used.serial], now, "unspecified")
    for _ in range(2):
        await _pass(api)
    assert api.harness.level(OWN) is ContainmentLevel.NONE
    assert api.harness.broker.bans_held == {}


# One person


async def test_one_person_revokes_as_many_devices_as_they_contain(api: Api) -> None:
    """Finding: a token with the scope `identity` alone isolated the whole fleet, for good."""
    names = [f"dev-{number:02}" for number in range(6)]
    made = await _known(api, *names)
    for name in names[:2]:
        await _revoke(api, f"devices/{name}")
    await _revoke(api, f"serials/{made[names[2]].serial}")
    for path in (f"devices/{names[3]}", f"serials/{made[names[4]].serial}"):
        asked = (await _revoke(api, path, 202))["request"]
        assert (asked["asks"], asked["state"]) == ("revoke", "open")
        await api.json("POST", f"{BASE}/approvals/{asked['request_id']}/approve", 409)
    token = ApiToken("second", digest_of("cordon_second"), 0.0, (Scope.READ, Scope.IDENTITY))
    await put_holder(api.harness.store, token)
    path, second = f"{BASE}/approvals/{asked['request_id']}/approve", {"Authorization": "Bearer cordon_second"}
    answer = await api.client.post(path, json={"digest": asked["digest"]}, headers=second)
    assert (answer.status_code, answer.json()["request"]["unfinished"]) == (200, False)
    assert (await api.client.post(path, headers=second)).status_code == 409
    await _revoke(api, f"devices/{names[0]}")  # nothing more is contained
    await _pass(api)
    assert _isolated(api) == {*names[:3], names[4]}
    for name in (names[3], names[5]):
        known = await _identity(api).certificates.registry.find(made[name].serial)
        assert known is not None
        assert known.revoked_at is None
    contain = {"devices": [names[5]], "level": "restricted", **WHY}
    await api.json("PUT", f"{BASE}/quarantine", 202, contain)  # both kinds count together


async def test_a_protected_device_is_revoked_only_with_double_confirmation(api: Api) -> None:
    made = await _known(api, "dev-prot")
    for path in ("devices/dev-prot", f"serials/{made['dev-prot'].serial}"):
        assert (await _revoke(api, path, 409))["error"]["code"] == "device_protected"
    await _pass(api)
    assert _isolated(api) == set()
    await _revoke(api, "devices/dev-prot", even_protected=True)
    await _pass(api)
    assert _isolated(api) == {"dev-prot"}


async def test_clients_that_never_reported_count_and_servers_do_not(api: Api) -> None:
    for number in range(3):
        await _revoke(api, f"serials/{(await _issue(api, f'bridge-{number}')).serial}")
    server = await _issue(api, "b.example", CertificateKind.SERVER, ("b.example",))
    await _revoke(api, f"serials/{server.serial}")
    waits = await _revoke(api, f"serials/{(await _issue(api, 'bridge-3')).serial}", 202)
    assert (waits["items"], waits["request"]["devices"]) == ([], ["bridge-3"])
    await _pass(api)
    assert _isolated(api) == {"bridge-0", "bridge-1", "bridge-2"}, "their sessions end too"


# One list


async def test_a_list_isolates_within_the_blast_radius_and_revokes_all(api: Api) -> None:
    """Finding: one followed list with every serial number isolated every device at once."""
    names = [f"dev-{number:02}" for number in range(5)]
    made = await _known(api, *names, "dev-prot")
    revocation = _identity(api).revocation
    await revocation.revoke_listed([made[names[0]].serial], "listed")
    assert _isolated(api) == {names[0]}
    await revocation.revoke_listed([one.serial for one in made.values()], "listed")
    for _ in range(3):
        await _pass(api)
    assert _isolated(api) == {names[0]}, "what is too much as a whole waits as a whole"
    assert set(revocation.waiting) == {*names[1:], "dev-prot"}
    assert len(await _alerts(api)) == 1
    for one in made.values():
        known = await _identity(api).certificates.registry.find(one.serial)
        assert known is not None
        assert known.revoked_at is not None, "the list has it in any case"
    api.harness.clock.at += 7200
    await _pass(api)
    assert _isolated(api) == {names[0]}, "nor does it isolate slowly"


async def test_an_operator_who_isolates_what_waits_makes_it_a_revocation(api: Api) -> None:
    names = ["dev-00", "dev-01", "dev-02"]
    made = await _known(api, *names)
    await _identity(api).revocation.revoke_listed([one.serial for one in made.values()], "listed")
    assert _isolated(api) == set()
    await api.json("PUT", f"{BASE}/quarantine", 200, {"devices": names, "level": "isolated", **WHY})
    await _pass(api)
    assert all(is_held_by_revocation(devices_of(api.harness.fleet)[name]) for name in names)
    assert _identity(api).revocation.waiting == {}


async def test_a_waiting_device_with_a_new_certificate_waits_no_longer(api: Api) -> None:
    names = ["dev-00", "dev-01", "dev-02"]
    made = await _known(api, *names)
    await _identity(api).revocation.revoke_listed([one.serial for one in made.values()], "listed")
    for name in names:
        await _issue(api, name)
    await _pass(api)
    assert (_isolated(api), _identity(api).revocation.waiting) == (set(), {})


async def test_the_isolations_of_lists_and_policies_use_one_limit(api: Api) -> None:
    made = await _known(api, "dev-00", "dev-01", "dev-02")
    await _identity(api).revocation.revoke_listed([made["dev-00"].serial, made["dev-01"].serial], "listed")
    assert _isolated(api) == {"dev-00", "dev-01"}
    await api.report("dev-02", ports=(23,))
    assert api.harness.level("dev-02") is ContainmentLevel.NONE
    assert devices_of(api.harness.fleet)["dev-02"].pending is not None


def test_a_device_in_the_window_counts_once_and_new_ones_have_a_pool_of_their_own() -> None:
    now = START
    old = [Device(f"d{number}", now - 8 * DAY, now) for number in range(3)]
    new = [Device(f"n{number}", now, now, enrolled_with="t1") for number in range(2)]
    bounds = BlastRadiusLimits(2, 100.0, 3600.0)
    guards = FleetGuards(BlastRadius(bounds, {"d0": now, "d1": now}), 5, began_at=now - 9 * DAY)
    assert why_not_isolated([*old[:2], *new], guards, set(), now) == {}
    assert set(why_not_isolated([*old, *new], guards, set(), now)) == {"d0", "d1", "d2"}
    waits = FleetGuards(BlastRadius(bounds, {}, 1), 5, began_at=now - 9 * DAY)
    assert set(why_not_isolated([old[0], *new], waits, set(), now)) == {"d0"}
    assert why_not_isolated(old, FleetGuards(fleet=5), set(), now) == {}, "without limits there is none"


# What is under way while certificates are revoked


@pytest.mark.parametrize("how", ["before the write", "before the certificate is made"])
async def test_a_renewal_that_is_under_way_does_not_survive_the_revocation(
    api: Api, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Finding: a thief's renewal of that moment stayed valid, and could readmit the device by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    present = await _issue_for(api, "edge-1", key)
    api.harness.clock.at = present.renewable_from + 1
    registry, revocation = SqlCertificateRegistry, _identity(api).revocation
    of, renew, done = registry.of, registry.renew, list[str]()

    async def revoke() -> None:
        if not done:
            done.append(how)
            await revocation.revoke_device("edge-1", "operator:ada", "key_compromise", "stolen")
            api.harness.clock.at += 0.005

    async def late_of(self: SqlCertificateRegistry, name: str) -> tuple[Certificate, ...]:
        found = await of(self, name)
        if how == "before the certificate is made":
            await revoke()
        return found

    async def late_renew(self: SqlCertificateRegistry, made: Certificate, serial: str) -> Any:
        await revoke()
        return await renew(self, made, serial)

    monkeypatch.setattr(registry, "of", late_of)
    monkeypatch.setattr(registry, "renew", late_renew)
    answer = await _renew(api, present, key)
    assert (answer.certificate, answer.refused) == (None, "certificate_over")
    monkeypatch.undo()
    await _pass(api)
    assert all(one.revoked_at is not None for one in await _identity(api).certificates.registry.of("edge-1"))
    assert is_held_by_revocation(devices_of(api.harness.fleet)["edge-1"])


async def test_what_was_renewed_just_before_is_revoked_with_the_rest(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    present = await _issue_for(api, "edge-1", key)
    api.harness.clock.at = present.renewable_from + 1
    registry = SqlCertificateRegistry
    of, busy = registry.of, list[str]()

    async def late_of(self: SqlCertificateRegistry, name: str) -> tuple[Certificate, ...]:
        found = await of(self, name)
        if not busy:
            busy.append(name)  # the renewal itself reads too
            assert (await _renew(api, present, key)).certificate
            busy.clear()
        return found

    monkeypatch.setattr(registry, "of", late_of)
    await _revoke(api, "devices/edge-1")
    monkeypatch.undo()
    held = await _identity(api).certificates.registry.of("edge-1")
    assert len(held) > 1
    assert all(one.revoked_at is not None for one in held)


async def _issue_for(api: Api, name: str, key: ec.EllipticCurvePrivateKey) -> Certificate:
    certificates = _identity(api).certificates
    made = certificates.sign_client(certificates.authority.read(request_for(name, key)), (), "token:t1")
    await certificates.registry.add(made)
    return made


async def _renew(api: Api, present: Certificate, key: ec.EllipticCurvePrivateKey) -> RenewResponse:
    """As a device asks for it, signed with its present key."""
    csr = make_csr(ec.generate_private_key(ec.SECP256R1()), present.name)
    proof = base64.b64encode(sign(key, renewal_bytes(present.name, present.serial, csr))).decode()
    request = RenewRequest(device_id=present.name, serial=present.serial, csr=csr, proof=proof)
    message = IncomingMessage(
        up(present.name, UpChannel.RENEW), request.model_dump_json().encode(), 1,
        retain=False, dup=False, ticket=1, received_at=0.0,
    )  # fmt: skip
    await api.harness.ingest.process_batch([message])
    await _identity(api).renewals.run_once()
    topic = down(present.name, DownChannel.CERTIFICATE)
    told = [payload for where, payload in api.harness.link.sent if where == topic]
    return RenewResponse.model_validate_json(told[-1])
