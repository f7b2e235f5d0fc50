"""Which intrusion monitors this device has, where they write their alerts, and whether they run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from device_agent.host.system import System

_WAZUH_MARK: Final = "/var/ossec/bin/wazuh-control"
_OSSEC_ALERTS: Final = ("/var/ossec/logs/alerts/alerts.json",)
# Where each monitor writes by itself, the richest format first, and what shows that it is installed.
_USUAL: Final = (
    ("wazuh", _OSSEC_ALERTS, (_WAZUH_MARK,)),
    ("ossec", _OSSEC_ALERTS, ("/var/ossec/bin/ossec-control",)),
    (
        "suricata",
        ("/var/log/suricata/eve.json", "/var/log/suricata/fast.log"),
        ("/usr/bin/suricata", "/usr/sbin/suricata"),
    ),
    (
        "snort",
        (
            "/var/log/snort/alert_json.txt",
            "/var/log/snort/alert_fast.txt",
            "/var/log/snort/snort.alert.fast",
            "/var/log/snort/alert",
        ),
        ("/usr/sbin/snort", "/usr/local/bin/snort", "/usr/bin/snort"),
    ),
)
# Process names as the kernel cuts them, at 15 characters.
_PROCESSES: Final = {
    "wazuh": frozenset({"wazuh-analysisd", "wazuh-agentd"}),
    "ossec": frozenset({"ossec-analysisd", "ossec-agentd"}),
    "suricata": frozenset({"suricata", "Suricata-Main"}),
    "snort": frozenset({"snort", "snort3"}),
}


@dataclass(frozen=True, slots=True, order=True)
class AlertSource:
    """A monitor and the file, as the device names it, that it writes alerts to."""

    monitor: str
    path: str


def sources(watched: Sequence[str], system: System) -> tuple[AlertSource, ...]:
    """Returns the alert files to follow.

    `watched` holds `monitor:path` of the configuration. When it is empty, the usual places are searched; an installed
    monitor has a source even before its file exists.
    """
    if watched:
        return tuple(sorted({AlertSource(*entry.split(":", 1)) for entry in watched}))
    found = []
    for monitor, places, marks in _USUAL:
        is_installed = any(_exists(system, mark) for mark in marks)
        if monitor == "wazuh" and not is_installed:
            continue  # the file alone is taken for OSSEC's
        if monitor == "ossec" and _exists(system, _WAZUH_MARK):
            continue
        there = [place for place in places if _exists(system, place)]
        if there or is_installed:
            found.append(AlertSource(monitor, (there or list(places))[0]))
    return tuple(found)


def running(system: System) -> frozenset[str]:
    """Monitors of which a process runs.

    Raises:
        OSError: the processes cannot be listed.
    """
    names = set()
    with os.scandir(system.path("/proc")) as entries:
        for entry in entries:
            if entry.name.isdigit():
                try:
                    names.add(system.path(f"/proc/{entry.name}/comm").read_text(errors="replace").strip())
                except OSError:
                    continue  # it has ended meanwhile
    return frozenset(monitor for monitor, known in _PROCESSES.items() if known & names)


def _exists(system: System, place: str) -> bool:
    try:
        return system.path(place).exists()
    except PermissionError:
        return True  # in a folder that only root and the monitor may enter
