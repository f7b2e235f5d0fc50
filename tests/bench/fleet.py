"""A fleet's messages for the benchmarks: realistic reports of a Debian device, about 1.7 KB each."""

import json
from typing import Any, Final

from schemas.posture import digest_of

SENT_AT: Final = "2026-11-23T10:00:00Z"
BOOT_ID: Final = "5f0c5d1e-7a53-4a3c-9f57-0c3f6b8f9d21"
UNITS: Final = (
    "auditd",
    "chrony",
    "cron",
    "dbus",
    "getty@tty1",
    "networking",
    "nftables",
    "rsyslog",
    "ssh",
    "systemd-journald",
    "systemd-logind",
    "systemd-networkd",
    "systemd-resolved",
    "systemd-udevd",
    "unattended-upgrades",
    "user@0",
)


def sections(kernel: int = 41) -> dict[str, Any]:
    """A healthy Debian 12 device; `kernel` is what changes between two versions of it."""
    return {
        "os": {"state": "ok", "id": "debian", "version": "12", "kernel": f"6.1.0-{kernel}-amd64", "machine": "x86_64"},
        "updates": {
            "state": "ok",
            "manager": "apt",
            "pending": 0,
            "pending_names": [],
            "security_pending": 0,
            "reboot_required": False,
        },
        "openssl": {
            "state": "ok",
            "version": "3.0.19",
            "package": {"name": "openssl", "version": "3.0.19-1~deb12u2", "scheme": "deb"},
        },
        "sockets": {
            "state": "ok",
            "listening": [
                {"proto": "tcp", "address": "0.0.0.0", "port": 22, "process": "sshd"},
                {"proto": "tcp", "address": "::", "port": 22, "process": "sshd"},
                {"proto": "udp", "address": "127.0.0.1", "port": 323, "process": "chronyd"},
            ],
            "truncated": 0,
        },
        "services": {
            "state": "ok",
            "units": [{"name": f"{unit}.service", "enabled": True, "active": True} for unit in UNITS],
            "truncated": 0,
        },
        "firewall": {"state": "ok", "backend": "nftables", "active": True, "default_input": "drop", "rules": 14},
    }


class Reports:
    """Messages of any device of the fleet, made by replacing bytes so that making them costs little."""

    def __init__(self, kernel: int = 41) -> None:
        body = sections(kernel)
        self.digest = digest_of(body)
        report = {
            "v": 1, "kind": "full", "device_id": "DEVICE", "seq": "SEQ", "sent_at": SENT_AT, "boot_id": BOOT_ID,
            "agent": "1.0.0", "digest": self.digest, "sections": body,
        }  # fmt: skip
        self._full = json.dumps(report, separators=(",", ":")).encode()
        beat = {
            "v": 1, "kind": "heartbeat", "device_id": "DEVICE", "seq": "SEQ", "sent_at": SENT_AT,
            "digest": self.digest,
        }  # fmt: skip
        self._beat = json.dumps(beat, separators=(",", ":")).encode()

    def full(self, device: int, seq: int) -> bytes:
        """A full report."""
        return _fill(self._full, device, seq)

    def beat(self, device: int, seq: int) -> bytes:
        """A heartbeat with the digest of these reports."""
        return _fill(self._beat, device, seq)


def device_id(device: int) -> str:
    """The name of a device of the fleet."""
    return f"bench-{device:06d}"


def _fill(template: bytes, device: int, seq: int) -> bytes:
    return template.replace(b"DEVICE", device_id(device).encode(), 1).replace(b'"SEQ"', b"%d" % seq, 1)
