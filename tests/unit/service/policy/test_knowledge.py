"""Knowledge in a running controller: imported, kept, aged; devices are judged again."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.domain.audit_kinds import AuditKind
from controller.domain.guards.blast_radius import BlastRadius, BlastRadiusLimits
from controller.domain.guards.guards import FleetGuards
from controller.domain.policy.knowledge import PAYLOAD_TYPE
from controller.domain.policy.model import ContainmentLevel, PolicySet, RuleResponse
from controller.ports.policies import KnowledgeError
from controller.service.policy.activation import PolicyTooBroadError
from controller.service.policy.knowledge import KnowledgeImport, KnowledgeService
from schemas.posture import digest_of
from schemas.signing import key_id, public_key_text, to_be_signed
from tests.support.api import api as open_api
from tests.support.clocks import START
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.playbook import policies, rule
from tests.support.reports import full, heartbeat, incoming, sections

DAY: Final = 86_400.0
TODAY: Final = datetime.fromtimestamp(START, UTC).date()
RULES: Final = policies(rule("supported", check="os_supported"))


def file(version: int, *, ends: int = 100, issued: int = 0) -> bytes:
    """Debian 12 gets fixes for `ends` days; verified and issued today (or `issued` days later), good for 30 days."""
    entry = {
        "kind": "os",
        "name": "debian",
        "version": "12",
        "ends": str(TODAY + timedelta(ends)),
        "source": "https://example.org",
        "verified": str(TODAY + timedelta(min(issued, 0))),
        "good_for": 30,
    }
    content = {
        "knowledge": "support",
        "version": version,
        "issued": str(TODAY + timedelta(issued)),
        "entries": [entry],
    }
    return json.dumps(content).encode()


def knowledge(harness: ControllerHarness) -> KnowledgeService:
    return harness.services.policies.knowledge


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[ControllerHarness]:
    """One device with Debian 12, and knowledge of version 5."""
    async with open_harness(tmp_path / "c.db", RULES) as made:
        await knowledge(made).replace(KnowledgeImport(file(5)), "olga")
        await made.ingest.process_batch([incoming("edge-1", full("edge-1", 1))])
        yield made


def result(harness: ControllerHarness) -> str:
    state = devices_of(harness.fleet)["edge-1"].rules.get("p/supported")
    return "pass" if state is None else state.result.value


async def beat(harness: ControllerHarness, seq: int) -> str:
    await harness.ingest.process_batch([incoming("edge-1", heartbeat("edge-1", seq, digest_of(sections())))])
    return result(harness)


async def test_a_device_that_passed_turns_unknown_when_the_entry_expires(harness: ControllerHarness) -> None:
    assert result(harness) == "pass"
    harness.clock.at += 30 * DAY
    knowledge(harness).refresh()
    assert await beat(harness, 2) == "pass"
    harness.clock.at += DAY
    knowledge(harness).refresh()
    assert await beat(harness, 3) == "unknown"
    assert ("knowledge is too old: import newer knowledge", {"alert": True, "entries": ["debian 12"]}) in harness.logged
    later = file(6, ends=300).replace(str(TODAY).encode(), str(TODAY + timedelta(31)).encode())
    await knowledge(harness).replace(KnowledgeImport(later), "olga")
    assert await beat(harness, 4) == "pass"


async def test_a_device_fails_the_day_after_its_release_lost_support(harness: ControllerHarness) -> None:
    await knowledge(harness).replace(KnowledgeImport(file(6, ends=2)), "olga")
    harness.clock.at += 2 * DAY
    knowledge(harness).refresh()
    assert await beat(harness, 2) == "pass"
    harness.clock.at += DAY
    knowledge(harness).refresh()
    assert await beat(harness, 3) == "fail"


async def test_an_import_is_recorded_and_outlives_a_restart(harness: ControllerHarness, tmp_path: Path) -> None:
    await knowledge(harness).replace(KnowledgeImport(file(6, ends=-1)), "olga")
    assert await beat(harness, 2) == "fail"
    await knowledge(harness).replace(KnowledgeImport(file(6, ends=-1)), "olga")  # in force already
    entries = [one.entry for one in await harness.store.audit(kind=AuditKind.KNOWLEDGE_REPLACED)]
    details = [dict(one.detail or {}) for one in entries]
    assert [one.actor for one in entries] == ["olga", "olga"]
    assert [(one["before"], one["after"]) for one in details] == [(5, 6), (1, 5)]
    async with open_harness(tmp_path / "c.db", RULES) as again:
        assert knowledge(again).present.knowledge.version == 6
        assert again.fleet.policies.version == harness.fleet.policies.version
        assert await beat(again, 3) == "fail"


async def test_an_older_file_is_refused_unless_it_is_forced(harness: ControllerHarness, tmp_path: Path) -> None:
    for older in (file(4), file(5, ends=7), file(6, issued=-1)):
        with pytest.raises(KnowledgeError, match="is not newer than version 5 of 2027-01-15, which is in force"):
            await knowledge(harness).replace(KnowledgeImport(older), "olga")
    with pytest.raises(KnowledgeError, match="it was issued on 2027-01-17, and today is 2027-01-15"):
        await knowledge(harness).replace(KnowledgeImport(file(6, issued=2), force=True), "olga")
    assert knowledge(harness).present.knowledge.version == 5
    await knowledge(harness).replace(KnowledgeImport(file(4), force=True), "olga")
    async with open_harness(tmp_path / "c.db", RULES) as again:
        assert knowledge(again).present.knowledge.version == 4


async def test_a_newer_cordon_brings_newer_knowledge(
    harness: ControllerHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.app.core.shipped_knowledge", lambda: file(9))
    async with open_harness(tmp_path / "c.db", RULES) as again:
        assert (knowledge(again).present.knowledge.version, knowledge(again).imported) == (9, None)
    assert knowledge(harness).imported is not None


async def test_an_import_that_would_contain_too_much_is_refused(tmp_path: Path) -> None:
    contains = policies(rule("supported", RuleResponse(contain=ContainmentLevel.RESTRICTED), check="os_supported"))
    limits = FleetGuards(BlastRadius(BlastRadiusLimits(2, 100.0, 600.0)))
    async with open_harness(tmp_path / "c.db", contains, guards=limits) as made:
        await knowledge(made).replace(KnowledgeImport(file(5)), "olga")
        await made.ingest.process_batch([incoming(f"edge-{n}", full(f"edge-{n}", 1)) for n in range(3)])
        with pytest.raises(PolicyTooBroadError, match=r"3 of 3 devices.*cordon knowledge import --force"):
            await knowledge(made).replace(KnowledgeImport(file(6, ends=-1)), "olga")
        assert knowledge(made).present.knowledge.version == 5
        await knowledge(made).replace(KnowledgeImport(file(6, ends=-1), force=True), "olga")
        assert knowledge(made).present.knowledge.version == 6


def signed(key: Ed25519PrivateKey, raw: bytes, over: bytes | None = None) -> KnowledgeImport:
    signature = key.sign(to_be_signed(PAYLOAD_TYPE, raw if over is None else over))
    return KnowledgeImport(raw, key_id(key.public_key()), base64.b64encode(signature).decode(), force=True)


def keys_of(*keys: Ed25519PrivateKey) -> dict[str, object]:
    texts = [public_key_text(one.public_key()) for one in keys]
    return {"policy": {"paths": ["/nowhere"], "knowledge_keys": texts}}


@pytest.mark.parametrize("is_signed", [True, False])
async def test_what_the_keys_of_now_do_not_cover_is_not_in_force(tmp_path: Path, is_signed: bool) -> None:
    stolen, fresh = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    async with open_harness(tmp_path / "c.db", RULES, settings=keys_of(stolen) if is_signed else None) as made:
        forged = file(10**12, ends=9000)
        await knowledge(made).replace(signed(stolen, forged) if is_signed else KnowledgeImport(forged), "thief")
    async with open_harness(tmp_path / "c.db", RULES, settings=keys_of(fresh)) as again:
        assert (knowledge(again).imported, knowledge(again).present.knowledge.version) == (None, 1)
        assert "knowledge_keys has other keys" in knowledge(again).unused
        assert any(fields.get("alert") for event, fields in again.logged if "stored knowledge" in event)
        genuine = replace(signed(fresh, file(2)), force=False)
        await knowledge(again).replace(genuine, "olga")
        assert knowledge(again).unused == ""
    async with open_harness(tmp_path / "c.db", RULES, settings=keys_of(fresh)) as third:
        assert knowledge(third).present.knowledge.version == 2


async def test_a_file_after_a_forced_one_stays_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.app.core.shipped_knowledge", lambda: file(5))
    async with open_harness(tmp_path / "c.db", RULES) as made:
        await knowledge(made).replace(KnowledgeImport(file(1), force=True), "olga")
        await knowledge(made).replace(KnowledgeImport(file(2)), "olga")
    async with open_harness(tmp_path / "c.db", RULES) as again:
        assert knowledge(again).present.knowledge.version == 2


async def test_where_keys_are_configured_one_of_them_has_to_sign(tmp_path: Path) -> None:
    ours, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

    async with open_harness(tmp_path / "c.db", RULES, settings=keys_of(ours)) as made:
        for refused, reason in (
            (KnowledgeImport(file(5), force=True), "it is not signed"),
            (signed(other, file(5)), "which is not among"),
            (signed(ours, file(5), file(6)), "its signature is not of this key and file"),
            (KnowledgeImport(file(5), key_id(ours.public_key()), "AAAA", force=True), "its signature is not"),
        ):
            with pytest.raises(KnowledgeError, match=reason):
                await knowledge(made).replace(refused, "olga")
        await knowledge(made).replace(signed(ours, file(5)), "olga")
        imported = knowledge(made).imported
        assert imported is not None
        assert imported.signed_by == key_id(ours.public_key())
    async with open_harness(tmp_path / "d.db", RULES) as without:
        with pytest.raises(KnowledgeError, match="is not among"):
            await knowledge(without).replace(signed(ours, file(5)), "olga")


async def test_knowledge_in_the_store_that_cannot_be_read_leaves_the_shipped_one_in_force(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db", RULES) as made:
        await knowledge(made).replace(KnowledgeImport(file(5)), "olga")
        await made.store.write(
            lambda connection: connection.execute(
                "UPDATE meta SET value = replace(value, 'support', 'x') WHERE key = 'knowledge'"
            )
        )
    async with open_harness(tmp_path / "c.db", RULES) as again:
        assert knowledge(again).imported is None
        assert any("stored knowledge cannot be used" in event for event, _ in again.logged)


async def test_the_api_shows_and_replaces_it(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db", RULES) as api:
        shown = await api.json("GET", "/api/v1/knowledge")
        assert (shown["origin"], shown["version"], shown["imported_at"]) == ("shipped", 1, None)
        found = await api.json("PUT", "/api/v1/knowledge", body={"file": file(5).decode()})
        assert (found["origin"], found["version"], found["imported_by"], found["signed_by"]) == (
            "imported",
            5,
            "operator:tests",
            "",
        )
        assert found["items"] == [
            {
                "kind": "os",
                "name": "debian",
                "version": "12",
                "ends": "2027-04-25",
                "source": "https://example.org",
                "verified": "2027-01-15",
                "good_until": "2027-02-14",
                "age_days": 0,
                "too_old": False,
                "rules": ["p/supported"],
            }
        ]
        assert await api.json("GET", "/api/v1/knowledge") == found
        refused = await api.json("PUT", "/api/v1/knowledge", 409, {"file": file(4).decode()})
        assert refused["error"]["code"] == "knowledge_refused"
        await api.json("PUT", "/api/v1/knowledge", 422, {"file": ""})
        await api.harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1))])
        explained = await api.json("GET", "/api/v1/devices/edge-1/explain")
        (fact,) = explained["items"][0]["facts"]
        assert (await api.json("GET", "/readyz", 503))["warnings"] == []
        api.harness.clock.at += 31 * DAY
        api.services.policies.knowledge.refresh()
        assert (await api.json("GET", "/readyz", 503))["warnings"] == [
            "1 entries of the knowledge that rules rest on are too old: import newer knowledge"
        ]
        assert fact["knowledge"] == [
            "debian 12: fixes until 2027-04-25 (verified 2027-01-15, good until 2027-02-14; https://example.org)"
        ]


PREVIEWED: Final = """
policy: q
version: 1
title: Tests
rules:
  - id: supported
    title: The release is supported
    check: os_supported
    severity: high
    on_fail: {contain: restricted}
"""


async def test_a_preview_judges_by_the_knowledge_and_names_the_entries(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db", policies(rule("other"))) as api:
        await api.services.policies.knowledge.replace(KnowledgeImport(file(5, ends=-1)), "olga")
        await api.harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1))])
        body = {"files": [{"source": "q.yaml", "text": PREVIEWED}]}
        response = await api.client.post("/api/v1/policies/preview", json=body)
        progress, last = map(json.loads, response.text.splitlines())
        assert [(one["device_id"], one["after"], one["causes"]) for one in progress["changes"]] == [
            ("edge-1", "restricted", ["q/supported"])
        ]
        assert last["knowledge"] == [
            "debian 12: fixes until 2027-01-14 (verified 2027-01-15, good until 2027-02-14; https://example.org)"
        ]


async def test_reloaded_policies_keep_the_knowledge(tmp_path: Path) -> None:
    async with open_api(tmp_path / "c.db", policies(rule("other"))) as api:
        await api.services.policies.knowledge.replace(KnowledgeImport(file(5, ends=-1)), "olga")
        await api.harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1))])
        api.reload.append(RULES)
        await api.json("POST", "/api/v1/policies/reload")
        assert api.harness.fleet.policies.knowledge.knowledge.version == 5
        assert await beat(api.harness, 2) == "fail"


async def test_a_reload_that_would_contain_too_much_by_the_knowledge_is_refused(tmp_path: Path) -> None:
    contains = policies(rule("supported", RuleResponse(contain=ContainmentLevel.RESTRICTED), check="os_supported"))
    limits = FleetGuards(BlastRadius(BlastRadiusLimits(2, 100.0, 600.0)))
    async with open_api(tmp_path / "c.db", policies(rule("other")), guards=limits) as api:
        await api.services.policies.knowledge.replace(KnowledgeImport(file(5, ends=-1)), "olga")
        await api.harness.ingest.process_batch([incoming(f"edge-{n}", full(f"edge-{n}", 1)) for n in range(3)])
        api.reload.append(PolicySet(contains.policies, "v2"))
        refused = await api.json("POST", "/api/v1/policies/reload", 409)
        assert refused["error"]["code"] == "policy_too_broad"
