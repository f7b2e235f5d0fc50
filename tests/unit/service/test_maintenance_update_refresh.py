"""The timer that keeps updates valid: what it signs, and that its failure can be seen."""

from collections.abc import Mapping
from pathlib import Path

from controller.adapters.tuf_repository.repository import TufUpdateRepository
from controller.service.maintenance import MetadataRefresher
from tests.support.clocks import ManualClock
from tests.support.updates import repository


async def test_trouble_is_told_once_and_goes_away(tmp_path: Path) -> None:
    made = repository(tmp_path)
    clock = ManualClock(made.at.timestamp() + 20 * 3600)
    told: list[tuple[str, Mapping[str, object]]] = []
    timer = MetadataRefresher(TufUpdateRepository(made.folder.base), clock, 600.0, lambda *one: told.append(one))
    key = made.folder.online / "timestamp.pem"
    key.rename(tmp_path / "away")
    await timer.run_once()
    await timer.run_once()
    assert "timestamp.pem" in timer.trouble
    assert [text for text, _ in told] == ["metadata of updates cannot be renewed"]
    (tmp_path / "away").rename(key)
    await timer.run_once()
    assert timer.trouble == ""
    assert [text for text, _ in told][1:] == ["metadata of updates is renewed again", "metadata of updates signed"]
    clock.at += 160 * 86_400
    await timer.run_once()
    assert any("targets ends" in text for text in timer.warnings)
