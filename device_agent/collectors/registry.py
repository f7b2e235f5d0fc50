"""The collectors of this agent, by the section that each of them finds."""

from collections.abc import Mapping
from typing import Final

from device_agent.collectors.access import access, ssh
from device_agent.collectors.base import Collector
from device_agent.collectors.crypto import openssl
from device_agent.collectors.crypto.certificates import CertificateCollector, Wanted
from device_agent.collectors.crypto.keys import KeyCollector
from device_agent.collectors.software import sources, updates
from device_agent.collectors.software.software import Software
from device_agent.collectors.system import disk, firewall, log_settings, mac, services, sockets
from device_agent.collectors.tools.file_integrity import Integrity
from device_agent.collectors.tools.intrusion import Intrusion
from device_agent.collectors.tools.lynis import Lynis
from device_agent.collectors.tools.openscap import Openscap
from device_agent.collectors.tools.tool_runner import ToolWords
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
    "sockets": sockets.WatchedSockets(),
    "services": services.WatchedServices(),
    "firewall": firewall.collect,
    "access": access.collect,
    "ssh": ssh.collect,
    "disk": disk.collect,
    "mac": mac.collect,
    "logging": log_settings.collect,
    "lynis": Lynis(ToolSettings()),
    "openscap": Openscap(ToolSettings()),
    "intrusion": Intrusion(IntrusionSettings()),
    "integrity": Integrity(IntegritySettings(), DEFAULT_STATE_DIR, is_keeper=False),
    "software": Software(),
}

# Seconds for which these are not looked at again: they read much and seldom change, except by commands, and after a
# command everything is looked at.
EVERY: Final[Mapping[str, float]] = {"sources": 900.0, "keys": 900.0, "certificates": 900.0}


def collectors_for(
    settings: Settings,
    *,
    runs: ToolWords | None = None,
    integrity: Integrity | None = None,
    updater: Updater | None = None,
) -> Mapping[str, Collector]:
    """The collectors, those that the configuration speaks of with what it says.

    The running agent gives the tools that it may run and the keeper of the baseline; without them both are only read.
    """
    mqtt, certificates = settings.mqtt, settings.certificates
    wanted = Wanted(
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
        "lynis": Lynis(settings.tools, runs),
        "openscap": Openscap(settings.tools, runs),
        "intrusion": Intrusion(settings.intrusion),
        "integrity": integrity or Integrity(settings.integrity, settings.agent.state_dir, is_keeper=False),
        "software": Software(updater),
    }
