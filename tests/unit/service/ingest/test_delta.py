"""Reports that say only what changed: the whole is stored and judged, and asked for where it cannot be made."""

import json
from pathlib import Path
from typing import Any

import pytest

from controller.domain.policy.model import ContainmentLevel
from controller.service.ingest.delta import merge
from schemas.base import MAX_POSTURE_BYTES
from schemas.posture import DeltaReport, FullReport, digest_of
from tests.support import reports
from tests.support.controller_harness import ControllerHarness, open_harness
from tests.support.fleet_devices import devices_of
from tests.support.receipts import receipts_sent, verdicts
from tests.support.reports import delta, full, heartbeat

OLD, NEW = reports.sections(22), reports.sections(22, 23)


async def _take(harness: ControllerHarness, *payloads: bytes) -> list[str]:
    """The verdicts on these messages, taken as one batch."""
    return [verdict for verdict, _ in await verdicts(harness, *payloads)]


async def test_the_whole_is_kept_and_judged(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        assert await _take(harness, full("edge-1", 1, 22)) == ["accepted"]
        assert await _take(harness, delta(2, OLD, NEW)) == ["accepted"]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED
        stored = await harness.store.report("edge-1")
        assert stored is not None
        report = FullReport.model_validate_json(stored)
        assert (report.kind, report.seq, report.digest) == ("full", 2, digest_of(NEW))
        assert json.loads(stored)["sections"] == NEW
        assert harness.ingest.counts["deltas"] == 1
        assert await _take(harness, heartbeat("edge-1", 3, digest_of(NEW)), delta(4, NEW, OLD)) == ["accepted"]
        assert devices_of(harness.fleet)["edge-1"].digest == digest_of(OLD)


async def test_a_delta_in_the_batch_of_its_base(tmp_path: Path) -> None:
    third = reports.sections(80)
    async with open_harness(tmp_path / "c.db") as harness:
        batch = (full("edge-1", 1, 22), delta(2, OLD, NEW), delta(3, NEW, third))
        assert await _take(harness, *batch) == ["accepted"] * 3
        stored = await harness.store.report("edge-1")
        assert stored is not None
        assert json.loads(stored)["sections"] == third


async def test_another_base_is_not_guessed_at(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        assert await _take(harness, delta(1, OLD, NEW)) == ["resend_full"]
        await _take(harness, full("edge-1", 2, 80))
        before = await harness.store.report("edge-1")
        assert await _take(harness, delta(3, OLD, NEW)) == ["resend_full"]
        assert await harness.store.report("edge-1") == before
        assert await _take(harness, full("edge-1", 4, 22, 23)) == ["accepted"]


async def test_one_that_comes_twice_is_taken_once_and_an_older_one_is_refused(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await _take(harness, full("edge-1", 1, 22), delta(2, OLD, NEW))
        streak = devices_of(harness.fleet)["edge-1"].rules["p/telnet"].streak
        assert await _take(harness, delta(2, OLD, NEW)) == ["accepted"]
        assert devices_of(harness.fleet)["edge-1"].rules["p/telnet"].streak == streak
        await _take(harness, full("edge-1", 5, 22))
        assert await _take(harness, delta(4, OLD, NEW)) == ["rejected"]
        assert receipts_sent(harness, "edge-1")[-1]["reason"] == "stale_sequence"


async def test_after_a_restart_of_the_controller(tmp_path: Path) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await _take(harness, full("edge-1", 1, 22))
    async with open_harness(tmp_path / "c.db") as harness:
        assert await _take(harness, delta(2, OLD, NEW)) == ["accepted"]
        assert harness.level("edge-1") is ContainmentLevel.RESTRICTED


@pytest.mark.parametrize(
    "more",
    [{"base": None}, {"base": "sha256:x"}, {"base": digest_of(NEW)}, {"sections": {"os": 7}}, {"sections": None}],
)
async def test_what_is_no_delta_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    async with open_harness(tmp_path / "c.db") as harness:
        await _take(harness, full("edge-1", 1, 22))
        assert await _take(harness, delta(2, OLD, NEW, **more)) == ["rejected"]
        assert receipts_sent(harness, "edge-1")[-1]["reason"] == "invalid"


def test_what_cannot_be_merged_is_asked_for() -> None:
    payload = delta(2, OLD, NEW)
    parsed = DeltaReport.model_validate_json(payload)
    stored = full("edge-1", 1, 22)
    assert merge(stored, payload, parsed) is not None
    for damaged in (b"", b"[]", b"{", stored.replace(b'"sections"', b'"parts"'), full("edge-1", 1, 80)):
        assert merge(damaged, payload, parsed) is None
    filled = json.loads(stored) | {"padding": "x", "sections": {**OLD, "later": "y" * MAX_POSTURE_BYTES}}
    assert merge(json.dumps(filled).encode(), payload, parsed) is None


def test_what_a_newer_agent_said_survives() -> None:
    stored = json.loads(full("edge-1", 1, 22))
    stored["sections"]["later"] = {"state": "ok", "new": [1]}
    payload = delta(2, OLD, NEW, later_too=1)
    merged = merge(json.dumps(stored).encode(), payload, DeltaReport.model_validate_json(payload))
    assert merged is not None
    assert json.loads(merged)["sections"]["later"] == {"state": "ok", "new": [1]}
    assert json.loads(merged)["later_too"] == 1
