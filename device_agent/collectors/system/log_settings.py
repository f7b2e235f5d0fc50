"""Logging (section `logging`): journald, syslog, remote targets, the audit daemon, and log rotation."""

import contextlib
import re
import shutil
from typing import Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.host.execute import run
from device_agent.host.files import list_files, parse_key_values, read_text
from device_agent.host.system import System

_JOURNALD: Final = ("/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald")
_JOURNALD_PROCESS: Final = "systemd-journal"  # truncated by the kernel
_JOURNALD_CONF: Final = "journald.conf"
# By precedence, the highest first; drop-ins take precedence over the main file.
_FOLDERS: Final = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_JOURNAL_FOLDER: Final = "/var/log/journal"
_SYSLOGS: Final = (
    ("rsyslog", ("/etc/rsyslog.conf",), ("/usr/sbin/rsyslogd",), "rsyslogd"),
    ("syslog-ng", ("/etc/syslog-ng/syslog-ng.conf",), ("/usr/sbin/syslog-ng",), "syslog-ng"),
    ("logd", (), ("/sbin/logd",), "logd"),
    ("busybox", ("/etc/conf.d/syslog", "/etc/syslog.conf"), ("/sbin/syslogd",), "syslogd"),
)
_RSYSLOG_LEGACY: Final = re.compile(r"^\s*[^#$\s]\S*\s+-?(@@?)(?:\([^)]*\))?(\[[^\]]+\]|[^\s:;#]+)(?::(\d+))?")
# The repetitions are bounded, so that matching a malformed file takes linear time.
_RSYSLOG_ACTION: Final = re.compile(r"\baction[ \t]{0,8}\(([^()]{0,2000})\)")
_RSYSLOG_FORWARDERS: Final = frozenset({"omfwd", "omrelp"})
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
    """Collects the `logging` section."""
    section = SectionBuilder(journald="unknown")
    with section.capture("journald"):
        section.set(journald=_journald(system))
    name, process = _syslog(system)
    section.set(
        syslog=name,
        syslog_running=_is_running(system, process) if name and _can_list_processes(system) else None,
        remote_targets=[],
    )
    if name:
        with section.capture("remote_targets"):
            section.set(remote_targets=sorted(_remote_targets(system, name)))
    _add_audit(system, section)
    section.set(rotation=_rotation(system, section["journald"], name))
    return section.build()


def _journald(system: System) -> str:
    if not any(system.path(program).exists() for program in _JOURNALD):
        return "absent"
    if _can_list_processes(system) and not _is_running(system, _JOURNALD_PROCESS):
        return "none"  # installed but not running
    storage = _journald_setting(system, "Storage").lower() or "auto"
    if storage == "auto":
        return "persistent" if system.path(_JOURNAL_FOLDER).is_dir() else "volatile"
    return storage if storage in {"persistent", "volatile", "none"} else "unknown"


def _journald_setting(system: System, key: str) -> str:
    """Returns a setting of journald: of the last drop-in by name that sets it, else of the main file."""
    main = next((path for folder in _FOLDERS if (path := system.path(f"{folder}/{_JOURNALD_CONF}")).is_file()), None)
    drop_ins = {
        path.name: path
        for folder in reversed(_FOLDERS)
        for path in list_files(system.path(f"{folder}/{_JOURNALD_CONF}.d"), "*.conf")
    }
    value = ""
    for file in [*([main] if main else []), *(drop_ins[name] for name in sorted(drop_ins))]:
        value = parse_key_values(read_text(file)).get(key, value)
    return value


def _syslog(system: System) -> tuple[str, str]:
    """Returns the installed syslog daemon and its process name; of several, the first in `_SYSLOGS`."""
    for name, configs, programs, process in _SYSLOGS:
        is_installed = any(system.path(program).exists() for program in programs)
        is_configured = not configs or name == "busybox" or any(system.path(config).exists() for config in configs)
        if is_installed and is_configured:
            return name, process
    return "", ""


def _can_list_processes(system: System) -> bool:
    return system.path("/proc/1").exists() or system.path("/proc/self").exists()


def _is_running(system: System, process: str) -> bool:
    for folder in system.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text(errors="replace").strip() == process:
                return True
    return False


def _remote_targets(system: System, name: str) -> set[str]:
    if name == "rsyslog":
        files = [system.path("/etc/rsyslog.conf"), *list_files(system.path("/etc/rsyslog.d"), "*.conf")]
        return {target for file in files for target in rsyslog_targets(read_text(file))}
    if name == "syslog-ng":
        files = [system.path("/etc/syslog-ng/syslog-ng.conf"), *list_files(system.path("/etc/syslog-ng/conf.d"))]
        return {target for file in files for target in syslog_ng_targets(read_text(file))}
    if name == "logd":
        return uci_targets(read_text(system.path("/etc/config/system")))
    options = read_text(system.path("/etc/conf.d/syslog")) + read_text(system.path("/etc/default/syslogd"))
    return {f"udp {target}" for target in _BUSYBOX.findall(options)}


def rsyslog_targets(text: str) -> set[str]:
    """Returns the machines that rsyslog forwards to: `*.* @@host:514` and `action(type="omfwd" ...)`."""
    targets = set()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in lines:
        if match := _RSYSLOG_LEGACY.match(line[:1024]):
            targets.add(f"{'tcp' if match[1] == '@@' else 'udp'} {match[2]}:{match[3] or 514}")
    for action in _RSYSLOG_ACTION.findall("\n".join(lines)):
        parameters = {key.lower(): value for key, value in _PARAMETER.findall(action)}
        kind = parameters.get("type", "").lower()
        if kind in _RSYSLOG_FORWARDERS and (target := parameters.get("target")):
            protocol = "relp" if kind == "omrelp" else parameters.get("protocol", "udp").lower()
            is_tls = parameters.get("streamdrivermode") == "1" or parameters.get("tls", "").lower() == "on"
            targets.add(f"{'tls' if is_tls else protocol} {target}:{parameters.get('port', '514')}")
    return targets


def syslog_ng_targets(text: str) -> set[str]:
    """Returns the machines in syslog-ng's destinations."""
    targets = set()
    uncommented = "\n".join(line.partition("#")[0] for line in text.splitlines())
    for block in _DESTINATION.findall(uncommented):
        for driver, host, rest in _SYSLOG_NG.findall(block):
            port = re.search(r"port\(\s*(\d{1,5})\s*\)", rest)
            transport = re.search(r"transport\(\s*\"?(\w+)\"?\s*\)", rest)
            protocol = transport[1].lower() if transport else driver.lower().rstrip("6")
            protocol = {"network": "tcp", "syslog": "tcp"}.get(protocol, protocol)
            targets.add(f"{protocol} {host}:{port[1] if port else 514}")
    return targets


def uci_targets(text: str) -> set[str]:
    """Returns the machine that OpenWrt's logd forwards to."""
    options = dict(_UCI.findall(text))
    if "log_ip" not in options or options.get("log_remote") == "0":
        return set()
    return {f"{options.get('log_proto', 'udp')} {options['log_ip']}:{options.get('log_port', '514')}"}


def _add_audit(system: System, section: SectionBuilder) -> None:
    if not any(system.path(program).exists() for program in _AUDIT_PROGRAMS):
        section.set(audit="absent")
        return
    state = "unknown"
    if _can_list_processes(system):
        state = "running" if _is_running(system, "auditd") else "stopped"
    section.set(audit=state)
    with section.capture("audit_rules"):
        if system.is_live and system.is_root_user and shutil.which("auditctl") and state == "running":
            rules = count_audit_rules(run(["auditctl", "-l"]).stdout)
        else:
            files = list_files(system.path("/etc/audit/rules.d"), "*.rules") or [system.path("/etc/audit/audit.rules")]
            rules = sum(count_audit_rules(read_text(file)) for file in files)
        section.set(audit_rules=rules)


def count_audit_rules(text: str) -> int:
    """Counts the rules in an auditd rules file or the output of `auditctl -l`."""
    return sum(1 for line in text.splitlines() if _AUDIT_RULE.match(line.strip()))


def _rotation(system: System, journald: str, syslog: str) -> str:
    """Returns what limits the size of the logs; empty when nothing does."""
    has_program = any(system.path(program).exists() for program in ("/usr/sbin/logrotate", "/usr/bin/logrotate"))
    if has_program and system.path("/etc/logrotate.conf").is_file():
        return "logrotate"
    if syslog in {"logd", "busybox"}:
        return syslog  # a ring buffer in memory, or a file of fixed size
    # journald limits its own size, and without a syslog daemon there are no other logs.
    return "journald" if journald in {"persistent", "volatile"} and not syslog else ""
