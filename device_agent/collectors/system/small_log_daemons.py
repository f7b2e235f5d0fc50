"""Log daemons with few options: BusyBox syslogd, OpenWrt's logd, journal-upload; and those that are only recognised."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from device_agent.collectors.system.log_targets import LogOutputs, LogTarget
from device_agent.host import uci
from device_agent.host.files import list_files, parse_key_values, read_beginning, read_text
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System, process_names

# Where distributions keep the options of BusyBox syslogd: Alpine; Buildroot; Yocto and others.
_BUSYBOX_OPTIONS: Final = (
    ("/etc/conf.d/syslog", ("SYSLOGD_OPTS",)),
    ("/etc/default/syslogd", ("SYSLOGD_ARGS", "SYSLOGD_OPTS", "SYSLOGD")),
    ("/etc/default/busybox-syslogd", ("SYSLOG_OPTS",)),
)
_YOCTO: Final = "/etc/syslog-startup.conf"
_WITH_VALUE: Final = frozenset("OlsbRfm")  # options that take a value, joined or as the next argument
_WITH_JOINED_VALUE: Final = "C"
_BUSYBOX_FLAGS: Final = frozenset("nSLKDtCOlsbRfm")
_BUSYBOX_LOG: Final = "/var/log/messages"
_MAX_COMMAND_BYTES: Final = 4096
_UCI: Final = "/etc/config/system"
_UPLOAD: Final = "systemd-journal-upload"
_UPLOAD_PORT: Final = "19532"
_URL: Final = re.compile(r"^(?:(https?)://)?(\[[^\]]+\]|[^/:\s$`]+)(?::(\d{1,5}))?(?:/.*)?$")
_FOLDERS: Final = ("/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd")
# Process (as the kernel truncates its name) and programs.
_OTHERS: Final = {
    "vector": ("/usr/bin/vector", "/usr/local/bin/vector"),
    "fluent-bit": ("/opt/fluent-bit/bin/fluent-bit", "/usr/bin/fluent-bit"),
    "td-agent-bit": ("/opt/td-agent-bit/bin/td-agent-bit",),
    "fluentd": ("/usr/sbin/fluentd", "/usr/sbin/td-agent", "/opt/fluent/bin/fluentd"),
    "filebeat": ("/usr/bin/filebeat", "/usr/share/filebeat/bin/filebeat"),
    "promtail": ("/usr/bin/promtail", "/usr/local/bin/promtail"),
    "alloy": ("/usr/bin/alloy",),
    "otelcol": ("/usr/bin/otelcol", "/usr/bin/otelcol-contrib"),
    "nxlog": ("/usr/bin/nxlog", "/opt/nxlog/bin/nxlog"),
    "splunkd": ("/opt/splunkforwarder/bin/splunkd",),
    "metalog": ("/usr/sbin/metalog",),
    "socklog": ("/usr/bin/socklog", "/usr/sbin/socklog"),
}


def read_busybox(system: System, gaps: GapRecorder) -> LogOutputs:
    """Returns the outputs of BusyBox syslogd: of its running process, else as its start script gives the options."""
    arguments = _running_arguments(system)
    if arguments is None:
        arguments = list(_configured_arguments(system))
    return busybox_outputs(arguments, gaps)


def busybox_outputs(arguments: list[str], gaps: GapRecorder) -> LogOutputs:
    """Reads the options `-R` (target), `-L` (files too), `-O` (file) and `-C` (memory only)."""
    values: dict[str, list[str]] = {}
    rest = iter(arguments)
    for argument in rest:
        if not re.fullmatch(r"-[A-Za-z].*", argument) or "$" in argument:
            gaps.add(f"the option of syslogd is not understood: {argument}")
            continue
        letters = iter(argument[1:])
        for letter in letters:
            if letter not in _BUSYBOX_FLAGS:
                gaps.add(f"the option of syslogd is not understood: -{letter}")
            elif letter in _WITH_VALUE:
                values.setdefault(letter, []).append("".join(letters) or next(rest, ""))
            else:
                values.setdefault(letter, []).append("".join(letters) if letter == _WITH_JOINED_VALUE else "")
    outputs = LogOutputs()
    for text in values.get("R", []):
        match = _URL.match(text)
        if match is None or match[1]:
            gaps.add(f"the target is not understood: {text}")
        else:
            outputs.targets.add(LogTarget("udp", match[2], match[3] or "514"))
    if "C" not in values and ("R" not in values or "L" in values):
        outputs.files.add(values.get("O", [_BUSYBOX_LOG])[-1])
    return outputs


def _running_arguments(system: System) -> list[str] | None:
    for pid, name in (process_names(system) if system.path("/proc").is_dir() else {}).items():
        if name in {"syslogd", "busybox"}:
            command, is_whole = read_beginning(system.path(f"/proc/{pid}/cmdline"), _MAX_COMMAND_BYTES)
            words = command.rstrip("\0").split("\0")
            while words and words[0].rpartition("/")[2] in {"busybox", "toybox"}:
                words = words[1:]
            if is_whole and words and words[0].rpartition("/")[2] == "syslogd":
                return words[1:]
    return None


def _configured_arguments(system: System) -> Iterator[str]:
    for path, names in _BUSYBOX_OPTIONS:
        values = parse_key_values(read_text(system.path(path)))
        for name in names:
            yield from shlex.split(" ".join(shlex.split(values.get(name, ""), comments=True)))
    # Yocto's script makes the options from these.
    yocto = {key: value.strip("\"'") for key, value in parse_key_values(read_text(system.path(_YOCTO))).items()}
    destination = yocto.get("DESTINATION", "")
    if destination == "buffer":
        yield "-C"
    elif destination == "remote":
        yield from ("-R", yocto.get("REMOTE", ""))
        yield from ("-L",) if yocto.get("LOCAL", "no").lower() == "yes" else ()
    elif yocto.get("LOGFILE"):
        yield from ("-O", yocto["LOGFILE"])


def read_logd(system: System, gaps: GapRecorder) -> LogOutputs:
    """Returns the outputs of OpenWrt's logd: the ring buffer in memory, and a target or a file beside it."""
    outputs = LogOutputs()
    with gaps.capture(_UCI):
        for block in uci.blocks_of(read_text(system.path(_UCI)), "system"):
            if block.get("log_ip") and block.get("log_remote", "1") not in {"0", "off", "false", "no"}:
                protocol, port = block.get("log_proto", "udp"), block.get("log_port", "514")
                outputs.targets.add(LogTarget(protocol, block["log_ip"], port))
            if block.get("log_file"):
                outputs.files.add(block["log_file"])
    return outputs


def journal_upload(system: System) -> set[LogTarget]:
    """Returns the target of systemd-journal-upload where it is enabled.

    Raises:
        ValueError: the address is not understood.
        OSError, FactsUnavailableError: a file cannot be read whole.
    """
    if not _is_unit_enabled(system, f"{_UPLOAD}.service"):
        return set()
    files = [path for folder in _FOLDERS if (path := system.path(f"{folder}/journal-upload.conf")).is_file()][-1:]
    drop_ins = {
        path.name: path
        for folder in _FOLDERS
        for path in list_files(system.path(f"{folder}/journal-upload.conf.d"), "*.conf")
    }
    url = ""
    for file in [*files, *(drop_ins[name] for name in sorted(drop_ins))]:
        url = parse_key_values(read_text(file)).get("URL", url)
    if not url:
        return set()  # it does not start without
    match = _URL.match(url)
    if match is None:
        raise ValueError(f"the address of journal-upload is not understood: {url}")
    return {LogTarget(match[1] or "https", match[2], match[3] or _UPLOAD_PORT)}


def _is_unit_enabled(system: System, unit: str) -> bool:
    folder = system.path("/etc/systemd/system")
    is_wanted = any(_is_link(wants / unit) for wants in folder.glob("*.wants")) if folder.is_dir() else False
    return is_wanted and not (folder / unit).is_symlink()


def _is_link(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def other_forwarders(system: System) -> list[str]:
    """Returns the log daemons that run, or are installed where processes cannot be listed, and that are not read."""
    names = set(process_names(system).values()) if system.path("/proc/1").exists() else None
    return [
        name
        for name, programs in _OTHERS.items()
        if (name in names if names is not None else any(system.path(program).exists() for program in programs))
    ]
