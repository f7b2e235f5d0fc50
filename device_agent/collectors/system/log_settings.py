"""Logging (section `logging`): journald, syslog, remote targets, the audit daemon, and log rotation."""

import contextlib
import re
import shutil
from collections.abc import Callable
from typing import Final

from device_agent.collectors.base import Section, SectionBuilder
from device_agent.collectors.system import rsyslog_conf, small_log_daemons, syslog_ng_conf
from device_agent.collectors.system.kept_files import is_kept
from device_agent.collectors.system.log_targets import LogOutputs, remote_targets
from device_agent.host.execute import run
from device_agent.host.files import list_files, parse_key_values, read_text
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System

_JOURNALD: Final = ("/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald")
_JOURNALD_PROCESS: Final = "systemd-journal"  # truncated by the kernel
_JOURNALD_CONF: Final = "journald.conf"
# By precedence, the highest first; drop-ins take precedence over the main file.
_FOLDERS: Final = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
_JOURNAL_FOLDER: Final = "/var/log/journal"
_Reader = Callable[[System, GapRecorder], LogOutputs]
# Name, configuration, programs, process, and the reader of its outputs.
_SYSLOGS: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...], str, _Reader], ...]] = (
    ("rsyslog", ("/etc/rsyslog.conf",), ("/usr/sbin/rsyslogd",), "rsyslogd", rsyslog_conf.read),
    ("syslog-ng", ("/etc/syslog-ng/syslog-ng.conf",), ("/usr/sbin/syslog-ng",), "syslog-ng", syslog_ng_conf.read),
    ("logd", (), ("/sbin/logd",), "logd", small_log_daemons.read_logd),
    ("busybox", (), ("/sbin/syslogd",), "syslogd", small_log_daemons.read_busybox),
)
_AUDIT_PROGRAMS: Final = ("/usr/sbin/auditd", "/sbin/auditd")
_AUDIT_RULE: Final = re.compile(r"^-[aAw]$")
_NO_FILTER: Final = 2  # words of a rule without a filter


def collect(system: System) -> Section:
    """Collects the `logging` section."""
    section = SectionBuilder(journald="unknown", kept=None)
    with section.capture("journald"):
        section.set(journald=_journald(system))
    name, process, read_outputs = _syslog(system)
    is_running = _is_running(system, process) if name and _can_list_processes(system) else None
    section.set(syslog=name, syslog_running=is_running)
    gaps = GapRecorder()
    outputs = LogOutputs()
    if is_running is not False:  # what is configured is not in force without the daemon
        with gaps.capture(name):
            outputs = read_outputs(system, gaps)
    section.add_gaps(gaps.gaps, "remote_targets")
    _add_targets(system, section, outputs)
    _add_kept(system, section, outputs, gaps, is_running=is_running)
    _add_audit(system, section)
    section.set(rotation=_rotation(system, section["journald"], name))
    return section.build()


def _add_targets(system: System, section: SectionBuilder, outputs: LogOutputs) -> None:
    section.set(remote_targets=[])
    with section.capture("remote_targets"):
        uploads = small_log_daemons.journal_upload(system)
        section.set(remote_targets=remote_targets(system, outputs.targets | uploads))
    for daemon in small_log_daemons.other_forwarders(system):
        section.gap("remote_targets", reason=f"what {daemon} forwards is not read")


def _add_kept(
    system: System, section: SectionBuilder, outputs: LogOutputs, gaps: GapRecorder, *, is_running: bool | None
) -> None:
    """Adds whether logs survive a restart: the journal, or a file of the syslog daemon, on a disk."""
    with section.capture("kept", "journald"):
        journal = section["journald"]
        on_disk = is_kept(system, _JOURNAL_FOLDER) if journal == "persistent" else False
        if on_disk is False and journal == "persistent":
            section.set(journald="volatile")  # such as a tmpfs that is copied to the disk now and then
        files = [is_kept(system, path) for path in sorted(outputs.files)]
        if on_disk or (is_running and True in files):
            section.set(kept=True)
            return
        section.set(kept=False)
        if journal == "unknown":
            section.gap("kept", reason="the storage of journald is not known")
        if on_disk is None or (is_running and None in files):
            section.gap("kept", reason="what is below the file system of the logs is not visible")
        if is_running and outputs.has_dynamic_files:
            section.gap("kept", reason="a template makes the names of log files")
        if is_running is None and section["syslog"]:
            section.gap("kept", reason=f"whether {section['syslog']} runs is not known")
        section.add_gaps(gaps.gaps, "kept")


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


def _syslog(system: System) -> tuple[str, str, _Reader]:
    """Returns name, process and reader of the installed syslog daemon; of several, one that runs, or the first."""
    installed = [
        (name, process, reader)
        for name, configs, programs, process, reader in _SYSLOGS
        if any(system.path(program).exists() for program in programs)
        and (not configs or any(system.path(config).exists() for config in configs))
    ]
    running = [one for one in installed if _can_list_processes(system) and _is_running(system, one[1])]
    return next(iter([*running, *installed]), ("", "", lambda _system, _gaps: LogOutputs()))


def _can_list_processes(system: System) -> bool:
    return system.path("/proc/1").exists() or system.path("/proc/self").exists()


def _is_running(system: System, process: str) -> bool:
    for folder in system.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text(errors="replace").strip() == process:
                return True
    return False


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
            rules = count_audit_rules("\n".join(read_text(file) for file in files))
        section.set(audit_rules=rules)


def count_audit_rules(text: str) -> int:
    """Counts the rules that record something, in auditd's rules files in their order or the output of `auditctl -l`.

    `never` and `exclude` record nothing; `never` for all tasks, the default of Fedora, switches all other rules off.
    """
    count = 0
    is_off = False
    for words in map(str.split, text.splitlines()):
        lists = frozenset(words[1].split(",")) if len(words) > 1 else frozenset[str]()
        if words == ["-D"]:
            count, is_off = 0, False
        elif words[:2] == ["-e", "0"]:
            return 0
        elif words and _AUDIT_RULE.match(words[0]):
            is_off = is_off or (lists == {"task", "never"} and len(words) == _NO_FILTER)
            count += not lists & {"never", "exclude"}
    return 0 if is_off else count


def _rotation(system: System, journald: str, syslog: str) -> str:
    """Returns what limits the size of the logs; empty when nothing does."""
    has_program = any(system.path(program).exists() for program in ("/usr/sbin/logrotate", "/usr/bin/logrotate"))
    if has_program and system.path("/etc/logrotate.conf").is_file():
        return "logrotate"
    if syslog in {"logd", "busybox"}:
        return syslog  # a ring buffer in memory, or a file of fixed size
    # journald limits its own size, and without a syslog daemon there are no other logs.
    return "journald" if journald in {"persistent", "volatile"} and not syslog else ""
