"""The controller killed twenty times under load; `python -m tests.crash --kills N` does more."""

import random
from pathlib import Path

import pytest

from tests.crash.kill_run import open_kill_run

KILLS = 20
DEVICES = 30
SEED = 2026


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_invariants_hold_through_twenty_kills(tmp_path: Path) -> None:
    """Receipts, decisions, releases and the audit log hold after each kill, and nothing is left undone at the end."""
    print(f"seed {SEED}")
    async with open_kill_run(tmp_path, DEVICES, random.Random(SEED)) as run:
        report = await run.run(KILLS)
    print(report)
    assert report.problems == []
    assert report.kills == KILLS
    # A run without actions would show nothing.
    assert report.actions > 10 * KILLS
    assert report.lines > 10 * KILLS
