"""The controller's own certificates: renewed by its own authority, else announced; read, measured and audited."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from controller.adapters.sql.certificates import SqlCertificateRegistry
from controller.adapters.x509.own_certificates import X509OwnCertificateFile
from controller.app.adapters import own_certificates
from controller.domain.audit_kinds import AuditKind
from controller.domain.identity.certificates import CertificateKind
from controller.service.settings.settings import Settings
from tests.support.api import Api
from tests.support.api import api as open_api
from tests.support.controller_harness import SETTINGS, START
from tests.support.identity import DAY, Files, IssuedFiles, authority_settings

CONTROLLER = "cordon-controller"


def configured(folder: Path, certificate: Path, key: Path, use: str = "mqtt", **authority: Any) -> Settings:
    tables = {**SETTINGS, "store": {"path": folder / "cordon.db"}, **authority_settings(folder, **authority)}
    tables[use] = {**tables.get(use, {}), "certificate": certificate, "key": key}
    return Settings.model_validate(tables)


def leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


async def announced(api: Api) -> list[tuple[object, ...]]:
    lines = await api.harness.store.audit(kind=AuditKind.CERTIFICATE_EXPIRING, newest_first=False)
    return [(line.entry.alert, *map((line.entry.detail or {}).get, ("certificate", "why"))) for line in lines]


async def measured(api: Api) -> list[str]:
    return [one for one in (await api.client.get("/metrics")).text.splitlines() if one.startswith("cordon_own")]


@pytest.mark.parametrize(
    ("use", "kind", "hosts", "days"),
    [
        ("mqtt", CertificateKind.CLIENT, (), 30),
        ("api", CertificateKind.SERVER, ("localhost", "127.0.0.1"), 90),
        ("updates", CertificateKind.SERVER, ("updates.example",), 90),
    ],
)
async def test_a_certificate_of_the_own_authority_is_renewed(
    tmp_path: Path, use: str, kind: CertificateKind, hosts: Sequence[str], days: int
) -> None:
    made = Files(tmp_path, START).issue(CONTROLLER, kind, hosts, days * DAY)
    before = made.chain.read_bytes()
    files, settings = own_certificates(configured(tmp_path, made.chain, made.key, use))
    in_use = getattr(settings, use).certificate
    assert leaf(in_use) == leaf(made.chain)
    async with open_api(tmp_path / "cordon.db", authority=tmp_path, own_certificates=files) as api:
        await SqlCertificateRegistry(api.harness.store).add(made.certificate)
        own = api.services.own_certificates
        await own.run_once()
        assert leaf(in_use) == leaf(made.chain), "not due before two thirds of its life"
        api.harness.clock.at += days * DAY * 2 / 3
        await own.run_once()
        renewed = leaf(in_use)
        assert renewed.serial_number != leaf(made.chain).serial_number
        assert renewed.public_key() == leaf(made.chain).public_key(), "the key stays, so the pair always fits"
        assert abs(renewed.not_valid_after_utc.timestamp() - api.harness.clock.at - days * DAY) < 2
        assert own.statuses[use].stage == 0
        assert await announced(api) == []
        assert (await api.json("GET", "/readyz", 503))["warnings"] == []
        assert f'cordon_own_certificate_warning{{use="{use}"}} 0.0' in await measured(api)
        found = files[0].read()
        assert set(found.hosts) == set(hosts)
        (entry,) = (await api.json("GET", f"/api/v1/certificates?name={CONTROLLER}&limit=1"))["items"]
        assert (entry["kind"], entry["origin"]) == (kind.value, f"renewal:{made.certificate.serial}")
        # What the operator configured is untouched; after a restart the renewed one is used.
        assert made.chain.read_bytes() == before
        again, _ = own_certificates(configured(tmp_path, made.chain, made.key, use))
        assert again[0].read().serial == found.serial


async def test_a_certificate_of_another_authority_is_announced_30_7_and_1_days_before_its_end(tmp_path: Path) -> None:
    made = Files(tmp_path, START).issue(CONTROLLER, life=60 * DAY)  # in no registry: not this controller's
    files, _ = own_certificates(configured(tmp_path, made.chain, made.key))
    async with open_api(tmp_path / "cordon.db", authority=tmp_path, own_certificates=files) as api:
        await api.harness.reconciler.reconcile()
        for left, stage in ((31, 0), (29.9, 1), (10, 1), (6.9, 2), (0.9, 3), (0.5, 3), (-1, 3)):
            api.harness.clock.at = START + (60 - left) * DAY
            await api.services.own_certificates.run_once()
            await api.services.own_certificates.run_once()
            assert f'cordon_own_certificate_warning{{use="mqtt"}} {stage:.1f}' in await measured(api)
        texts = [text for _, _, text in await announced(api)]
        assert [(alert, use) for alert, use, _ in await announced(api)] == [(True, "mqtt")] * 3
        assert all("the MQTT connection (mqtt.certificate)" in str(text) for text in texts)
        assert [str(text).partition("ends in ")[2].partition(";")[0] for text in texts] == [
            "30 days",
            "7 days",
            "1 days",
        ]
        (warning,) = (await api.json("GET", "/readyz", 503))["warnings"]
        assert "certificate expired" in warning


async def test_a_renewal_that_fails_is_announced_with_the_reason(tmp_path: Path) -> None:
    made = Files(tmp_path, START).issue(CONTROLLER, life=30 * DAY)
    files, settings = own_certificates(configured(tmp_path, made.chain, made.key))
    async with open_api(tmp_path / "cordon.db", authority=tmp_path, own_certificates=files) as api:
        await SqlCertificateRegistry(api.harness.store).add(made.certificate)
        made.key.write_text("no key")
        api.harness.clock.at += 21 * DAY
        await api.services.own_certificates.run_once()
        ((_, _, why),) = await announced(api)
        assert "ends in 9 days" in str(why)
        assert f"{made.key}: the key cannot be used" in str(why)
        # A revoked certificate is not renewed either: somebody has decided against it.
        await SqlCertificateRegistry(api.harness.store).revoke([made.certificate.serial], api.harness.clock.at, "x")
        await api.services.own_certificates.run_once()
        assert "replace it" in api.services.own_certificates.statuses["mqtt"].warning
        assert settings.mqtt.certificate is not None
        assert leaf(settings.mqtt.certificate) == leaf(made.chain)


async def test_a_certificate_that_cannot_outlive_its_issuer_is_announced(tmp_path: Path) -> None:
    files = Files(tmp_path, START)
    end = files.authority.info.issuing_end - START
    made = files.issue(CONTROLLER, life=end)
    own, _ = own_certificates(configured(tmp_path, made.chain, made.key))
    async with open_api(tmp_path / "cordon.db", authority=tmp_path, own_certificates=own) as api:
        await SqlCertificateRegistry(api.harness.store).add(made.certificate)
        api.harness.clock.at += end - 5 * DAY
        await api.services.own_certificates.run_once()
        assert "the issuing certificate ends at the same time" in api.services.own_certificates.statuses["mqtt"].warning


def replaced(files: Files, old: IssuedFiles, *, life: float, key: bool) -> None:
    """Writes another certificate in the place of `old`, as an operator does."""
    fresh = files.issue(CONTROLLER, life=life)
    old.chain.write_bytes(fresh.chain.read_bytes())
    if key:
        old.key.write_bytes(fresh.key.read_bytes())


@pytest.mark.parametrize("life", [5 * DAY, 60 * DAY])
def test_a_pair_that_an_operator_put_in_place_is_used(tmp_path: Path, life: float) -> None:
    files = Files(tmp_path, START)
    made = files.issue(CONTROLLER, life=30 * DAY)
    own = X509OwnCertificateFile("mqtt", made.chain, made.key, tmp_path / "renewed")
    assert own.read().serial == made.certificate.serial
    replaced(files, made, life=life, key=True)
    assert own.read().serial != made.certificate.serial
    assert leaf(own.path) == leaf(made.chain)


def test_without_an_authority_the_configured_file_is_used(tmp_path: Path) -> None:
    made = Files(tmp_path, START).issue(CONTROLLER)
    tables = {**SETTINGS, "store": {"path": tmp_path / "cordon.db"}}
    tables["mqtt"] = {**tables["mqtt"], "certificate": made.chain, "key": made.key}
    (own,), settings = own_certificates(Settings.model_validate(tables))
    assert (own.read().serial, settings.mqtt.certificate) == (made.certificate.serial, made.chain)
    assert not (tmp_path / "own-certificates").exists()
