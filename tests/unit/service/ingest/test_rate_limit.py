"""Every device has its share: what is beyond is not read, and what nobody would send again is not lost."""

import json
from pathlib import Path

from controller.service.ingest.rate_limit import (
    ANSWER_BURST,
    MAX_DEFERRED,
    MESSAGE_BURST,
    RateLimit,
    RateLimiter,
    TokenBuckets,
)
from schemas.events import Status
from schemas.posture import digest_of
from schemas.topics import DownChannel, UpChannel, down
from tests.support import reports
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.reports import full, heartbeat, incoming


def status(state: str, boot_id: str = "b") -> bytes:
    return json.dumps({"v": 1, "state": state, "boot_id": boot_id}).encode()


def told(harness: ControllerHarness, device_id: str, verdict: str) -> int:
    topic = down(device_id, DownChannel.RECEIPT)
    return sum(json.loads(raw)["verdict"] == verdict for to, raw in harness.link.sent if to == topic)


def never(_device_id: str) -> bool:
    return False


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = TokenBuckets(10.0, 5)
    assert [buckets.take("a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert buckets.take("b", 0.0)
    assert [buckets.take("a", 0.1) for _ in range(2)] == [True, False]
    assert sum(buckets.take("a", 100.0) for _ in range(10)) == 5


def test_a_heavier_message_takes_more() -> None:
    buckets = TokenBuckets(10.0, 20)
    assert [buckets.take("a", 0.0, 10.0) for _ in range(3)] == [True, True, False]


def test_buckets_of_those_who_were_silent_are_forgotten_and_their_number_is_bounded() -> None:
    buckets = TokenBuckets(10.0, 5, most=100)
    for number in range(1000):
        assert buckets.take(f"slow-{number}", number * 0.1)
    assert len(buckets) <= 100
    for number in range(1000):
        assert buckets.take(f"quick-{number}", 1000.0)
    assert len(buckets) <= 100


def test_topics_too_long_to_be_valid_share_one_bucket() -> None:
    fairness = RateLimiter(RateLimit(10.0, 20))
    messages = [incoming(f"{number}" * 200, b"") for number in range(1, 10)] * 5
    read, over = fairness.admit(messages, 0.0, never)
    assert (len(read), len(over)) == (20, 25)


def test_the_last_status_beyond_the_share_waits_for_its_turn() -> None:
    fairness = RateLimiter(RateLimit(10.0, 20))
    messages = [incoming("edge-1", status("online", str(number)), UpChannel.STATUS) for number in range(50)]
    read, over = fairness.admit(messages, 0.0, never)
    assert (len(read), over) == (2, [])
    assert fairness.has_deferred_status
    read, _ = fairness.admit([], 0.05, never)
    assert not read
    read, _ = fairness.admit([], 5.0, never)
    assert read == [messages[-1]]
    assert not fairness.has_deferred_status


def test_a_later_status_replaces_the_one_that_waits() -> None:
    fairness = RateLimiter(RateLimit(10.0, 20))
    fairness.admit([incoming("edge-1", status("offline"), UpChannel.STATUS)] * 3, 0.0, never)
    assert fairness.has_deferred_status
    last = incoming("edge-1", status("online"), UpChannel.STATUS)
    assert fairness.admit([last], 0.05, never) == ([], [])
    assert fairness.admit([], 10.0, never) == ([last], [])


def test_what_waits_is_bounded() -> None:
    fairness = RateLimiter(RateLimit(1.0, 1))
    statuses = [incoming(f"edge-{number}", status("online"), UpChannel.STATUS) for number in range(MAX_DEFERRED + 7)]
    assert fairness.admit(statuses, 0.0, never) == (statuses, [])
    assert fairness.admit(statuses, 0.0, never) == ([], statuses[MAX_DEFERRED:])


def test_a_result_that_is_waited_for_is_always_read() -> None:
    fairness = RateLimiter(RateLimit(10.0, 20))
    messages = [incoming("edge-1", b"{}", UpChannel.RESULT)] * 30
    assert len(fairness.admit(messages, 0.0, lambda device_id: device_id == "edge-1")[0]) == 30
    assert len(fairness.admit(messages, 0.0, never)[0]) == 0


async def test_a_flood_of_good_reports_is_cut_at_the_share_and_goes_on_at_the_rate(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        flood = [incoming("noisy", full("noisy", seq, 22)) for seq in range(1, 400)]
        await harness.ingest.process_batch([*flood, incoming("quiet", full("quiet", 1, 22))])
        assert len(harness.link.acknowledged) == 400
        assert (told(harness, "noisy", "accepted"), told(harness, "quiet", "accepted")) == (MESSAGE_BURST, 1)
        assert harness.ingest.counts["refused:too_many"] == 299
        assert told(harness, "noisy", "rejected") == ANSWER_BURST
        assert harness.ingest.counts["unanswered"] == 299 - ANSWER_BURST
        assert len(await harness.store.dead_letters(device_id="noisy")) == ANSWER_BURST
        harness.clock.at += 1.0
        await harness.ingest.process_batch([incoming("noisy", full("noisy", seq, 22)) for seq in range(400, 500)])
        assert told(harness, "noisy", "accepted") == MESSAGE_BURST + 20
        assert told(harness, "noisy", "rejected") == ANSWER_BURST + 1


async def test_a_flood_of_bad_messages_is_answered_and_kept_within_bounds(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        for _ in range(20):
            harness.clock.at += 0.5
            await harness.ingest.process_batch(
                [incoming("noisy", b"{", channel) for channel in (UpChannel.EVENT, UpChannel.POSTURE) * 100]
            )
        assert told(harness, "noisy", "rejected") <= ANSWER_BURST + 10
        assert len(await harness.store.dead_letters(device_id="noisy")) <= ANSWER_BURST
        assert len(harness.link.acknowledged) == 4000
        assert harness.ingest.counts["received"] == 4000
        assert "noisy" not in devices_of(harness.fleet)


async def test_a_flood_of_reports_costs_the_device_neither_status_nor_result(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 23))])
        await harness.drain()
        (command,) = devices_of(harness.fleet)["edge-1"].commands
        flood = [incoming("edge-1", full("edge-1", seq, 23)) for seq in range(2, 400)]
        result = {"v": 1, "command_id": command.command_id, "state": "succeeded", "at": reports.SENT_AT}
        tail = [
            incoming("edge-1", Status(state="online").model_dump_json().encode(), UpChannel.STATUS),
            incoming("edge-1", json.dumps(result).encode(), UpChannel.RESULT),
        ]
        await harness.ingest.process_batch([*flood, *tail])
        assert devices_of(harness.fleet)["edge-1"].online is True
        assert command.command_id not in {one.command_id for one in devices_of(harness.fleet)["edge-1"].commands}


async def test_a_status_that_waited_is_taken_although_nothing_else_arrives(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await harness.ingest.process_batch([incoming("edge-1", full("edge-1", 1, 22))])
        flapping = [incoming("edge-1", status("online" if odd else "offline"), UpChannel.STATUS) for odd in (0, 1) * 50]
        await harness.ingest.process_batch([*flapping, incoming("edge-1", status("offline"), UpChannel.STATUS)])
        lines = len(await harness.audited("edge-1"))
        assert lines < 20
        harness.clock.at += 60.0
        await harness.ingest.process_batch(())
        assert devices_of(harness.fleet)["edge-1"].online is False


async def test_an_honest_backlog_after_an_outage_is_read_completely(tmp_path: Path) -> None:
    digest = digest_of(reports.sections(22))
    async with open_harness(tmp_path / "c.db") as harness:
        backlog = [incoming("edge-1", full("edge-1", seq, 22)) for seq in range(1, 17)]
        backlog += [incoming("edge-1", heartbeat("edge-1", seq, digest)) for seq in range(17, 80)]
        await harness.ingest.process_batch(backlog)
        assert harness.ingest.counts["refused:too_many"] == 0
        assert harness.ingest.counts["heartbeats"] == 63
