"""Lists of another authority, from a file and over HTTP: who is on one is out; a list that is not good moves nobody."""

import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from controller.adapters.x509 import folder
from controller.adapters.x509.authority import X509Authority, registered
from controller.adapters.x509.foreign import X509ExternalCrls
from controller.domain.audit_kinds import AuditKind
from controller.domain.evolve import evolve
from controller.domain.identity.certificates import Certificate, CertificateKind, validity
from controller.domain.policy.model import ContainmentLevel
from controller.ports.errors import SettingsError
from controller.service.identity.external_crls import ExternalCrlRefresher
from controller.service.identity.services import IdentityServices
from tests.support.controller_harness import START, ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.identity import DAY, authority_settings, make_authority, request_for


@dataclass
class Scenario:
    """A controller that follows one list of a foreign authority, by which `edge-1` has its certificate."""

    harness: ControllerHarness
    identity: IdentityServices
    foreign: X509Authority
    device: Certificate
    path: Path
    lists: ExternalCrlRefresher = field(init=False)

    def follow(self, place: str, issuers: Path) -> None:
        self.lists = ExternalCrlRefresher(
            X509ExternalCrls(issuers), (place,), 60.0, self.identity.certificates.registry,
            self.identity.certificates.crls, self.identity.revocation, self.harness.fleet, lambda _event, _fields: None,
        )  # fmt: skip

    def publish(self, *revoked: Certificate, number: int = 1, now: float = START, life: float = DAY) -> bytes:
        gone = [evolve(one, revoked_at=now) for one in revoked]
        made = self.foreign.revocations(self.foreign.issuer, gone, number, now, now + life)
        self.path.write_bytes(made.pem)
        return made.der

    def out(self) -> bool:
        device = devices_of(self.harness.fleet).get("edge-1")
        return device is not None and device.level is ContainmentLevel.ISOLATED

    async def alerts(self) -> list[str]:
        return [
            str((one.entry.detail or {}).get("why", "")) for one in await self.harness.store.audit(alerts_only=True)
        ]


@pytest.fixture
async def scenario(tmp_path: Path) -> AsyncIterator[Scenario]:
    async with open_harness(tmp_path / "cordon.db", settings=authority_settings(tmp_path)) as one:
        identity = one.identity
        foreign = make_authority(tmp_path / "foreign", START - DAY)
        made = foreign.issue(
            foreign.read(request_for("edge-1")), CertificateKind.CLIENT, validity(START, DAY, None), START, "x"
        )
        known = registered(made.pem.encode(), START)
        await identity.certificates.registry.add(known)
        issuers = tmp_path / "issuers.pem"
        issuers.write_text(foreign.chain + foreign.trust)
        found = Scenario(one, identity, foreign, known, tmp_path / "foreign.crl")
        found.follow(str(found.path), issuers)
        yield found


async def test_whose_serial_appears_in_the_list_is_out(scenario: Scenario) -> None:
    scenario.publish()
    await scenario.lists.run_once()
    assert not scenario.out()
    scenario.publish(scenario.device, number=2)
    await scenario.lists.run_once()
    assert scenario.out()
    await scenario.harness.drain()
    assert "edge-1" in scenario.harness.broker.bans_held
    await scenario.lists.run_once()
    assert (await scenario.harness.audited("edge-1")).count(AuditKind.CERTIFICATE_REVOKED) == 1


async def test_the_same_serial_of_another_issuer_is_another_certificate(scenario: Scenario, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other", START - DAY)
    (tmp_path / "issuers.pem").write_text(other.chain)
    scenario.foreign = other
    scenario.follow(str(scenario.path), tmp_path / "issuers.pem")
    scenario.publish(scenario.device)
    await scenario.lists.run_once()
    assert not scenario.out()
    assert scenario.lists.troubles == {}


@pytest.mark.parametrize("what", ["signature", "stale", "future", "garbage", "absent", "older"])
async def test_a_list_that_is_not_good_moves_nobody_and_is_an_alert_once(
    scenario: Scenario, what: str, tmp_path: Path
) -> None:
    match what:
        case "signature":
            scenario.foreign = make_authority(tmp_path / "thief", START - DAY)
            scenario.publish(scenario.device)
        case "stale":
            scenario.publish(scenario.device, now=START - 3 * DAY)
        case "future":
            scenario.publish(scenario.device, now=START + 2 * DAY)
        case "garbage":
            scenario.path.write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
        case "older":
            scenario.publish(number=9)
            await scenario.lists.run_once()
            scenario.publish(scenario.device, number=8)
    await scenario.lists.run_once()
    await scenario.lists.run_once()
    assert not scenario.out()
    (alert,) = await scenario.alerts()
    words = {
        "signature": "not signed by",
        "stale": "out of date",
        "future": "in the future",
        "garbage": "not a revocation",
    }
    assert words.get(what, {"absent": "cannot be read", "older": "an older list"}.get(what, "?")) in alert
    scenario.path.unlink(missing_ok=True)
    if what == "absent":
        scenario.publish()
        await scenario.lists.run_once()
        assert scenario.lists.troubles == {}


OTHER = x509.CertificateIssuer([x509.DNSName("other-ca.example")])
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def scope(*, indirect: bool) -> x509.IssuingDistributionPoint:
    return x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=not indirect,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=indirect,
        only_contains_attribute_certs=False,
    )


@pytest.mark.parametrize(
    ("of_list", "of_entry", "is_critical", "why"),
    [
        (x509.DeltaCRLIndicator(4), x509.CRLReason(x509.ReasonFlags.remove_from_crl), True, "delta"),
        (x509.DeltaCRLIndicator(4), None, False, "delta"),
        (None, x509.CRLReason(x509.ReasonFlags.remove_from_crl), False, "removeFromCRL"),
        (scope(indirect=True), OTHER, True, "indirect"),
        (scope(indirect=True), None, True, "indirect"),
        (None, OTHER, True, "indirect"),
        (UNKNOWN, None, True, "1.2.3.4"),
        (None, UNKNOWN, True, "1.2.3.4"),
        (UNKNOWN, UNKNOWN, False, ""),
        (scope(indirect=False), x509.CRLReason(x509.ReasonFlags.key_compromise), True, ""),
        (None, x509.InvalidityDate(datetime(2026, 1, 1, tzinfo=UTC)), True, ""),
        (None, x509.CRLReason(x509.ReasonFlags.certificate_hold), False, ""),
    ],
)
async def test_a_list_is_used_only_if_all_that_it_says_is_understood(
    scenario: Scenario,
    tmp_path: Path,
    of_list: x509.ExtensionType | None,
    of_entry: x509.ExtensionType | None,
    is_critical: bool,
    why: str,
) -> None:
    signer = folder.load(tmp_path / "foreign" / "ca")
    at = datetime.fromtimestamp(START, UTC)
    entry = x509.RevokedCertificateBuilder(int(scenario.device.serial, 16), at)
    entry = entry.add_extension(of_entry, is_critical) if of_entry is not None else entry
    made = x509.CertificateRevocationListBuilder(
        signer.issuing.subject, at, at + timedelta(days=1), [], [entry.build()]
    )
    made = made.add_extension(of_list, is_critical) if of_list is not None else made
    scenario.path.write_bytes(made.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER))
    await scenario.lists.run_once()
    assert scenario.out() == (not why)
    assert len(scenario.lists.troubles) == bool(why)
    assert why in "".join(scenario.lists.troubles.values())


async def test_a_list_in_der_over_http(scenario: Scenario, tmp_path: Path) -> None:
    served = {"/good.crl": scenario.publish(scenario.device)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = served.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        scenario.follow(f"{base}/absent.crl", tmp_path / "issuers.pem")
        await scenario.lists.run_once()
        assert "answered 404" in next(iter(scenario.lists.troubles.values()))
        scenario.follow(f"{base}/good.crl", tmp_path / "issuers.pem")
        await scenario.lists.run_once()
        assert scenario.out()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_issuers_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        X509ExternalCrls(tmp_path / "absent.pem")
    (tmp_path / "bad.pem").write_text("nothing")
    with pytest.raises(SettingsError, match="CERTIFICATE in PEM and nothing else"):
        X509ExternalCrls(tmp_path / "bad.pem")


@pytest.mark.parametrize("which", ["list", "issuers"])
async def test_a_pipe_is_no_list(scenario: Scenario, tmp_path: Path, which: str) -> None:
    """Opening one would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    if which == "issuers":
        with pytest.raises(SettingsError):
            X509ExternalCrls(tmp_path / "pipe")
        return
    scenario.follow(str(tmp_path / "pipe"), tmp_path / "issuers.pem")
    await scenario.lists.run_once()
    assert list(scenario.lists.troubles) == [str(tmp_path / "pipe")]
