"""The collectors of this agent, by the section that each of them finds."""

from collections.abc import Mapping
from typing import Final

from device_agent.collectors import (
    access,
    disk,
    firewall,
    logging_,
    mac,
    openssl,
    os_release,
    services,
    sockets,
    sources,
    ssh,
    updates,
)
from device_agent.collectors.base import Collector
from device_agent.collectors.certificates import CertificateCollector, Wanted
from device_agent.collectors.keys import KeyCollector
from device_agent.settings import Settings

COLLECTORS: Final[Mapping[str, Collector]] = {
    "os": os_release.collect,
    "updates": updates.collect,
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
    "logging": logging_.collect,
}


def collectors_for(settings: Settings) -> Mapping[str, Collector]:
    """The collectors, those that the configuration speaks of with what it says."""
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
        "keys": KeyCollector(settings.keys.paths, mqtt.key),
        "certificates": CertificateCollector(wanted),
    }
