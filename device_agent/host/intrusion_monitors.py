"""The intrusion monitors of this device: where they write their alerts, and whether they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from device_agent.host.system import System, process_names

_WAZUH_MARK: Final = "/var/ossec/bin/wazuh-control"
_OSSEC_ALERTS: Final = ("/var/ossec/logs/alerts/alerts.json", "/var/ossec/logs/alerts/alerts.log")
# An agent of Wazuh or OSSEC has no analysis: it sends what it finds to its manager.
_AGENTS: Final = {
    "wazuh": ("/var/ossec/bin/wazuh-agentd", "/var/ossec/bin/wazuh-analysisd"),
    "ossec": ("/var/ossec/bin/ossec-agentd", "/var/ossec/bin/ossec-analysisd"),
}
# By monitor: default alert files, the most detailed format first, and files that exist where it is installed.
_DEFAULTS: Final = (
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
            "/var/log/snort/alert_full.txt",
            "/var/log/snort/alert_csv.txt",
            "/var/log/snort/alert.csv",
            "/var/log/snort/alert",
        ),
        ("/usr/sbin/snort", "/usr/local/bin/snort", "/usr/bin/snort"),
    ),
)
# Process names, truncated to 15 characters by the kernel.
_PROCESSES: Final = {
    "wazuh": frozenset({"wazuh-analysisd", "wazuh-agentd"}),
    "ossec": frozenset({"ossec-analysisd", "ossec-agentd"}),
    "suricata": frozenset({"suricata", "Suricata-Main"}),
    "snort": frozenset({"snort", "snort3"}),
}


@dataclass(frozen=True, slots=True, order=True)
class AlertSource:
    """A monitor and the absolute path of its alert file."""

    monitor: str
    path: str


def sources(watched: Sequence[str], system: System) -> tuple[AlertSource, ...]:
    """Returns the alert files to follow.

    `watched` holds `monitor:path` of the configuration. When it is empty, the default paths are searched; an installed
    monitor has a source even before its file exists.
    """
    if watched:
        return tuple(sorted({AlertSource(*entry.split(":", 1)) for entry in watched}))
    detected = []
    for monitor, paths, marks in _DEFAULTS:
        is_installed = any(_exists(system, mark) for mark in marks)
        if monitor == "wazuh" and not is_installed:
            continue  # an alert file alone is attributed to OSSEC
        if monitor == "ossec" and _exists(system, _WAZUH_MARK):
            continue
        existing = [path for path in paths if _exists(system, path)]
        if not existing and is_agent(monitor, system):
            continue
        if existing or is_installed:
            detected.append(AlertSource(monitor, (existing or list(paths))[0]))
    return tuple(detected)


def is_agent(monitor: str, system: System) -> bool:
    """Whether only the agent of a monitor is installed, whose alerts are at its manager."""
    agent, analysis = _AGENTS.get(monitor, ("", ""))
    return bool(agent) and _exists(system, agent) and not _exists(system, analysis)


def running(system: System) -> frozenset[str]:
    """Returns the monitors of which a process runs.

    Raises:
        OSError: the processes cannot be listed.
    """
    names = set(process_names(system).values())
    return frozenset(monitor for monitor, programs in _PROCESSES.items() if programs & names)


def _exists(system: System, path: str) -> bool:
    try:
        return system.path(path).exists()
    except PermissionError:
        return True  # in a folder that only root and the monitor may enter
