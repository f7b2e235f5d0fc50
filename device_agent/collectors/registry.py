"""The collectors of this agent, by the section that each collects."""

from collections.abc import Mapping
from typing import Final

from device_agent.collectors.access import account_security, ssh
from device_agent.collectors.base import Collector, Section
from device_agent.collectors.crypto import openssl
from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.collectors.crypto.keys import KeyCollector
from device_agent.collectors.software import operating_system, sources, updates
from device_agent.collectors.software.installed_targets import InstalledTargetsCollector
from device_agent.collectors.system import disk, firewall, log_settings, mac, services, sockets
from device_agent.collectors.tools.file_integrity import IntegrityCollector
from device_agent.collectors.tools.intrusion import IntrusionCollector
from device_agent.collectors.tools.lynis import LynisCollector
from device_agent.collectors.tools.openscap import OpenscapCollector
from device_agent.collectors.tools.tool_runner import ToolStatus
from device_agent.errors import FactsUnavailableError
from device_agent.host.system import System
from device_agent.settings import DEFAULT_STATE_DIR, IntegritySettings, IntrusionSettings, Settings, ToolSettings
from device_agent.updates.updater import Updater


def _new_collectors() -> dict[str, Collector]:
    return {
        "os": operating_system.collect,
        "updates": updates.UpdatesCollector(),
        "sources": sources.collect,
        "openssl": openssl.collect,
        "keys": KeyCollector(),
        "certificates": CertificateCollector(),
        "sockets": sockets.SocketsCollector(),
        "services": services.ServicesCollector(),
        "firewall": firewall.collect,
        "access": account_security.collect,
        "ssh": ssh.collect,
        "disk": disk.collect,
        "mac": mac.collect,
        "logging": log_settings.collect,
        "lynis": LynisCollector(ToolSettings()),
        "openscap": OpenscapCollector(ToolSettings()),
        "intrusion": IntrusionCollector(IntrusionSettings()),
        "integrity": IntegrityCollector(IntegritySettings(), DEFAULT_STATE_DIR, is_baseline_owner=False),
        "software": InstalledTargetsCollector(),
    }


COLLECTORS: Final[Mapping[str, Collector]] = _new_collectors()

# What only a running machine has, by the sections that consist of it.
_LIVING: Final[Mapping[str, str]] = {
    "sockets": "the kernel's table of sockets",
    "firewall": "the rules in the kernel",
    "disk": "the kernel's table of mounts",
    "integrity": "the agent's comparison with its baseline",
    "software": "the agent's records of updates",
}

# Seconds for which a section is reused: these collectors read many files, and their facts rarely change except by a
# command, which forces a new scan.
EVERY: Final[Mapping[str, float]] = {"sources": 900.0, "keys": 900.0, "certificates": 900.0}


def collectors_for(
    settings: Settings,
    *,
    tools: ToolStatus | None = None,
    integrity: IntegrityCollector | None = None,
    updater: Updater | None = None,
) -> Mapping[str, Collector]:
    """Returns the collectors with their configuration.

    The running agent passes `tools`, which it may start, and the `integrity` collector that owns the baseline. Without
    them, existing tool results and an existing baseline are only read.
    """
    mqtt, certificates = settings.mqtt, settings.certificates
    certificate_options = CertificateOptions(
        paths=certificates.paths,
        device_certificate=mqtt.certificate,
        device_id=settings.device_id,
        trust_store=certificates.trust_store or mqtt.ca,
        crl=certificates.crl,
        crl_urls=certificates.crl_urls,
        ocsp=certificates.ocsp,
        ocsp_networks=certificates.ocsp_networks,
    )
    state_dir = settings.agent.state_dir
    return {
        **COLLECTORS,
        "updates": updates.UpdatesCollector(state_dir),
        "keys": KeyCollector(settings.keys.paths, mqtt.key),
        "certificates": CertificateCollector(certificate_options),
        "lynis": LynisCollector(settings.tools, tools),
        "openscap": OpenscapCollector(settings.tools, tools),
        "intrusion": IntrusionCollector(settings.intrusion),
        "integrity": integrity or IntegrityCollector(settings.integrity, state_dir, is_baseline_owner=False),
        "software": InstalledTargetsCollector(updater),
    }


def collectors_for_image() -> Mapping[str, Collector]:
    """Returns the collectors for the root of an image; sections that need a living system say so."""
    return {**_new_collectors(), **{section: _needs_living(facts) for section, facts in _LIVING.items()}}


def _needs_living(facts: str) -> Collector:
    def collect(_system: System) -> Section:
        raise FactsUnavailableError(f"needs a living system: {facts}")

    return collect
