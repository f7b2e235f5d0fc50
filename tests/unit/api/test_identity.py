"""Enrolment tokens, enrolment, revocation and lists over the API."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from controller.adapters.sql.certificates import SqlCertificateRegistry
from controller.adapters.tuf_repository.repository import TufUpdateRepository
from controller.adapters.x509.crl_folder import CrlFolder
from controller.cli.quarantine.results import until
from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import SettingsError
from controller.service.identity.certificates import CertificateService
from controller.service.identity.services import IdentityServices
from device_agent.identity.enrol import check_answer, config_text
from device_agent.identity.keypair import public_key_der
from device_agent.settings import Settings
from schemas.enrolment import EnrolResponse
from schemas.pem import read_certificate
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.controller_harness import COMMAND_KEYS, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.identity import authority_settings, request_for
from tests.support.updates import repository

BASE = "/api/v1"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An API with an authority."""
    async with open_api(tmp_path / "cordon.db", authority=tmp_path) as one:
        yield one


def identity(api: Api) -> IdentityServices:
    assert api.services.identity is not None
    return api.services.identity


async def token(api: Api, **wanted: Any) -> str:
    return str((await api.json("POST", f"{BASE}/enrolment/tokens", 201, wanted))["token"])


async def enrol(api: Api, secret: str, device: str = "edge-1", csr: str = "", status: int = 200) -> Any:
    body = {"token": secret, "device_id": device, "csr": csr or request_for(device)}
    # The test's peer is no loopback address, so it has to come by https.
    response = await api.client.post(f"https://cordon{BASE}/enrolment/enrol", json=body, headers={"Authorization": ""})
    assert response.status_code == status, response.text
    return response.json()


async def kinds(api: Api, device: str = "edge-1") -> list[str]:
    await identity(api).certificates.record()
    return await api.harness.audited(device)


async def test_a_device_enrols_with_a_token(api: Api) -> None:
    made = await api.json("POST", f"{BASE}/enrolment/tokens", 201, {"for": "2h", "class": "sensor"})
    got = await enrol(api, made["token"])
    leaf = x509.load_pem_x509_certificate(got["certificate"].encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(got["chain"].encode()))
    assert got["controller_keys"] == list(COMMAND_KEYS)
    assert got["servers"] == ["mqtts://b:8883"]
    assert devices_of(api.harness.fleet)["edge-1"].device_class == "sensor"
    assert await kinds(api) == [AuditKind.ENROLMENT_COMPLETED, AuditKind.DEVICE_LABELLED, AuditKind.CERTIFICATE_ISSUED]
    page = await api.json("GET", f"{BASE}/certificates?name=edge-1&good=true")
    assert [one["serial"] for one in page["items"]] == [f"{leaf.serial_number:x}"]
    root = await api.client.get(f"{BASE}/enrolment/root", headers={"Authorization": ""})
    assert root.text == got["trust"]
    assert made["ca_fingerprint"] == (await api.json("GET", f"{BASE}/certificates/authority"))["fingerprint"]


async def test_a_device_that_enrols_is_told_where_updates_come_from_and_by_which_root(api: Api, tmp_path: Path) -> None:
    made = repository(tmp_path / "updates")
    settings = api.services.settings
    updates = settings.updates.model_copy(update={"url": "https://updates.example:8443"})
    api.app.state.services = replace(
        api.services,
        leader=replace(
            api.services.leading,
            rollouts=replace(api.services.rollouts, updates=TufUpdateRepository(made.folder.base)),
        ),
        settings=settings.model_copy(update={"updates": updates}),
    )
    got = EnrolResponse.model_validate(await enrol(api, await token(api)))
    assert got.updates_root.encode() == made.first_root
    leaf = x509.load_pem_x509_certificate(got.certificate.encode())
    taken = check_answer(got, read_certificate(got.trust), "edge-1", public_key_der(leaf.public_key()))
    assert json.loads(taken.updates_root) == json.loads(made.first_root)
    written = Settings.model_validate(tomllib.loads(config_text("edge-1", tmp_path, taken, None)))
    assert (written.updates.url, written.updates.root) == (got.updates_url, tmp_path / "updates-root.json")
    api.app.state.services = api.services
    without = EnrolResponse.model_validate(await enrol(api, await token(api), "edge-2"))
    assert (without.updates_url, without.updates_root) == ("", "")


async def test_a_token_is_used_once(api: Api) -> None:
    secret = await token(api)
    await enrol(api, secret)
    refused = await enrol(api, secret, "edge-2", status=401)
    assert refused["error"]["code"] == "token_refused"
    (alert,) = await api.harness.store.audit(alerts_only=True)
    assert (alert.entry.kind, alert.entry.device_id) == (AuditKind.ENROLMENT_TOKEN_REUSED, "edge-2")


async def test_the_same_request_again_gets_the_same_answer(api: Api) -> None:
    secret, csr = await token(api), request_for("edge-1")
    assert (await enrol(api, secret, csr=csr))["certificate"] == (await enrol(api, secret, csr=csr))["certificate"]


async def test_an_expired_and_a_withdrawn_token_open_nothing(api: Api) -> None:
    old = await token(api, **{"for": "1m"})
    api.harness.clock.at += 61
    await enrol(api, old, status=401)
    secret = await token(api)
    listed = await api.json("GET", f"{BASE}/enrolment/tokens")
    assert [one["over"] for one in listed["items"]] == [False, True]
    assert all("token" not in one and "digest" not in one for one in listed["items"])
    await api.json("DELETE", f"{BASE}/enrolment/tokens/{listed['items'][0]['token_id']}", 204)
    await api.json("DELETE", f"{BASE}/enrolment/tokens/{listed['items'][0]['token_id']}", 404)
    await enrol(api, secret, status=401)


async def test_guessing_is_slowed_and_on_record(api: Api) -> None:
    answers = [await enrol(api, f"guess-{n}", status=401) for n in range(20)]
    assert {one["error"]["code"] for one in answers} == {"token_refused"}
    assert (await enrol(api, "guess-21", status=429))["error"]["code"] == "too_many_attempts"
    alerts = await api.harness.store.audit(alerts_only=True)
    assert [one.entry.kind for one in alerts] == [AuditKind.ENROLMENT_TOKEN_GUESSING_DETECTED]
    # Somebody behind the same address who has a token still gets in.
    await enrol(api, await token(api))


async def test_a_taken_id_is_refused_and_alerted_until_an_operator_approves(api: Api) -> None:
    await enrol(api, await token(api))
    refused = await enrol(api, await token(api, uses=5), status=409)
    assert refused["error"]["code"] == "id_taken"
    (alert,) = await api.harness.store.audit(alerts_only=True)
    assert (alert.entry.kind, alert.entry.device_id) == (AuditKind.ENROLMENT_REFUSED, "edge-1")
    await enrol(api, await token(api, device_id="edge-1"), status=409)
    await enrol(api, await token(api, device_id="edge-1", replace=True))


async def test_an_id_that_reported_before_is_taken_too(api: Api) -> None:
    await api.report("edge-1")
    assert (await enrol(api, await token(api), status=409))["error"]["code"] == "id_taken"


@pytest.mark.parametrize(
    ("device", "csr", "status", "code"),
    [
        ("edge-1", request_for("edge-2"), 422, "wrong_name"),
        ("edge-1", request_for("edge-1", rsa.generate_private_key(65537, 1024)), 422, "key_weak"),
        (
            "edge-1",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            422,
            "request_malformed",
        ),
        ("cordon-controller", "", 409, "id_reserved"),
        ("edge-1", "no PEM", 422, "invalid"),
        ("../etc", "", 422, "invalid"),
    ],
)
async def test_requests_that_get_nothing(api: Api, device: str, csr: str, status: int, code: str) -> None:
    secret = await token(api)
    assert (await enrol(api, secret, device, csr, status))["error"]["code"] == code
    if code != "invalid":
        (alert,) = await api.harness.store.audit(alerts_only=True)
        assert alert.entry.detail is not None
        assert alert.entry.detail["code"] == code
    await enrol(api, secret)  # and the token was not used up


async def test_a_token_for_one_device_is_for_no_other(api: Api) -> None:
    secret = await token(api, device_id="edge-2")
    assert (await enrol(api, secret, status=403))["error"]["code"] == "wrong_device"


async def test_enrolment_in_clear_text_is_refused(api: Api) -> None:
    body = {"token": await token(api), "device_id": "edge-1", "csr": request_for("edge-1")}
    response = await api.client.post(f"{BASE}/enrolment/enrol", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "https_only")


@pytest.mark.parametrize(
    "wanted",
    [{"for": "31d"}, {"replace": True}, {"device_id": "a", "uses": 2}, {"uses": 0}, {"class": "a b"}, {"more": 1}],
)
async def test_tokens_that_cannot_be(api: Api, wanted: dict[str, Any]) -> None:
    await api.json("POST", f"{BASE}/enrolment/tokens", 422, wanted)


async def test_revocation_throws_out_lists_and_lets_in_again(api: Api) -> None:
    await enrol(api, await token(api))
    await api.report("edge-1")
    harness, parts = api.harness, identity(api)
    done = await api.json("POST", f"{BASE}/certificates/devices/edge-1/revoke", 200, {"reason": "stolen"})
    assert [one["name"] for one in done["items"]] == ["edge-1"]
    assert (done["devices"][0]["device_id"], done["devices"][0]["proof"], done["waited"]) == ("edge-1", "pending", "no")
    await harness.drain()
    assert harness.broker.bans_held["edge-1"].until is None
    receipt = await api.json("GET", f"{BASE}/quarantine/edge-1/receipt")
    assert (receipt["closed"], receipt["deeds"][0]["decision"]) == (True, "certificate.revoked")
    found = await api.client.get(f"/crl/{parts.certificates.authority.issuer}.crl", headers={"Authorization": ""})
    listed = x509.load_der_x509_crl(found.content)
    assert [f"{one.serial_number:x}" for one in listed] == [done["items"][0]["serial"]]
    pem = await api.client.get(f"/crl/{parts.certificates.authority.issuer}.pem", headers={"Authorization": ""})
    assert x509.load_pem_x509_crl(pem.content) == listed
    # Nobody lets it in, and it does not get a new certificate unasked.
    kept = await api.json("POST", f"{BASE}/quarantine/edge-1/release", 200, {"reason": "please"})
    (row,) = (await api.json("GET", f"{BASE}/quarantine"))["items"]
    shown = await api.json("GET", f"{BASE}/quarantine/edge-1/receipt")
    # List, release and receipt say the same about its end.
    for case in (row["case"], kept["case"], shown["in_force"]):
        assert (case["until_certificate"], case["until_released"]) == (True, False)
        assert until(case) == "it has a new certificate"
    assert all("until it has a new certificate" in text for text in (kept["text"], shown["deeds"][0]["text"]))
    await parts.revocation.run_once()
    assert harness.level("edge-1") is ContainmentLevel.ISOLATED
    harness.clock.at += 5
    await enrol(api, await token(api), status=409)
    await enrol(api, await token(api, device_id="edge-1", replace=True))
    await parts.revocation.run_once()
    await harness.drain()
    assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
    assert "edge-1" not in harness.broker.bans_held
    await api.report("edge-1", seq=2)
    assert harness.level("edge-1") is ContainmentLevel.NONE


async def test_a_revocation_is_answered_when_the_device_is_seen_to_be_out(api: Api) -> None:
    await enrol(api, await token(api))
    await api.report("edge-1")
    async with asyncio.TaskGroup() as group:
        outbox = group.create_task(api.harness.outbox.run())
        done = await api.json("POST", f"{BASE}/certificates/devices/edge-1/revoke?wait=20", 200, {"reason": "stolen"})
        outbox.cancel()
    assert done["devices"] == [{"device_id": "edge-1", "proof": "proven", "proven": True, "trouble": ""}]
    assert done["waited"] == "settled"


async def test_one_serial_is_revoked(api: Api) -> None:
    got = await enrol(api, await token(api))
    serial = f"{x509.load_pem_x509_certificate(got['certificate'].encode()).serial_number:x}"
    path = f"{BASE}/certificates/serials/{serial}/revoke"
    assert len((await api.json("POST", path, 200, {"reason": "lost", "word": "key_compromise"}))["items"]) == 1
    assert (await api.json("POST", path, 200, {"reason": "lost"}))["items"] == []
    await api.json("POST", f"{BASE}/certificates/serials/abcdef/revoke", 404, {"reason": "lost"})
    await api.json("POST", f"{BASE}/certificates/devices/nobody/revoke", 404, {"reason": "lost"})
    await api.json("POST", path, 422, {"reason": "lost", "word": "whim"})
    assert (await api.client.get("/crl/" + "0" * 40 + ".pem")).status_code == 404


async def test_a_revocation_that_a_crash_cut_short_is_made_good(api: Api) -> None:
    await enrol(api, await token(api))
    parts = identity(api)
    (one,) = await parts.certificates.registry.of("edge-1")
    await parts.certificates.registry.revoke([one.serial], api.harness.clock.at, "unspecified")
    await parts.revocation.run_once()
    assert api.harness.level("edge-1") is ContainmentLevel.ISOLATED
    await parts.revocation.run_once()
    assert (await kinds(api)).count(AuditKind.CERTIFICATE_REVOKED) == 1


async def test_it_comes_back_only_after_the_broker_had_time_for_the_list(tmp_path: Path) -> None:
    async with open_api(tmp_path / "cordon.db", authority=tmp_path) as api:
        parts = identity(api)
        object.__setattr__(
            parts.certificates, "settings", parts.certificates.settings.model_copy(update={"readmit_after": 60.0})
        )
        await enrol(api, await token(api))
        await parts.revocation.revoke_device("edge-1", "operator:ada", "unspecified", "stolen")
        api.harness.clock.at += 1
        await enrol(api, await token(api, device_id="edge-1", replace=True))
        await parts.revocation.run_once()
        await api.harness.drain()
        await parts.revocation.run_once()
        assert api.harness.level("edge-1") is ContainmentLevel.ISOLATED
        api.harness.clock.at += 60
        await parts.revocation.run_once()
        assert api.harness.level("edge-1") is ContainmentLevel.RESTRICTED


async def test_without_an_authority_there_is_nothing(tmp_path: Path) -> None:
    async with open_api(tmp_path / "cordon.db") as plain:
        for method, path in (
            ("GET", "/certificates"),
            ("GET", "/certificates/authority"),
            ("GET", "/enrolment/tokens"),
        ):
            answer = await plain.json(method, BASE + path, 404)
            assert answer["error"]["code"] == "no_authority"


async def test_a_list_is_made_anew_before_it_ends(api: Api) -> None:
    certificates = identity(api).certificates
    first = await certificates.publish()
    assert await certificates.publish() is first
    api.harness.clock.at += 43_201
    assert (await certificates.publish()).next_update > first.next_update
    made = await api.json("POST", f"{BASE}/certificates/publish")
    assert made["issuer"] == certificates.authority.issuer


async def test_a_certificate_that_ends_without_a_renewal_is_one_alert(api: Api) -> None:
    certificates = identity(api).certificates
    for name in ("renews", "forgets", "revoked", "again"):
        made = certificates.sign_client(certificates.authority.read(request_for(name)), (), "token:t1")
        await certificates.registry.add(made)
        if name == "revoked":
            await certificates.registry.revoke([made.serial], api.harness.clock.at, "unspecified")
    api.harness.clock.at += 20 * 86_400
    held = await certificates.registry.of("renews")
    wanted = certificates.authority.read(request_for("renews"))
    await certificates.registry.add(certificates.sign_client(wanted, held, f"renewal:{held[0].serial}"))
    await certificates.run_once()
    assert await api.harness.store.audit(kind=AuditKind.CERTIFICATE_EXPIRED) == []
    api.harness.clock.at += 15 * 86_400
    await certificates.run_once()
    await certificates.run_once()
    harness = api.harness
    registry = SqlCertificateRegistry(harness.store)
    again = CertificateService(
        certificates.authority,
        registry,
        certificates.crls,
        harness.fleet,
        certificates.settings,
        lambda _text, _more: None,
        lambda _name: None,
    )
    await again.run_once()  # nor after a restart
    lines = await api.harness.store.audit(kind=AuditKind.CERTIFICATE_EXPIRED)
    assert sorted(line.entry.device_id for line in lines) == ["again", "forgets"]
    assert all(line.entry.alert for line in lines)
    assert "cordon enrol token --device forgets --replace" in str([line.entry.detail for line in lines])
    # A device that was let in again and forgets again is told of again, once.
    held = await certificates.registry.of("again")
    wanted = certificates.authority.read(request_for("again"))
    await certificates.registry.add(certificates.sign_client(wanted, held, "token:t2"))
    api.harness.clock.at += 31 * 86_400
    await certificates.run_once()
    lines = await api.harness.store.audit(kind=AuditKind.CERTIFICATE_EXPIRED)
    assert sorted(line.entry.device_id for line in lines) == ["again", "again", "forgets", "renews"]


async def test_an_authority_that_ends_is_an_alert_once_a_day(api: Api) -> None:
    certificates = identity(api).certificates
    await certificates.run_once()
    assert await api.harness.store.audit(kind=AuditKind.AUTHORITY_EXPIRING) == []
    api.harness.clock.at += 340 * 86_400
    await certificates.run_once()
    await certificates.run_once()
    (line,) = await api.harness.store.audit(kind=AuditKind.AUTHORITY_EXPIRING)
    assert line.entry.alert
    assert "root's revocation list" in str(line.entry.detail)


async def test_lists_are_written_to_a_folder_for_other_web_servers(tmp_path: Path) -> None:
    served, gone = tmp_path / "served", tmp_path / "gone"
    served.mkdir()
    async with open_harness(tmp_path / "c.db", settings=authority_settings(tmp_path, crl_folder=served)) as harness:
        assert harness.services.identity is not None
        certificates = harness.services.identity.certificates
        issuer = certificates.authority.issuer

        def as_served() -> list[bytes]:
            return [(served / f"{issuer}.{kind}").read_bytes() for kind in ("pem", "crl")]

        current = certificates.published_crl(issuer)
        assert current is not None
        assert as_served() == [current.pem, current.der]
        assert {path.name.partition(".")[0] for path in served.iterdir()} == {each.name for each in certificates.lists}
        served.rename(gone)
        lost = certificates.sign_client(certificates.authority.read(request_for("edge-1")), (), "token:t1")
        await certificates.registry.add(lost)
        await certificates.registry.revoke([lost.serial], harness.clock.at, "unspecified")
        renewed = await certificates.publish()
        assert renewed != current, "a folder that is gone does not stop a revocation"
        gone.rename(served)
        await certificates.publish()
        assert as_served() == [renewed.pem, renewed.der]
    with pytest.raises(SettingsError, match="crl_folder"):
        CrlFolder(gone)
