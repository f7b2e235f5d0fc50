"""Sections of a passing device: installed software, its sources, keys and certificates."""

from typing import Any, Final

GOOD_SOFTWARE: Final[dict[str, dict[str, Any]]] = {
    "updates": {
        "state": "ok",
        "manager": "apt",
        "security_pending": 3,
        "pending": 5,
        "pending_names": ["curl", "libcurl4", "vim", "nano", "less"],
        "oldest_security_days": 9,
        "seen_security_days": 4,
        "reboot_required": False,
        "unattended": True,
        "kernel_newest": "6.1.0-41-amd64",
        "kernel_current": True,
        "installed_count": 2,
        "installed_digest": "sha256:" + "0" * 64,
        "installed": ["libssl3 3.0.17-1~deb12u2 openssl", "openssl 3.0.17-1~deb12u2"],
    },
    "sources": {
        "state": "ok",
        "manager": "apt",
        "entries": [
            {
                "name": "debian.sources:1",
                "file": "/etc/apt/sources.list.d/debian.sources",
                "url": "https://deb.debian.org/debian",
                "transport": "https",
                "enabled": True,
                "signed": True,
                "key": "/usr/share/keyrings/debian-archive-keyring.gpg",
            }
        ],
    },
    "openssl": {
        "state": "ok",
        "version": "3.0.17",
        "package": {"name": "openssl", "version": "3.0.17-1~deb12u2", "scheme": "deb"},
        "library": "3.0.17",
        "stale_processes": [],
        "config": {
            "file": "/etc/ssl/openssl.cnf",
            "min_protocol": "TLSv1.2",
            "cipher_string": "DEFAULT@SECLEVEL=2",
            "security_level": 2,
        },
        "tls_errors": "none",
        "tls_error_hours": 24,
    },
    "keys": {
        "state": "ok",
        "folders": ["/etc/cordon"],
        "entries": [
            {
                "path": "/etc/cordon/edge.key",
                "format": "pkcs8",
                "kind": "ec",
                "bits": 256,
                "protected": True,
                "age_days": 30,
                "owner": "root",
                "group": "root",
                "mode": "0600",
                "folder_owner": "root",
                "folder_group": "root",
                "folder_mode": "0755",
            }
        ],
    },
    "certificates": {
        "state": "ok",
        "folders": ["/etc/cordon"],
        "trust_store": "/etc/cordon/ca.pem",
        "entries": [
            {
                "path": "/etc/cordon/edge.pem",
                "subject": "CN=edge-17",
                "issuer": "CN=ca",
                "serial": "1a",
                "kind": "ec",
                "bits": 256,
                "is_ca": False,
                "is_own": True,
                "days_left": 300,
                "chain": "trusted",
                "name": "matches",
                "crl": "fresh",
                "revoked": "no",
                "ocsp": "notchecked",
            }
        ],
    },
}
