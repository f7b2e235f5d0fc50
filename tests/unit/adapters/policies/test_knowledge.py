"""Knowledge files: what is accepted, and what the file that ships says."""

import json
from datetime import date, timedelta
from typing import Any

import pytest

from controller.adapters.policies.knowledge import GOOD_FOR, MAX_ENTRIES, MAX_KNOWLEDGE_BYTES, parse_knowledge
from controller.domain.policy.knowledge import KnowledgeKind
from controller.packs import shipped_knowledge
from controller.ports.policies import KnowledgeError

ENTRY = {
    "kind": "os",
    "name": "debian",
    "version": "12",
    "ends": "2028-06-30",
    "source": "https://example.org",
    "verified": "2026-11-01",
}


def written(*entries: dict[str, Any], **fields: Any) -> bytes:
    file = {"knowledge": "support", "version": 7, "issued": "2026-11-30", "entries": list(entries or (ENTRY,))}
    return json.dumps({**file, **fields}).encode()


def test_a_file_is_read() -> None:
    found = parse_knowledge(written(ENTRY, {**ENTRY, "version": "", "ends": "rolling", "good_for": 5}))
    first, second = found.entries
    assert (found.version, found.issued) == (7, date(2026, 11, 30))
    assert (first.kind, first.label, first.ends) == (KnowledgeKind.OS, "debian 12", date(2028, 6, 30))
    assert first.good_until == date(2026, 11, 1) + timedelta(GOOD_FOR)
    assert (second.label, second.ends, second.good_until) == ("debian", None, date(2026, 11, 6))
    assert parse_knowledge(written(ENTRY) + b"\n").digest != parse_knowledge(written(ENTRY)).digest


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not a knowledge file"),
        (b"[" * 100_000, "not a knowledge file"),
        (b" " * (MAX_KNOWLEDGE_BYTES + 1), "at most 262144 bytes"),
        (written(version=0), "version: "),
        (written(other=1), "other: "),
        (written(entries=[]), "entries: "),
        (written(*[{**ENTRY, "version": str(n)} for n in range(MAX_ENTRIES + 1)]), "entries: "),
        (written({**ENTRY, "good_for": 3661}), "entries.0.good_for: "),
        (written({**ENTRY, "good_for": 0}), "entries.0.good_for: "),
        (written({**ENTRY, "ends": "soon"}), "entries.0.ends."),
        (written({**ENTRY, "name": "Debian\n"}), "entries.0.name: "),
        (written({**ENTRY, "source": ""}), "entries.0.source: "),
        (written({key: value for key, value in ENTRY.items() if key != "source"}), "entries.0.source: "),
        (written({key: value for key, value in ENTRY.items() if key != "verified"}), "entries.0.verified: "),
        (written(ENTRY, {**ENTRY, "ends": "2030-01-01"}), "two entries are about debian 12"),
        (written({**ENTRY, "verified": "2026-12-01"}), "debian 12 was verified after the file was issued"),
    ],
)
def test_what_is_no_knowledge_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(KnowledgeError, match=reason):
        parse_knowledge(raw)


def test_the_shipped_file_has_every_first_class_distribution_and_a_source_for_each_entry() -> None:
    shipped = parse_knowledge(shipped_knowledge())
    names = {entry.name for entry in shipped.entries}
    assert names >= {
        "debian",
        "ubuntu",
        "alpine",
        "openwrt",
        "rhel",
        "rocky",
        "almalinux",
        "centos",
        "fedora",
        "openssl",
    }
    branches = {entry.version for entry in shipped.entries if entry.name == "openssl"}
    assert branches >= {"1.1.1", "3.0", "3.1", "3.2", "3.3", "3.4", "3.5"}
    day = shipped.issued
    fixes = {
        entry.label: shipped.on(day).support(entry.kind, entry.name, entry.version).gets_fixes
        for entry in shipped.entries
    }
    assert [fixes[label] for label in ("debian 11", "debian 12", "openssl 1.1.1", "openssl 3.5")] == [
        False,
        True,
        False,
        True,
    ]
