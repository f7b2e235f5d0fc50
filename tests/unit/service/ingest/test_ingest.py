"""From bytes to a committed decision, an acknowledgement and an answer."""

import json
from pathlib import Path

import pytest

from controller.domain.audit_kinds import AuditKind
from controller.domain.policy.event_rules import event_language
from controller.domain.policy.findings import Severity
from controller.domain.policy.model import ContainmentLevel, EventTerms, Policy, PolicyRule, PolicySet, RuleResponse
from schemas.posture import digest_of
from schemas.topics import DownChannel, UpChannel, down
from tests.support import reports
from tests.support.controller_harness import open_harness
from tests.support.fleet_devices import devices_of
from tests.support.receipts import receipts_sent
from tests.support.reports import full, heartbeat, incoming


async def test_a_report_is_kept_then_acknowledged_then_answered(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        message = incoming("edge-1", full("edge-1", 7, 22))
        await harness.ingest.process_batch([message])
        assert harness.link.acknowledged == [message]
        digest = digest_of(reports.sections(22))
        assert receipts_sent(harness, "edge-1") == [{"v": 1, "seq": 7, "verdict": "accepted", "digest": digest}]
    async with open_harness(tmp_path / "c.db") as harness:
        device = await harness.fleet.find("edge-1")
        assert device is not None
        assert (device.report_seq, device.digest) == (7, digest)
        assert await harness.store.report("edge-1") == message.payload


async def test_one_bad_message_harms_no_other_and_is_told_why(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        batch = [
            incoming("edge-1", b"{not json"),
            incoming("edge-2", full("edge-2", 1, 22)),
            incoming("edge-3", full("edge-4", 1, 22)),
        ]
        await harness.ingest.process_batch(batch)
        assert harness.link.acknowledged == batch
        assert receipts_sent(harness, "edge-1")[0]["reason"] == "malformed"
        assert receipts_sent(harness, "edge-2")[0]["verdict"] == "accepted"
        assert receipts_sent(harness, "edge-3")[0] == {
            "v": 1, "seq": 1, "verdict": "rejected", "digest": None, "reason": "wrong_device",
            "detail": "payload and topic name different devices",
        }  # fmt: skip
        assert set(devices_of(harness.fleet)) == {"edge-2"}
        letters = await harness.store.dead_letters()
        assert sorted(letter.reason for letter in letters) == ["malformed", "wrong_device"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"x" * 70_000, "payload_too_large"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 5000 + b"]" * 5000, "malformed"),
        (b"[1, 2]", "malformed"),
        (b'{"v": 2, "kind": "full", "device_id": "edge-1", "seq": 1}', "unsupported_version"),
        (b'{"v": true, "kind": "full"}', "unsupported_version"),
        (b'{"v": 1, "kind": "whole", "device_id": "edge-1", "seq": 1}', "unknown_kind"),
        (b'{"v": 1, "kind": "full", "device_id": "edge-1", "seq": NaN}', "invalid"),
        (b'{"v": 1, "kind": "full", "device_id": "edge-1", "seq": -1}', "invalid"),
        (full("edge-1", 1, 0), "invalid"),
        (full("edge-1", 1, boot_id="line\nbreak"), "invalid"),
    ],
)
async def test_what_is_wrong_has_a_word(tmp_path: Path, payload: bytes, reason: str) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", payload)])
        (answer,) = receipts_sent(harness, "edge-1")
        assert (answer["verdict"], answer["reason"]) == ("rejected", reason)
        assert harness.ingest.counts[f"refused:{reason}"] == 1


async def test_a_retained_report_is_no_news(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22), retain=True)])
        assert receipts_sent(harness, "edge-1")[0]["reason"] == "invalid"
        assert not devices_of(harness.fleet)


async def test_a_heartbeat_of_another_posture_asks_for_all_of_it(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        other = digest_of(reports.sections(80))
        await harness.ingest.process_batch([incoming("edge-1", heartbeat("edge-1", 3, other))])
        assert receipts_sent(harness, "edge-1") == [{"v": 1, "seq": 3, "verdict": "resend_full"}]
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 4, 80))])
        await harness.ingest.process_batch([incoming("edge-1", heartbeat("edge-1", 5, other))])
        assert [one["verdict"] for one in receipts_sent(harness, "edge-1")] == ["resend_full", "accepted"]


async def test_new_policies_judge_the_stored_report_at_the_next_heartbeat(tmp_path: Path) -> None:
    from tests.support.controller_harness import TELNET
    from tests.support.playbook import policies, rule

    lax = policies(rule("telnet", TELNET, check="!listening_ports.exists(p, p == 9)"))
    async with open_harness(tmp_path / "c.db", lax) as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        assert harness.level("edge-1") == ContainmentLevel.NONE
        strict = policies(rule("telnet", TELNET, check="!listening_ports.exists(p, p == 23)"))
        object.__setattr__(strict, "version", "v2")
        harness.fleet.set_policies(strict)
        digest = devices_of(harness.fleet)["edge-1"].digest
        await harness.ingest.process_batch([incoming("edge-1", heartbeat("edge-1", 2, digest))])
        assert harness.level("edge-1") == ContainmentLevel.RESTRICTED


async def test_violation_repair_and_release(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22, 23))])
        await harness.drain()
        assert harness.level("edge-1") == ContainmentLevel.RESTRICTED
        assert harness.broker.calls == ["grade edge-1", "restrict edge-1"]
        topic, envelope = harness.link.sent[-1]
        assert topic == down("edge-1", DownChannel.COMMAND)
        command = json.loads(envelope.removeprefix(b"signed:"))
        assert (command["action"], command["params"]) == ("service.disable", {"name": "telnetd"})
        done = {"v": 1, "command_id": command["command_id"], "state": "succeeded", "at": reports.SENT_AT}
        await harness.ingest.process_batch([incoming("edge-1", json.dumps(done).encode(), UpChannel.RESULT)])
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 22))])
        await harness.drain()
        assert harness.level("edge-1") == ContainmentLevel.NONE
        assert harness.broker.calls[-1] == "release edge-1"
        assert await harness.audited("edge-1") == [
            AuditKind.REPORT_FIRST_ACCEPTED,
            AuditKind.REPORT_POSTURE_CHANGED,
            AuditKind.CONTAINMENT_DECIDED,
            AuditKind.COMMAND_ISSUED,
            AuditKind.CONTAINMENT_PROVEN,
            AuditKind.COMMAND_SENT,
            AuditKind.COMMAND_SUCCEEDED,
            AuditKind.REPORT_POSTURE_CHANGED,
            AuditKind.CONTAINMENT_RELEASE_DECIDED,
            AuditKind.CONTAINMENT_RELEASE_PROVEN,
        ]


async def test_the_fleet_is_bounded(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.fleet._max_devices = 1
        await harness.ingest.process_batch([incoming(name, full(name, 1, 22)) for name in ("edge-1", "edge-2")])
        assert receipts_sent(harness, "edge-2")[0]["reason"] == "too_many"
        assert set(devices_of(harness.fleet)) == {"edge-1"}


async def test_receipts_that_cannot_be_sent_are_counted(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        harness.link.takes = False
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        assert harness.ingest.counts["receipts_not_sent"] == 1


async def test_the_same_report_again_counts_again_without_being_read_again(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        for seq in (1, 2, 3):
            await harness.ingest.process_batch([incoming("edge-1", full("edge-1", seq, 23))])
        device = devices_of(harness.fleet)["edge-1"]
        assert (device.report_seq, device.rules["p/telnet"].streak, device.satisfied) == (3, 3, 1)
        assert [one["seq"] for one in receipts_sent(harness, "edge-1")] == [1, 2, 3]


async def test_two_reports_in_one_batch_are_each_judged_for_what_they_say(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        await harness.ingest.process_batch(
            [incoming("edge-1", full("edge-1", 2, 22, 23)), incoming("edge-1", full("edge-1", 3, 22))]
        )
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 4, 22, 23))])
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        assert "p/telnet" in devices_of(harness.fleet)["edge-1"].rules


async def test_labels_are_facts_too(tmp_path: Path) -> None:
    from controller.domain.events import DeviceLabelled
    from controller.domain.policy.model import RuleResponse
    from tests.support.playbook import policies, rule

    lab = rule("no-lab", RuleResponse(contain=ContainmentLevel.RESTRICTED), check='device.class != "lab"')
    async with open_harness(tmp_path / "c.db", policies(lab)) as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        await harness.fleet.apply_and_commit("edge-1", DeviceLabelled(harness.fleet.new_id(), "lab", (), "op"))
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 2, 22))])
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED


async def test_a_refused_event_is_told_as_such(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", b"{}", UpChannel.EVENT), incoming("edge-1", b"{}")])
        event, report = receipts_sent(harness, "edge-1")
        assert (event["about"], event["reason"]) == ("event", "unsupported_version")
        assert "about" not in report


async def test_an_event_is_judged_and_contains_over_a_restart(tmp_path: Path) -> None:
    attack = {"v": 1, "device_id": "edge-1", "kind": "intrusion.snort", "severity": "critical", "at": reports.SENT_AT}
    async with open_harness(tmp_path / "c.db") as harness:
        harness.fleet.set_policies(with_events(harness.fleet.policies))
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        await harness.ingest.process_batch([incoming("edge-1", json.dumps(attack).encode(), UpChannel.EVENT)])
        await harness.drain()
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        assert harness.broker.calls[-1].startswith("restrict edge-1")
    async with open_harness(tmp_path / "c.db") as harness:
        device = devices_of(harness.fleet)["edge-1"]
        assert device.rules["p/attack"].until == device.rules["p/attack"].since + 3600


def with_events(policies: PolicySet) -> PolicySet:
    """These and a rule about attacks."""
    when = event_language().compile('event.monitor != "" && event.rank >= 4')
    rule = PolicyRule(
        "p/attack", "t", when, Severity.HIGH, response=RuleResponse(ContainmentLevel.RESTRICTED), event=EventTerms()
    )
    return PolicySet((*policies.policies, Policy("e", 1, "t", (), events=(rule,))), "v2")
