"""Whether what happens is written down, kept over a restart, sent to another machine, and cleared away in time."""

import contextlib
import re
import shutil
from typing import Any, Final

from device_agent.collectors.base import Section
from device_agent.collectors.reading import GapRecorder
from device_agent.host.execute import run
from device_agent.host.files import files_in, settings_of, text_of
from device_agent.host.system import System

_JOURNALD: Final = ("/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald")
_JOURNALD_PROCESS: Final = "systemd-journal"  # as far as the kernel keeps its name
_JOURNALD_CONF: Final = "journald.conf"
# The one with the highest say first; a drop-in outweighs the main file.
_FOLDERS: Final = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_STORED: Final = "/var/log/journal"
_SYSLOGS: Final = (
    ("rsyslog", ("/etc/rsyslog.conf",), ("/usr/sbin/rsyslogd",), "rsyslogd"),
    ("syslog-ng", ("/etc/syslog-ng/syslog-ng.conf",), ("/usr/sbin/syslog-ng",), "syslog-ng"),
    ("logd", (), ("/sbin/logd",), "logd"),
    ("busybox", ("/etc/conf.d/syslog", "/etc/syslog.conf"), ("/sbin/syslogd",), "syslogd"),
)
_RSYSLOG_OLD: Final = re.compile(r"^\s*[^#$\s]\S*\s+-?(@@?)(?:\([^)]*\))?(\[[^\]]+\]|[^\s:;#]+)(?::(\d+))?")
# Bounded, so that a damaged file costs no more than a sound one.
_RSYSLOG_NEW: Final = re.compile(r"\baction[ \t]{0,8}\(([^()]{0,2000})\)")
_RSYSLOG_SENDS: Final = frozenset({"omfwd", "omrelp"})
_PARAMETER: Final = re.compile(r"\b(\w{1,64})\s{0,8}=\s{0,8}\"([^\"]{0,1000})\"")
_SYSLOG_NG: Final = re.compile(
    r"\b(tcp6?|udp6?|network|syslog)\s*\(\s*(?:ip\()?\s*\"?([A-Za-z0-9_.:-]+)\"?([^;]{0,400})", re.IGNORECASE
)
_DESTINATION: Final = re.compile(r"\bdestination\s+\S+\s*\{([^}]{0,4000})\}")
_UCI: Final = re.compile(
    r"^[ \t]*option[ \t]+(log_ip|log_port|log_proto|log_remote)[ \t]+['\"]?([^'\"\s]+)", re.MULTILINE
)
_BUSYBOX: Final = re.compile(r"-R\s*([^\s\"']+)")
_AUDIT_PROGRAMS: Final = ("/usr/sbin/auditd", "/sbin/auditd")
_AUDIT_RULE: Final = re.compile(r"^-[aAw]\b")


def collect(system: System) -> Section:
    """The `logging` section."""
    gaps = GapRecorder()
    section: dict[str, Any] = {"state": "ok", "journald": "unknown", "syslog": "", "remote_targets": []}
    with gaps.told("journald"):
        section["journald"] = _journald(system)
    name, process = _syslog(system)
    section["syslog"] = name
    section["syslog_running"] = _runs(system, process) if name and _sees_processes(system) else None
    if name:
        with gaps.told("remote_targets"):
            section["remote_targets"] = sorted(_targets(system, name))
    section.update(_audit(system, gaps))
    section["rotation"] = _rotation(system, section["journald"], name)
    return {**section, "gaps": gaps.listed()}


def _journald(system: System) -> str:
    if not any(system.path(place).exists() for place in _JOURNALD):
        return "absent"
    if _sees_processes(system) and not _runs(system, _JOURNALD_PROCESS):
        return "none"  # installed, and nobody writes anything down
    storage = _setting(system, "Storage").lower() or "auto"
    if storage == "auto":
        return "persistent" if system.path(_STORED).is_dir() else "volatile"
    return storage if storage in {"persistent", "volatile", "none"} else "unknown"


def _setting(system: System, key: str) -> str:
    """A setting of journald: its main file, and over it the drop-ins by name, whichever folder they are in."""
    main = next((path for folder in _FOLDERS if (path := system.path(f"{folder}/{_JOURNALD_CONF}")).is_file()), None)
    drop_ins = {
        path.name: path
        for folder in reversed(_FOLDERS)
        for path in files_in(system.path(f"{folder}/{_JOURNALD_CONF}.d"), "*.conf")
    }
    value = ""
    for file in [*([main] if main else []), *(drop_ins[name] for name in sorted(drop_ins))]:
        value = settings_of(text_of(file)).get(key, value)
    return value


def _syslog(system: System) -> tuple[str, str]:
    """The syslog that is installed, and its process; several at once are told in the order of their likelihood."""
    for name, configs, programs, process in _SYSLOGS:
        is_installed = any(system.path(place).exists() for place in programs)
        if is_installed and (not configs or name == "busybox" or any(system.path(one).exists() for one in configs)):
            return name, process
    return "", ""


def _sees_processes(system: System) -> bool:
    return system.path("/proc/1").exists() or system.path("/proc/self").exists()


def _runs(system: System, process: str) -> bool:
    for folder in system.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text(errors="replace").strip() == process:
                return True
    return False


def _targets(system: System, name: str) -> set[str]:
    if name == "rsyslog":
        files = [system.path("/etc/rsyslog.conf"), *files_in(system.path("/etc/rsyslog.d"), "*.conf")]
        return {target for file in files for target in targets_of_rsyslog(text_of(file))}
    if name == "syslog-ng":
        files = [system.path("/etc/syslog-ng/syslog-ng.conf"), *files_in(system.path("/etc/syslog-ng/conf.d"))]
        return {target for file in files for target in targets_of_syslog_ng(text_of(file))}
    if name == "logd":
        return targets_of_uci(text_of(system.path("/etc/config/system")))
    said = _BUSYBOX.findall(text_of(system.path("/etc/conf.d/syslog")) + text_of(system.path("/etc/default/syslogd")))
    return {f"udp {target}" for target in said}


def targets_of_rsyslog(text: str) -> set[str]:
    """Other machines that rsyslog sends to: `*.* @@host:514` and `action(type="omfwd" ...)`."""
    found = set()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in lines:
        if match := _RSYSLOG_OLD.match(line[:1024]):
            found.add(f"{'tcp' if match[1] == '@@' else 'udp'} {match[2]}:{match[3] or 514}")
    for action in _RSYSLOG_NEW.findall("\n".join(lines)):
        given = {key.lower(): value for key, value in _PARAMETER.findall(action)}
        kind = given.get("type", "").lower()
        if kind in _RSYSLOG_SENDS and (target := given.get("target")):
            relp = kind == "omrelp"
            protocol = "relp" if relp else given.get("protocol", "udp").lower()
            is_tls = given.get("streamdrivermode") == "1" or given.get("tls", "").lower() == "on"
            found.add(f"{'tls' if is_tls else protocol} {target}:{given.get('port', '514')}")
    return found


def targets_of_syslog_ng(text: str) -> set[str]:
    """Other machines in syslog-ng's destinations."""
    found = set()
    plain = "\n".join(line.partition("#")[0] for line in text.splitlines())
    for block in _DESTINATION.findall(plain):
        for driver, host, rest in _SYSLOG_NG.findall(block):
            port = re.search(r"port\(\s*(\d{1,5})\s*\)", rest)
            named = re.search(r"transport\(\s*\"?(\w+)\"?\s*\)", rest)
            protocol = named[1].lower() if named else driver.lower().rstrip("6")
            protocol = {"network": "tcp", "syslog": "tcp"}.get(protocol, protocol)
            found.add(f"{protocol} {host}:{port[1] if port else 514}")
    return found


def targets_of_uci(text: str) -> set[str]:
    """The other machine that OpenWrt's logd sends to."""
    said = dict(_UCI.findall(text))
    if "log_ip" not in said or said.get("log_remote") == "0":
        return set()
    return {f"{said.get('log_proto', 'udp')} {said['log_ip']}:{said.get('log_port', '514')}"}


def _audit(system: System, gaps: GapRecorder) -> dict[str, Any]:
    if not any(system.path(place).exists() for place in _AUDIT_PROGRAMS):
        return {"audit": "absent", "audit_rules": None}
    state = "unknown"
    if _sees_processes(system):
        state = "running" if _runs(system, "auditd") else "stopped"
    rules = None
    with gaps.told("audit_rules"):
        if system.is_live and system.is_root_user and shutil.which("auditctl") and state == "running":
            rules = count_rules(run(["auditctl", "-l"]).out)
        else:
            files = files_in(system.path("/etc/audit/rules.d"), "*.rules") or [system.path("/etc/audit/audit.rules")]
            rules = sum(count_rules(text_of(file)) for file in files)
    return {"audit": state, "audit_rules": rules}


def count_rules(text: str) -> int:
    """The rules in a file of auditd's, or in what `auditctl -l` says."""
    return sum(1 for line in text.splitlines() if _AUDIT_RULE.match(line.strip()))


def _rotation(system: System, journald: str, syslog: str) -> str:
    """What clears logs away; empty when nothing does."""
    has_program = any(system.path(place).exists() for place in ("/usr/sbin/logrotate", "/usr/bin/logrotate"))
    if has_program and system.path("/etc/logrotate.conf").is_file():
        return "logrotate"
    if syslog in {"logd", "busybox"}:
        return syslog  # a ring in memory, or a file of a fixed size
    # journald keeps its own bounds, and without another there is nothing else to clear.
    return "journald" if journald in {"persistent", "volatile"} and not syslog else ""
