"""Malformed input gives a partial section with reasons or an unknown section, in bounded time, never an exception."""

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.collectors.access import account_security, ssh
from device_agent.collectors.access.accounts import hash_algorithm, parse_passwd_line, parse_shadow_line
from device_agent.collectors.access.failed_logins import count_records, time_of
from device_agent.collectors.base import Collector
from device_agent.collectors.system import (
    disk,
    firewall,
    inits,
    log_settings,
    mac,
    mounts,
    services,
    sockets,
)
from device_agent.collectors.system.firewall_iptables import read_iptables
from device_agent.collectors.system.firewall_nft import parse_nft_ruleset, read_nft
from device_agent.collectors.system.firewall_nft_text import nft_objects
from device_agent.collectors.system.firewall_packets import Host
from device_agent.collectors.system.interfaces import interface_of, parse_if_inet6
from device_agent.collectors.system.mac import count_denials
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host import inetd, uci, xinetd
from device_agent.host.files import MAX_FILE_BYTES
from device_agent.host.login_records import RECORD, WIDE_RECORD, count_lines
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from tests.support.root_folder import put

pytestmark = pytest.mark.slow

FUZZ: Final = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW: Final = 1_700_000_000.0
# Fragments of every format, so that malformed parts follow valid ones.
FRAGMENTS: Final = (
    "root:x:0:0::/root:/bin/sh", "ada:$6$x$y:1:0:99999:7:::", "::::::::", "service telnet", "{", "}", "disable = yes",
    "includedir /etc/xinetd.d", "include /etc/xinetd.conf", "Include *",
    "Match User x", "PermitRootLogin yes", "Port 22",
    "Port 99999999999", "MaxAuthTries -1", "LoginGraceTime 9999999999w", "PASS_MAX_DAYS 1", "PASS_MAX_DAYS x",
    "minlen = 9",
    "deny = ", "@include common-auth", "auth include system-auth", "auth required pam_faillock.so deny=5",
    "password requisite pam_pwquality.so minlen=x enforcing", "%wheel ALL=(ALL) NOPASSWD: ALL", "@includedir /etc",
    "@include /etc/sudoers", "permit nopass", "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
    "22 1 0:1 / /x\\999 rw - overlay o rw",
    "/dev/sda2 partition 1 1 1", "/swap file 1 1 1", "SELINUX=enforcing", "a (enforce)", "*.* @@h:514", "*.* @[::",
    'action(type="omfwd" target="x"', "destination d { tcp(", "config dropbear", "option Port '99999'", "-w /x",
    "[sshd]",
    "enabled = true", "bantime = 99999999999", "[Journal]", "Storage=persistent", "id:9:initdefault:",
    "0: 00000000:0016 00000000:0000 0A 0:0 0:0 0 0 0 7 1", "0: zz:0016 0 0A 0 0 0 0 0 -1 1",
    "telnet stream tcp nowait root /usr/sbin/tcpd in.telnetd", 'DROPBEAR_OPTS="-s -p', "log_ip",
)  # fmt: skip
LINES: Final = st.one_of(
    st.sampled_from(FRAGMENTS), st.text(max_size=60), st.sampled_from(FRAGMENTS).map(lambda w: w[::-1])
)
TEXT: Final = st.lists(LINES, max_size=12).map("\n".join)
BYTES: Final = st.one_of(TEXT.map(lambda text: text.encode(errors="replace")), st.binary(max_size=200))

FILES: Final[Mapping[str, tuple[Collector, tuple[str, ...]]]] = {
    "access": (
        account_security.collect,
        (
            "/etc/passwd", "/etc/shadow", "/etc/login.defs", "/etc/pam.d/common-auth", "/etc/pam.d/common-password",
            "/etc/pam.d/system-auth", "/etc/security/pwquality.conf", "/etc/security/faillock.conf", "/etc/sudoers",
            "/etc/sudoers.d/x", "/etc/doas.conf", "/etc/fail2ban/jail.local", "/var/log/btmp", "/var/log/auth.log",
        ),
    ),
    "ssh": (
        ssh.collect,
        (
            "/etc/ssh/sshd_config", "/etc/ssh/x", "/etc/config/dropbear", "/etc/conf.d/dropbear",
            "/etc/default/dropbear", "/usr/sbin/dropbear",
        ),
    ),
    "disk": (
        disk.collect,
        ("/proc/self/mountinfo", "/proc/swaps", "/sys/class/block/sda1/dm/uuid", "/sys/class/block/dm-0/dm/name"),
    ),
    "mac": (
        mac.collect,
        (
            "/sys/fs/selinux/enforce", "/etc/selinux/config", "/sys/module/apparmor/parameters/enabled",
            "/sys/kernel/security/apparmor/profiles", "/sys/kernel/security/lsm", "/var/log/audit/audit.log",
        ),
    ),
    "logging": (
        log_settings.collect,
        (
            "/usr/lib/systemd/systemd-journald", "/etc/systemd/journald.conf", "/usr/sbin/rsyslogd",
            "/etc/rsyslog.conf",
            "/usr/sbin/syslog-ng", "/etc/syslog-ng/syslog-ng.conf", "/sbin/logd", "/etc/config/system", "/sbin/auditd",
            "/etc/audit/rules.d/x.rules", "/etc/conf.d/syslog",
        ),
    ),
    "services": (
        services.collect,
        (
            "/etc/runlevels/default/x", "/etc/inittab", "/etc/init.d/x", "/etc/rc2.d/S01x", "/run/x.pid",
            "/etc/xinetd.conf", "/etc/xinetd.d/x", "/etc/inetd.conf",
        ),
    ),
    "sockets": (sockets.collect, ("/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/if_inet6")),
}  # fmt: skip


def collect_or_reason(collect: Collector, root: Path) -> Mapping[str, Any]:
    """Returns the section, or an unknown one with the reason; any other exception fails the test."""
    try:
        return collect(System(root, is_root_user=True))
    except FactsUnavailableError as e:
        return {"state": "unknown", "reason": str(e)}
    except NotApplicableError as e:
        return {"state": "notapplicable", "reason": str(e)}


@pytest.mark.parametrize("name", FILES)
@FUZZ
@given(data=st.data())
def test_a_root_of_malformed_files_gives_a_section_or_a_reason(name: str, data: st.DataObject) -> None:
    collect, paths = FILES[name]
    chosen = data.draw(st.dictionaries(st.sampled_from(paths), BYTES, max_size=len(paths)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, content in chosen.items():
            put(root, path, content)
        section = collect_or_reason(collect, root)
        assert normalise_findings({name: section}).sections[name]["state"] == section["state"], section


KEYS: Final = (
    "chain", "rule", "set", "expr", "match", "left", "right", "payload", "meta", "ct", "key", "field", "op",
    "range", "elem", "jump", "target", "family", "table", "name", "hook", "type", "policy", "protocol",
    "drop",
)  # fmt: skip
JSON: Final = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=8),
        st.sampled_from(["inet", "input", "filter", "tcp", "dport", "accept", "drop", "@ports", "new", "state"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                KEYS
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=40,
)  # fmt: skip


@FUZZ
@given(st.lists(JSON, max_size=8))
def test_arbitrary_nft_objects_are_read(objects: list[Any]) -> None:
    ruleset = read_nft(objects)
    assert ruleset.count >= 0
    sockets = {("tcp", 22, "0.0.0.0"), ("udp", 53, "::")}
    for host in (Host(), Host({"ip": ("eth0",), "ip6": ("eth0",)}, ("eth0",), {"ip": (5,), "ip6": (5,)})):
        assert firewall.facts_of(ruleset, host, frozenset({"ip", "ip6"}), sockets)["state"] == "ok"


@FUZZ
@given(st.one_of(JSON.map(json.dumps), st.text(max_size=200)))
def test_arbitrary_output_of_nft_and_ubus_raises_only_expected_errors(text: str) -> None:
    for parse in (parse_nft_ruleset, inits.parse_ubus_running):
        with contextlib.suppress(ValueError, KeyError):  # its caller reports the section as unknown
            parse(text)


def read_nft_text(text: str) -> None:
    with contextlib.suppress(ValueError):  # its caller reports the section as unknown
        read_nft(nft_objects(text))


PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "passwd": parse_passwd_line,
    "shadow": parse_shadow_line,
    "hash": hash_algorithm,
    "iptables": lambda text: read_iptables(text, "ip"),
    "nft rules": lambda text: read_nft_text(f"table inet t {{\nchain c {{\n{text}\n}}\n}}"),
    "sshd -T": lambda text: ssh.section_of(ssh.parse_resolved(text)),
    "uci": lambda text: values_or_error(lambda: uci.blocks_of(text, "system")),
    "audit": log_settings.count_audit_rules,
    "profiles": mac.count_profiles,
    "mounts": lambda text: mounts.parse_mounts(text, GapRecorder()),
    "failed": lambda text: count_lines(text.splitlines()),
    "denied": lambda text: count_denials(text.splitlines(), NOW),
    "time": lambda text: time_of(text, NOW),
    "if_inet6": parse_if_inet6,
    "address": lambda text: interface_of(text, {}),
}


def values_or_error(parse: Callable[[], object]) -> object:
    """Returns what a parser understands; a ValueError is its way to refuse a text."""
    try:
        return parse()
    except ValueError:
        return None


@pytest.mark.parametrize("name", PARSERS)
@FUZZ
@given(text=st.one_of(TEXT, st.text(max_size=300)))
def test_parsers_accept_any_text(name: str, text: str) -> None:
    PARSERS[name](text)


@FUZZ
@given(st.binary(max_size=2000), st.sampled_from([RECORD, WIDE_RECORD]))
def test_any_bytes_are_read_as_btmp(content: bytes, packing: Any) -> None:
    assert sum(count_records(content, packing, NOW).values()) <= len(content) // packing.size


LONG: Final = {
    "one line": "a" * 3_000_000,
    "spaces": " " * 3_000_000,
    "many lines": "root:x:0:0::/:/\n" * 200_000,
    "from": "Failed password for " + "from x " * 400_000,
    "open brackets": 'destination d { tcp("' * 100_000,
    "actions": 'action(type="omfwd" ' * 100_000,
    "empty lines": "\n" * 1_000_000,
    "inner spaces": "Port x" + " " * 3_000_000 + "y",
    "digits": "1" * 1_000_000,
    "times": "1m" * 1_000_000,
}


@pytest.mark.timeout(60)  # for all parsers together; a quadratic parser would need hours
@pytest.mark.parametrize("kind", LONG)
def test_large_texts_are_parsed_in_linear_time(kind: str, tmp_path: Path) -> None:
    text = LONG[kind]
    for name, parse in PARSERS.items():
        # The callers of the others pass files of bounded size only.
        parse(text[:MAX_FILE_BYTES] if name == "uci" else text)
    for name, (collect, paths) in FILES.items():
        # Files of accounts are read line by line; of the others, larger ones are not read at all.
        for content in (text, text[:MAX_FILE_BYTES]) if name == "access" else (text[:MAX_FILE_BYTES],):
            for path in paths:
                put(tmp_path, path, content)
            assert collect_or_reason(collect, tmp_path)["state"] in {"ok", "unknown", "notapplicable"}
    inetd.entries(System(tmp_path))
    xinetd.entries(System(tmp_path))
