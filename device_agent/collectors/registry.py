"""The collectors of this agent, by the section that each of them finds."""

from collections.abc import Mapping
from typing import Final

from device_agent.collectors.access import access, ssh
from device_agent.collectors.base import Collector
from device_agent.collectors.crypto import openssl
from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.collectors.crypto.keys import KeyCollector
from device_agent.collectors.software import sources, updates
from device_agent.collectors.software.software import SoftwareCollector
from device_agent.collectors.system import disk, firewall, log_settings, mac, services, sockets
from device_agent.collectors.tools.file_integrity import IntegrityCollector
from device_agent.collectors.tools.intrusion import IntrusionCollector
from device_agent.collectors.tools.lynis import LynisCollector
from device_agent.collectors.tools.openscap import OpenscapCollector
from device_agent.collectors.tools.tool_runner import ToolStatus
from device_agent.host import os_release
from device_agent.settings import DEFAULT_STATE_DIR, IntegritySettings, IntrusionSettings, Settings, ToolSettings
from device_agent.updates.updater import Updater

COLLECTORS: Final[Mapping[str, Collector]] = {
    "os": os_release.collect,
    "updates": updates.UpdatesCollector(),
    "sources": sources.collect,
    "openssl": openssl.collect,
    "keys": KeyCollector(),
    "certificates": CertificateCollector(),
    "sockets": sockets.SocketsCollector(),
    "services": services.ServicesCollector(),
    "firewall": firewall.collect,
    "access": access.collect,
    "ssh": ssh.collect,
    "disk": disk.collect,
    "mac": mac.collect,
    "logging": log_settings.collect,
    "lynis": LynisCollector(ToolSettings()),
    "openscap": OpenscapCollector(ToolSettings()),
    "intrusion": IntrusionCollector(IntrusionSettings()),
    "integrity": IntegrityCollector(IntegritySettings(), DEFAULT_STATE_DIR, is_keeper=False),
    "software": SoftwareCollector(),
}

# Seconds for which these are not looked at again: they read much and seldom change, except by commands, and after a
# command everything is looked at.
EVERY: Final[Mapping[str, float]] = {"sources": 900.0, "keys": 900.0, "certificates": 900.0}


def collectors_for(
    settings: Settings,
    *,
    runs: ToolStatus | None = None,
    integrity: IntegrityCollector | None = None,
    updater: Updater | None = None,
) -> Mapping[str, Collector]:
    """The collectors, those that the configuration speaks of with what it says.

    The running agent gives the tools that it may run and the keeper of the baseline; without them both are only read.
    """
    mqtt, certificates = settings.mqtt, settings.certificates
    wanted = CertificateOptions(
        paths=certificates.paths,
        own=mqtt.certificate,
        device_id=settings.device_id,
        trust_store=certificates.trust_store or mqtt.ca,
        crl=certificates.crl,
        crl_urls=certificates.crl_urls,
        ocsp=certificates.ocsp,
    )
    return {
        **COLLECTORS,
        "updates": updates.UpdatesCollector(settings.agent.state_dir),
        "keys": KeyCollector(settings.keys.paths, mqtt.key),
        "certificates": CertificateCollector(wanted),
        "lynis": LynisCollector(settings.tools, runs),
        "openscap": OpenscapCollector(settings.tools, runs),
        "intrusion": IntrusionCollector(settings.intrusion),
        "integrity": integrity or IntegrityCollector(settings.integrity, settings.agent.state_dir, is_keeper=False),
        "software": SoftwareCollector(updater),
    }
