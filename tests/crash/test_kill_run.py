"""The controller killed twenty times under load; `python -m tests.crash --kills N` does more."""

import random
from pathlib import Path

import pytest

from tests.crash.kill_run import open_siege

KILLS = 20
DEVICES = 30
SEED = 2026


@pytest.mark.timeout(240)
async def test_twenty_kills_harm_nothing(tmp_path: Path) -> None:
    """Receipts, decisions, releases and the record hold after each kill, and everything is done in the end."""
    print(f"seed {SEED}")
    async with open_siege(tmp_path, DEVICES, random.Random(SEED)) as siege:
        report = await siege.hold(KILLS)
    print(report)
    assert report.complaints == []
    assert report.kills == KILLS
    # A run in which nothing happened would show nothing.
    assert report.acts > 10 * KILLS
    assert report.lines > 10 * KILLS
