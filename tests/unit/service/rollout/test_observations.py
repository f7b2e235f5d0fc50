"""What rollouts look up: targets in the repository, updates in reports, progress in commands."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.domain.effects import CommandRecord
from controller.ports.rollouts import TargetError
from controller.ports.updates import NoRepositoryError, PublishedUpdate
from controller.service.rollout.observations import PublishedTargets, command_progress, installed_version, pick
from schemas.commands import WRONG_CLOCK
from tests.support.reports import full
from tests.support.rollouts import software
from tests.support.updates import Repository, archive, repository


def published(tmp_path: Path) -> Repository:
    made = repository(tmp_path)
    made.publish("app", "1.0", archive({"VERSION": "1"}))
    made.publish("app", "2.0", archive({"VERSION": "2"}), health={"command": ["check.sh"]})
    made.publish("other", "1.0", archive({"VERSION": "1"}), classes=["gateway"], hardware=["rpi4"])
    return made


class Given:
    """A repository that lists these, or raises."""

    def __init__(self, found: tuple[PublishedUpdate, ...] | None) -> None:
        self._found = found

    def published(self) -> tuple[PublishedUpdate, ...]:
        """What it was given."""
        if self._found is None:
            raise NoRepositoryError("there is none here")
        return self._found

    def root(self) -> Any:
        """Not looked at."""
        raise NotImplementedError

    def roles(self) -> Any:
        """Not looked at."""
        raise NotImplementedError

    def refresh(self, now: float) -> Any:
        """Not looked at."""
        raise NotImplementedError(now)


async def test_a_target_by_name_and_version(tmp_path: Path) -> None:
    from controller.adapters.tuf_repository.repository import TufUpdateRepository

    made = published(tmp_path)
    targets = PublishedTargets(TufUpdateRepository(made.folder.base))
    found = await targets.find("app/2.0")
    assert (found.name, found.version, found.has_health_check, found.installer) == ("app", "2.0", True, "fileset")
    assert await targets.find(found.path) == found
    other = await targets.find("other")
    assert (other.classes, other.hardware, other.has_health_check) == (("gateway",), ("rpi4",), False)
    with pytest.raises(TargetError, match="means 2 targets"):
        await targets.find("app")
    with pytest.raises(TargetError, match="not published"):
        await targets.find("app/3.0")


async def test_without_a_repository() -> None:
    with pytest.raises(TargetError, match="no repository"):
        await PublishedTargets(None).find("app/1.0")
    with pytest.raises(TargetError, match="none here"):
        await PublishedTargets(Given(None)).find("app/1.0")
    with pytest.raises(TargetError, match="not published"):
        pick((), "app/1.0")


@pytest.mark.parametrize(
    "report",
    [
        None,
        b"",
        b"[]",
        b'{"sections": 3}',
        full("d1", 1),
        full("d1", 1, software={"state": "unknown", "reason": "no updater"}),
        full("d1", 1, software={**software(""), "truncated": 3}),
        full("d1", 1, software={"state": "ok", "entries": [{"name": 3}]}),
    ],
)
def test_what_is_not_told_is_not_known(report: bytes | None) -> None:
    assert not installed_version(report, "app").is_known


def test_what_a_report_shows() -> None:
    assert installed_version(full("d1", 1, software=software("")), "app").is_known
    found = installed_version(full("d1", 1, software=software("2.0", command_id="c1")), "app")
    assert (found.version, found.health, found.outcome, found.command_id) == ("2.0", "ok", "confirmed", "c1")


def record(**detail: str) -> CommandRecord:
    return CommandRecord(
        "c1", "d1", "update.install", (), "executing", "why", tuple(detail.items()), "rollout:r-1", "", False, 0, 0, 0
    )  # fmt: skip


def test_command_that_was_not_begun_tells_of_the_clock() -> None:
    assert command_progress(record(**WRONG_CLOCK)).reason_code == "clock"
    assert command_progress(record()).reason_code == ""


@pytest.mark.parametrize(("at", "code"), [(0.0, "clock"), (500.0, "clock"), (550.0, "deadline"), (700.0, "deadline")])
def test_deadline_that_has_not_passed_for_the_controller_tells_of_the_clock(at: float, code: str) -> None:
    failed = replace(
        record(phase="failed", reason_code="deadline"),
        state="failed",
        params=(("deadline", "1970-01-01T00:10:00+00:00"),),
        updated_at=at,
    )
    assert command_progress(failed).reason_code == code
    assert command_progress(replace(failed, params=(("deadline", "never"),))).reason_code == "deadline"
    assert command_progress(replace(failed, params=())).reason_code == "deadline"


def test_what_a_command_tells() -> None:
    progress = command_progress(record(phase="downloading", percent="40", before="1.0"))
    assert (progress.phase, progress.percent, progress.previous_version, progress.reason) == (
        "downloading",
        40,
        "1.0",
        "why",
    )
    assert command_progress(record(phase="a word of tomorrow")).phase == "unknown"
    assert command_progress(record(else_="x")).phase == ""
    assert json.loads(json.dumps(progress.state)) == "executing"
