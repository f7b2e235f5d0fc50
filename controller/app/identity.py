"""Builds the services of devices' certificates, and of the keys that sign reports."""

import asyncio
from collections.abc import Callable

from controller.adapters.revocation_marks import RevocationMarkFile
from controller.adapters.sql.certificates import SqlCertificateRegistry
from controller.adapters.sql.report_keys import SqlReportKeys
from controller.adapters.sql.shared_revocations import SqlSharedRevocations
from controller.adapters.x509.authority import X509Authority
from controller.adapters.x509.crl_folder import CrlFolder
from controller.adapters.x509.folder import is_revoked, load
from controller.adapters.x509.foreign import X509ExternalCrls
from controller.app.adapters import Adapters
from controller.ports.certificates import AuthorityError
from controller.ports.errors import SettingsError
from controller.service.containment.identity_check import IdentityCheck
from controller.service.fleet_state import FleetState
from controller.service.identity.certificates import CertificateService
from controller.service.identity.crl_publisher import CrlPublisher
from controller.service.identity.enrolment import BrokerClients, EnrolmentService
from controller.service.identity.external_crls import ExternalCrlRefresher
from controller.service.identity.following import RevocationFollower
from controller.service.identity.renewal import RenewalService
from controller.service.identity.revocation import RevocationService
from controller.service.identity.services import IdentityServices
from controller.service.ingest.keyring import DeviceKeyring
from controller.service.ingest.signatures import ReportSignatureVerifier, ReportSigningServices, SignatureRequirements
from controller.service.settings.settings import AuthoritySettings, Settings


def report_signing(settings: Settings, adapters: Adapters, fleet: FleetState) -> ReportSigningServices:
    """The keys of devices, and what verifies every report."""
    store = adapters.store
    registry = None if settings.authority.folder is None else SqlCertificateRegistry(store)
    check = IdentityCheck(adapters.broker.control, adapters.messages, adapters.clock)
    keyring = DeviceKeyring(SqlReportKeys(store, registry), check.auth_strength, fleet, adapters.log("report keys"))
    rules = SignatureRequirements(settings.reports.max_age, frozenset(settings.reports.must_sign))
    verifier = ReportSignatureVerifier(keyring, fleet.cache, rules)
    return ReportSigningServices(keyring, verifier)


def open_authority(settings: AuthoritySettings) -> X509Authority:
    """The authority in the configured folder.

    Raises:
        ControllerError: there is none, or it cannot be used.
    """
    if settings.folder is None:
        raise SettingsError("authority.folder is not set: make an authority with `cordon ca init`")
    material = load(settings.folder, settings.passphrase_file)
    if is_revoked(material.issuing, material.root_list):
        raise AuthorityError("the issuing certificate is on the root's list: `cordon ca rotate-issuing` replaces it")
    return X509Authority(material, settings.crl_url or "")


async def identity_services(
    settings: Settings, adapters: Adapters, fleet: FleetState, on_changed: Callable[[str], None]
) -> IdentityServices | None:
    """What serves devices' certificates; `None` where no authority is configured.

    `on_changed` is called with the name of a device whose certificates changed.

    Raises:
        ControllerError: an authority is configured and cannot be used.
    """
    wanted, log = settings.authority, adapters.log("identity")
    if wanted.folder is None:
        return None
    authority, registry = open_authority(wanted), SqlCertificateRegistry(adapters.store)
    now = adapters.clock.now()
    assert adapters.revocation_marks is not None  # an authority is configured
    marks = await asyncio.to_thread(RevocationMarkFile, adapters.revocation_marks, now, adapters.clock.now)
    export = None if wanted.crl_folder is None else CrlFolder(wanted.crl_folder).write
    shared = SqlSharedRevocations(adapters.store) if settings.has_peers else None
    crls = CrlPublisher(authority, registry, marks, adapters.clock, wanted.crl_lifetime, log, export, shared)
    await registry.add(authority.own(now))
    certificates = CertificateService(authority, registry, crls, fleet, wanted, log, on_changed)
    follower = None
    if shared is None:
        await certificates.restore_revocations()
        await certificates.publish()
    else:  # the leader publishes
        follower = RevocationFollower(shared, crls, on_changed, adapters.clock, log)
        await follower.run_once()
    servers = wanted.device_servers or settings.mqtt.servers
    clients = BrokerClients(adapters.broker.control, adapters.broker.tables)
    enrolment = EnrolmentService(certificates, fleet, servers, lambda: adapters.command_keys, clients)
    renewals = RenewalService(certificates, fleet, adapters.messages, log)
    revocation = RevocationService(certificates, fleet, log)
    external = None
    if wanted.watch and wanted.watch_issuers is not None:
        lists = X509ExternalCrls(wanted.watch_issuers)
        external = ExternalCrlRefresher(lists, wanted.watch, wanted.watch_every, registry, crls, revocation, fleet, log)
    return IdentityServices(certificates, enrolment, revocation, renewals, external, follower)
