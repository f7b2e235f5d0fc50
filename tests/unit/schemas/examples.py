"""The published examples of messages; every field of the contract appears once."""

from typing import Any, Final

DIGEST: Final = "sha256:" + "9b1d" * 16

FULL: Final[dict[str, Any]] = {
    "v": 1,
    "kind": "full",
    "device_id": "edge-17",
    "seq": 412,
    "sent_at": "2026-11-23T10:00:00Z",
    "boot_id": "7f3c",
    "agent": "1.0.0",
    "digest": DIGEST,
    "sections": {
        "os": {"state": "ok", "id": "debian", "version": "12", "kernel": "6.1.0-41-amd64", "machine": "x86_64"},
        "updates": {
            "state": "ok",
            "manager": "apt",
            "security_pending": 3,
            "oldest_security_days": 9,
            "reboot_required": False,
            "packages": [{"name": "openssl", "installed": "3.0.16", "candidate": "3.0.17"}],
        },
        "openssl": {
            "state": "ok",
            "version": "3.0.17",
            "package": {"name": "openssl", "version": "3.0.17-1~deb12u2", "scheme": "deb"},
        },
        "sockets": {
            "state": "ok",
            "listening": [{"proto": "tcp", "address": "0.0.0.0", "port": 22, "process": "sshd"}],
            "truncated": 0,
        },
        "services": {
            "state": "ok",
            "units": [{"name": "ssh.service", "enabled": True, "active": True}],
            "truncated": 0,
        },
        "firewall": {"state": "unknown", "reason": "needs root"},
    },
}
DELTA: Final[dict[str, Any]] = {
    "v": 1,
    "kind": "delta",
    "device_id": "edge-17",
    "seq": 414,
    "sent_at": "2026-11-23T10:02:00Z",
    "boot_id": "7f3c",
    "agent": "1.0.0",
    "digest": "sha256:" + "4c2e" * 16,
    "base": DIGEST,
    "sections": {"firewall": {"state": "unknown", "reason": "nft did not end within 20 s"}},
}
HEARTBEAT: Final[dict[str, Any]] = {
    "v": 1,
    "kind": "heartbeat",
    "device_id": "edge-17",
    "seq": 413,
    "sent_at": "2026-11-23T10:01:00Z",
    "digest": DIGEST,
}
RECEIPTS: Final[tuple[dict[str, Any], ...]] = (
    {"v": 1, "seq": 412, "verdict": "accepted", "digest": DIGEST},
    {"v": 1, "seq": 413, "verdict": "resend_full"},
    {
        "v": 1,
        "seq": None,
        "verdict": "rejected",
        "reason": "payload_too_large",
        "detail": "70124 > 65536 bytes",
    },
)
COMMAND: Final[dict[str, Any]] = {
    "v": 1,
    "command_id": "01JD0000",
    "device_id": "edge-17",
    "action": "service.disable",
    "params": {"name": "telnetd"},
    "dry_run": False,
    "issued_at": "2026-11-23T10:00:01Z",
    "expires_at": "2026-11-23T10:10:01Z",
    "counter": 58,
}
RESULT: Final[dict[str, Any]] = {
    "v": 1,
    "command_id": "01JD0000",
    "state": "succeeded",
    "reason": "",
    "detail": {"was": "enabled, active", "is": "disabled, inactive"},
    "at": "2026-11-23T10:00:03Z",
}
STATUS: Final[dict[str, Any]] = {"v": 1, "state": "online", "boot_id": "7f3c", "at": "2026-11-23T10:00:00Z"}
WILL: Final[dict[str, Any]] = {"v": 1, "state": "offline"}
EVENT: Final[dict[str, Any]] = {
    "v": 1,
    "device_id": "edge-17",
    "kind": "login.failed",
    "severity": "medium",
    "count": 5,
    "summary": "five failed logins",
    "detail": {"user": "root"},
    "at": "2026-11-23T10:00:00Z",
}
