"""A finding in a file of each reader of the agent, and the rule of a shipped pack that fails for it."""

import base64
import json
import string
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponderEncoding, OCSPResponseBuilder

from device_agent.collectors.access import account_security, ssh
from device_agent.collectors.base import Section
from device_agent.collectors.crypto import ocsp, openssl, tls_errors
from device_agent.collectors.crypto.certificates import CertificateCollector, CertificateOptions
from device_agent.collectors.crypto.keys import KeyCollector
from device_agent.collectors.software import inventory, pending_rpm, pending_updates, sources
from device_agent.collectors.software.updates import UpdatesCollector
from device_agent.collectors.system import disk, log_settings, mac, services, sockets, zfs
from device_agent.collectors.tools.lynis import LynisCollector
from device_agent.collectors.tools.openscap import OpenscapCollector
from device_agent.errors import FactsUnavailableError
from device_agent.host import apt
from device_agent.host.reading import GapRecorder
from device_agent.host.system import System
from device_agent.settings import ToolSettings
from tests.support.pki import NOW, Authority, key_pem

PASSWD: Final = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/home/ada:/bin/bash\nguest:x:1001:1001::/:/bin/sh"
SHADOW: Final = (
    "root:!:19000:0:99999:7:::\nada:$y$j9T$abcdefgh$" + "k" * 43 + ":19000:0:99999:7:::\nguest:!:19000:0:99999:7:::"
)
ACCOUNTS: Final = {"/etc/passwd": PASSWD, "/etc/shadow": SHADOW, "/etc/login.defs": "PASS_MAX_DAYS 180"}
STACK: Final = (
    "auth required pam_faillock.so preauth\nauth required pam_unix.so\nauth [default=die] pam_faillock.so authfail"
)
DEBIAN: Final = {
    "/etc/os-release": "ID=debian\nVERSION_ID=12",
    "/var/lib/dpkg/status": "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.17-1\n",
}
FEDORA: Final = {"/etc/os-release": "ID=fedora\nVERSION_ID=41", "/var/lib/rpm/rpmdb.sqlite": ""}
WANTS, UNITS = "/etc/systemd/system/timers.target.wants", "/usr/lib/systemd/system"
UNATTENDED: Final = {
    "/etc/os-release": "ID=debian\nVERSION_CODENAME=bookworm",
    "/var/lib/dpkg/status": "",
    "/usr/bin/unattended-upgrade": "",
    "/etc/apt/apt.conf.d/50unattended-upgrades": 'Unattended-Upgrade::Origins-Pattern { "origin=Debian"; };',
    "/var/lib/apt/lists/b_InRelease": "Origin: Debian\nSuite: stable-security\nCodename: bookworm-security\n",
    **{f"{folder}/{name}.timer": "" for folder in (WANTS, UNITS) for name in ("apt-daily", "apt-daily-upgrade")},
}
SYSV: Final = {"/etc/init.d/x": "", "/etc/rc2.d/S01xinetd": "", "/etc/xinetd.conf": "includedir /etc/xinetd.d"}
YESTERDAY: Final = datetime.now().astimezone() - timedelta(hours=20)
GUESSES: Final = (
    f"{(datetime.now().astimezone() - timedelta(hours=1)).isoformat(timespec='seconds')} gate sshd[7]: "
    "message repeated 119 times: [ Failed password for root from 192.0.2.66 port 4711 ssh2]"
)
OPENSSL_CONF: Final = (
    "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nCipherString = DEFAULT@SECLEVEL=2\n{line}"
)
LYNIS: Final = (
    f"# Lynis Report\nreport_datetime_start={YESTERDAY:%Y-%m-%d %H:%M:%S}\nlynis_version=3.0.8\nlynis_tests_done=238\n"
    f"{{line}}\nreport_datetime_end={YESTERDAY:%Y-%m-%d %H:%M:%S}\nhardening_index=76\nfinish=true"
)
XCCDF: Final = (
    '<?xml version="1.0"?>\n<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2" id="b">\n'
    '<TestResult id="t" end-time="{end}">\n'
    '<rule-result idref="first" severity="high"><result>pass</result></rule-result>\n'
    "{{line}}\n</TestResult>\n</Benchmark>"
).format(end=YESTERDAY.isoformat(timespec="seconds"))
KEY: Final = ed25519.Ed25519PrivateKey.generate()
ROOT, OTHER = Authority("root"), Authority("elsewhere")
REVOKED: Final = ROOT.issue("edge-1")
ASKED: Final = ROOT.issue("edge-1", responder="http://ocsp.example/")
_BASE64: Final = frozenset(string.ascii_letters + string.digits + "+/")
OCSP_REVOKED: Final = base64.encodebytes(
    OCSPResponseBuilder()
    .add_response(
        ASKED.certificate, ROOT.own.certificate, hashes.SHA1(), OCSPCertStatus.REVOKED,
        NOW - timedelta(hours=1), NOW + timedelta(hours=1), NOW - timedelta(hours=2), None,
    )
    .responder_id(OCSPResponderEncoding.HASH, ROOT.own.certificate)
    .sign(ROOT.own.key, hashes.SHA256())
    .public_bytes(Encoding.DER)
).decode()  # fmt: skip
DISKS: Final = {
    "/proc/swaps": "Filename Type Size Used Priority",
    "/sys/class/block/sda1/dev": "8:1",
    "/sys/class/block/dm-0/dev": "253:0",
    "/sys/class/block/dm-0/dm/uuid": "CRYPT-LUKS2-0123-root",
    "/sys/class/block/dm-0/dm/name": "root",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Files in which `line` of `file` makes `rule` fail, and with `sound` instead of it pass.

    `readers` are the modules that read them. `is_strict`: the file's program refuses, or acts on, the line also when a
    part of it is garbled; otherwise it ignores what it does not understand.
    """

    readers: tuple[str, ...]
    section: str
    rule: str
    collect: Callable[[System], Section]
    file: str
    line: str
    sound: str = ""
    text: str = "{line}"
    others: Mapping[str, str] = field(default_factory=dict)
    is_strict: bool = False

    def files(self, line: str | None = None) -> dict[str, str]:
        """Returns all files, with the finding or another line in its place."""
        replaced = self.text.replace("{line}", self.line if line is None else line)
        return {**self.others, self.file: replaced + "\n"}


def _certificates(system: System) -> Section:
    crl = [Path("/l.crl")] if system.path("/l.crl").exists() else []
    options = CertificateOptions(paths=[Path("/certs")], trust_store=Path("/store.pem"), crl=crl)
    return CertificateCollector(options, clock=NOW.timestamp)(system)


def _lines(pem: bytes) -> str:
    return pem.decode().strip()


FINDINGS: Final[dict[str, Finding]] = {
    "sudoers": Finding(
        ("access.sudoers", "access.sudoers_grammar"), "access", "baseline-system/sudo-asks", account_security.collect,
        "/etc/sudoers", "ada ALL=(ALL) NOPASSWD: ALL", text="root ALL=(ALL) ALL\n{line}", others=ACCOUNTS,
        is_strict=True,
    ),
    "shadow": Finding(
        ("access.accounts", "access.account_security"), "access", "baseline-system/no-empty-passwords",
        account_security.collect, "/etc/shadow", "guest::19000:0:99999:7:::", "guest:!:19000:0:99999:7:::",
        text="root:!:19000:0:99999:7:::\n{line}", others=ACCOUNTS,
    ),
    "passwd": Finding(
        ("access.accounts",), "access", "baseline-system/one-root", account_security.collect, "/etc/passwd",
        "toor:x:0:0::/root:/bin/sh", text=PASSWD + "\n{line}", others=ACCOUNTS,
    ),
    "login.defs": Finding(
        ("access.account_security",), "access", "baseline-system/passwords-change", account_security.collect,
        "/etc/login.defs", "PASS_MAX_DAYS 99999", "PASS_MAX_DAYS 180", text="PASS_WARN_AGE 7\n{line}", others=ACCOUNTS,
    ),
    "pam": Finding(
        ("access.pam",), "access", "baseline-system/guessing-is-stopped", account_security.collect,
        "/etc/security/faillock.conf", "deny = 0", "deny = 5", text="unlock_time = 900\n{line}",
        others={**ACCOUNTS, "/etc/pam.d/common-auth": STACK, "/etc/pam.d/sshd": STACK, "/etc/pam.d/login": STACK},
    ),
    "fail2ban": Finding(
        ("access.fail2ban",), "access", "baseline-system/guessing-is-stopped", account_security.collect,
        "/etc/fail2ban/jail.local", "enabled = false", "enabled = true", text="[sshd]\n{line}\nmaxretry = 5",
        others={**ACCOUNTS, "/etc/pam.d/common-auth": "auth required pam_unix.so", "/usr/bin/fail2ban-server": ""},
        is_strict=True,
    ),
    "failed logins": Finding(
        ("access.failed_logins",), "access", "baseline-system/nobody-guesses", account_security.collect,
        "/var/log/auth.log", GUESSES, others=ACCOUNTS,
    ),
    "sshd_config": Finding(
        ("access.ssh", "access.sshd_config"), "ssh", "baseline-system/ssh-keys-only", ssh.collect,
        "/etc/ssh/sshd_config", "PasswordAuthentication yes", "PasswordAuthentication no",
        text="Port 22\n{line}\nKbdInteractiveAuthentication no", is_strict=True,
    ),
    "a Match block": Finding(
        ("access.sshd_config",), "ssh", "baseline-system/ssh-no-open-exceptions", ssh.collect, "/etc/ssh/sshd_config",
        "PasswordAuthentication yes", "X11Forwarding no", text="PasswordAuthentication no\nMatch User bob\n{line}",
        is_strict=True,
    ),
    "dropbear": Finding(
        ("access.dropbear",), "ssh", "baseline-system/ssh-keys-only", ssh.collect, "/etc/default/dropbear",
        'DROPBEAR_ARGS="-p 22"', 'DROPBEAR_ARGS="-s"', text="NO_START=0\n{line}", others={"/usr/sbin/dropbear": ""},
        is_strict=True,
    ),
    "inetd": Finding(
        ("system.services", "system.inits"), "services", "baseline-system/no-insecure-services", services.collect,
        "/etc/inetd.conf", "23 stream tcp nowait root /usr/sbin/telnetd telnetd -i", others=SYSV,
    ),
    "xinetd": Finding(
        ("system.services",), "services", "baseline-system/no-insecure-services", services.collect,
        "/etc/xinetd.d/odd", " server = /usr/sbin/in.telnetd", " server = /usr/bin/sshd",
        text="service odd\n{\n type = UNLISTED\n{line}\n}", others=SYSV,
    ),
    "an init script": Finding(
        ("system.started_programs",), "services", "baseline-system/no-insecure-services", services.collect,
        "/etc/init.d/x", "DAEMON=/usr/sbin/in.telnetd", "DAEMON=/usr/sbin/sshd", text="#!/bin/sh\n{line}",
        others={"/etc/rc2.d/S20x": ""},
    ),
    "sockets": Finding(
        ("system.sockets", "system.interfaces"), "sockets", "starter/no-telnet", sockets.collect, "/proc/net/tcp",
        "   0: 00000000:0017 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1",
        text="  sl  local_address rem_address   st\n{line}",
        others={"/proc/net/tcp6": "", "/proc/net/udp": "", "/proc/net/udp6": ""},
    ),
    "SELinux": Finding(
        ("system.mac",), "mac", "baseline-system/confinement-stays", mac.collect, "/etc/selinux/config",
        "SELINUX=permissive", "SELINUX=enforcing", text="{line}\nSELINUXTYPE=targeted",
        others={"/sys/fs/selinux/enforce": "1"}, is_strict=True,
    ),
    "openssl.cnf": Finding(
        ("crypto.openssl", "crypto.openssl_config"), "openssl", "baseline-software/openssl-min-protocol",
        openssl.collect, "/etc/ssl/openssl.cnf", "MinProtocol = TLSv1", "MinProtocol = TLSv1.2", text=OPENSSL_CONF,
        others=DEBIAN,
    ),
    "apt": Finding(
        ("software.sources", "software.sources_apt"), "sources", "baseline-software/sources-signed", sources.collect,
        "/etc/apt/sources.list", "deb [trusted=yes] https://repo.example/apt ./",
        "deb [signed-by=/usr/share/keyrings/a.gpg] https://repo.example/apt ./",
        text="deb https://deb.debian.org/debian bookworm main\n{line}", others=DEBIAN,
    ),
    "dnf": Finding(
        ("software.sources_rpm",), "sources", "baseline-software/sources-signed", sources.collect,
        "/etc/yum.repos.d/a.repo", "gpgcheck=0", "gpgcheck=1", text="[a]\nname=a\nbaseurl=https://repo.example/\n{line}",
        others=FEDORA,
    ),
    "keys": Finding(
        ("crypto.keys", "crypto.key_format", "crypto.key_asn1", "crypto.crypto_files"), "keys",
        "baseline-software/keys-with-passphrase", KeyCollector(clock=NOW.timestamp), "/etc/ssl/private/a.pem",
        _lines(key_pem(KEY)).splitlines()[1], text="-----BEGIN PRIVATE KEY-----\n{line}\n-----END PRIVATE KEY-----",
        sound="", is_strict=True,
    ),
    "keys in JSON": Finding(
        ("crypto.key_format",), "keys", "baseline-software/keys-with-passphrase", KeyCollector(clock=NOW.timestamp),
        "/etc/ssl/private/a.jwk", json.dumps({"kty": "OKP", "crv": "Ed25519", "x": "a", "d": "b"}),
    ),
    "certificates": Finding(
        ("crypto.certificates", "crypto.certificate_chain"), "certificates", "baseline-software/certificates-trusted",
        _certificates, "/certs/a.pem", _lines(OTHER.issue("edge-1").pem), _lines(ROOT.issue("edge-1").pem),
        others={"/store.pem": _lines(ROOT.pem)}, is_strict=True,
    ),
    "revocation lists": Finding(
        ("crypto.revocation",), "certificates", "baseline-software/no-revoked-certificates", _certificates, "/l.crl",
        _lines(ROOT.crl(REVOKED)), _lines(ROOT.crl()),
        others={"/store.pem": _lines(ROOT.pem), "/certs/a.pem": _lines(REVOKED.pem)}, is_strict=True,
    ),
    "disk": Finding(
        ("system.disk", "system.mounts", "system.block_devices"), "disk", "baseline-system/root-encrypted",
        disk.collect, "/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
        "22 1 253:0 / / rw - ext4 /dev/mapper/root rw", text="{line}\n23 22 0:5 / /proc rw - proc proc rw",
        others=DISKS, is_strict=True,
    ),
    "apt.conf": Finding(
        ("software.updates", "software.unattended_upgrades", "software.apt_conf"), "updates",
        "baseline-software/unattended-upgrades", UpdatesCollector(), "/etc/apt/apt.conf.d/20auto-upgrades",
        'APT::Periodic::Unattended-Upgrade "0";', 'APT::Periodic::Unattended-Upgrade "1";',
        text='APT::Periodic::Update-Package-Lists "1";\n{line}', others=UNATTENDED, is_strict=True,
    ),
    "rsyslog.conf": Finding(
        ("system.log_settings", "system.log_targets", "system.rsyslog_conf", "system.rsyslog_tokens"), "logging",
        "baseline-system/logs-leave-the-device", log_settings.collect,
        "/etc/rsyslog.conf", "*.* /var/log/all", "*.* @@192.0.2.9:514", text="auth.* /var/log/auth.log\n{line}",
        others={"/usr/sbin/rsyslogd": "", "/proc/9/comm": "rsyslogd"}, is_strict=True,
    ),
    "syslog-ng.conf": Finding(
        ("system.syslog_ng_conf",), "logging", "baseline-system/logs-leave-the-device", log_settings.collect,
        "/etc/syslog-ng/syslog-ng.conf", "# nothing", "log { source(s); destination(d); };",
        text='source s { system(); };\ndestination d { tcp("192.0.2.9"); };\n{line}',
        others={"/usr/sbin/syslog-ng": "", "/proc/9/comm": "syslog-ng"},
    ),
    "BusyBox syslogd": Finding(
        ("system.small_log_daemons",), "logging", "baseline-system/logs-kept", log_settings.collect,
        "/etc/conf.d/syslog", 'SYSLOGD_OPTS="-t -C128"', 'SYSLOGD_OPTS="-t"', text="# options\n{line}",
        others={"/sbin/syslogd": "", "/proc/1/comm": "init", "/proc/9/comm": "syslogd"},
    ),
    "logs in memory": Finding(
        ("system.kept_files",), "logging", "baseline-system/logs-kept", log_settings.collect,
        "/proc/self/mountinfo", "21 20 0:30 / /var/log rw - tmpfs log2ram rw", "21 20 0:30 / /srv rw - tmpfs x rw",
        text="20 1 179:2 / / rw - ext4 /dev/mmcblk0p2 rw\n{line}",
        others={
            "/usr/lib/systemd/systemd-journald": "", "/proc/9/comm": "systemd-journal", "/proc/1/comm": "systemd",
            "/etc/systemd/journald.conf": "[Journal]\nStorage=persistent",
        },
    ),
    "runit": Finding(
        ("system.supervisors",), "services", "baseline-system/no-insecure-services", services.collect,
        "/etc/service/x/run", "exec /usr/sbin/telnetd -F", "exec /usr/sbin/sshd -D", text="#!/bin/sh\n{line}",
    ),
    "lynis": Finding(
        ("tools.lynis", "tools.lynis_report"), "lynis", "baseline-tools/lynis-no-warnings",
        LynisCollector(ToolSettings()), "/var/log/lynis-report.dat", "warning[]=PKGS-7392|Found one.|-|-|", text=LYNIS,
        is_strict=True,
    ),
    "xccdf": Finding(
        ("tools.openscap", "tools.xccdf"), "openscap", "baseline-tools/openscap-no-high-failures",
        OpenscapCollector(ToolSettings(openscap_results=("/r/*.xml",))), "/r/one.xml",
        '<rule-result idref="second" severity="high"><result>fail</result></rule-result>',
        text=XCCDF,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Output:
    """What a program prints or a package manager's database has, and whether what it says is seen or refused."""

    reader: str
    text: str
    is_seen: Callable[[str], bool]
    changes: tuple[str, ...] = ("add", "garble", "remove")


def _has_openssl(text: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "status")
        file.write_text(text)
        gaps = GapRecorder()
        names = [package.name for package in inventory.read_dpkg(file, gaps)]
    return "openssl" in names or bool(gaps.gaps)


def _lists_updates(text: str) -> bool:
    try:
        return bool(pending_rpm.dnf_security(text, {})[0])
    except FactsUnavailableError:
        return True


def _ocsp_status(text: str) -> str:
    """What is made of a responder's answer about a certificate that it has revoked; in base64, so that it is text."""
    letters = "".join(char for char in text if char in _BASE64)
    answer = base64.b64decode(letters[: len(letters) // 4 * 4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ocsp, "fetch_public", lambda *_args, **_options: answer)
        return ocsp.OcspMemory().check(ASKED.certificate, [ROOT.own.certificate], NOW)[0]


def _names(updates: Iterable[object]) -> set[str]:
    return {str(getattr(update, "name", "")) for update in updates}


OUTPUTS: Final = {
    "apk's updates": Output(
        "software.pending_updates",
        "libssl3-3.3.2-r1 x86_64 {openssl} (Apache-2.0) [upgradable from: libssl3-3.3.2-r0]\n",
        lambda text: "libssl3" in _names(pending_updates.apk_upgrades(text)), ("add",),
    ),
    "opkg's updates": Output(
        "software.pending_updates", "dnsmasq - 2.89-1 - 2.90-1\n",
        lambda text: "dnsmasq" in _names(pending_updates.opkg_upgrades(text)), ("add",),
    ),
    "apt's updates": Output(
        "software.pending_apt", "openssl/stable-security 3.0.17-1 amd64 [upgradable from: 3.0.15-1]\n",
        lambda text: "openssl" in _names(apt.listed(text)), ("add",),
    ),
    "the journal's errors of TLS": Output(
        "crypto.tls_errors", '{"MESSAGE": "SSL handshake failed", "SYSLOG_IDENTIFIER": "nginx"}\n',
        lambda text: any(map(tls_errors.is_tls_error, text.splitlines())), ("add",),
    ),
    "OCSP's answer": Output("crypto.ocsp", OCSP_REVOKED, lambda text: _ocsp_status(text) in {"revoked", "notchecked"}),
    "dpkg's status": Output(
        "software.inventory",
        "Package: apt\nStatus: install ok installed\nVersion: 2.6.1\n\n"
        "Package: openssl\nStatus: install ok installed\nVersion: 3.0.11-1\n",
        _has_openssl,
    ),
    "dnf's advisories": Output(
        "software.pending_rpm", "RLSA-2024:1 Important/Sec. openssl-1:3.0.7-27.el9.x86_64\n", _lists_updates,
        ("add", "garble"),
    ),
    "zfs's properties": Output(
        "system.zfs", "encryption\toff\nkeystatus\t-\n", lambda text: zfs.dataset_status(text).encrypted is not True
    ),
}  # fmt: skip

# Modules of the collectors that read no foreign format.
NO_READER: Final = frozenset(
    {
        # The packet filter is what programs print, not a file: `test_firewall_properties` tries the same on it.
        *("system.firewall", "system.firewall_nft", "system.firewall_nft_text", "system.firewall_nft_rule_text"),
        *("system.firewall_nft_words", "system.firewall_conditions", "system.firewall_iptables"),
        *("system.firewall_iptables_matches", "system.firewall_ruleset", "system.firewall_verdicts"),
        "system.firewall_packets",
        *(
            "base",
            "registry",
            "scan",
            "system.fscrypt",  # it asks the kernel; of files it reads the names
            "crypto.fetch",
            "software.config_files",
            "software.pending_model",
            "software.installed_targets",
            "software.operating_system",
        ),
        *("tools.file_integrity", "tools.file_integrity_baseline", "tools.file_integrity_scan", "tools.intrusion"),
        *("tools.tool_runner", "software.kernels"),
    }
)
