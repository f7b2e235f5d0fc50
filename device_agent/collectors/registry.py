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
    ssh,
    updates,
)
from device_agent.collectors.base import Collector

COLLECTORS: Final[Mapping[str, Collector]] = {
    "os": os_release.collect,
    "updates": updates.collect,
    "openssl": openssl.collect,
    "sockets": sockets.WatchedSockets(),
    "services": services.WatchedServices(),
    "firewall": firewall.collect,
    "access": access.collect,
    "ssh": ssh.collect,
    "disk": disk.collect,
    "mac": mac.collect,
    "logging": logging_.collect,
}
