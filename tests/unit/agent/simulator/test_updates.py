"""Simulated updates: results and reports of each outcome are those of a real agent."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.domain.rollout.model import InstalledVersion
from controller.service.rollout.observations import installed_version
from device_agent.domain.report import ReportSender, full_report
from device_agent.domain.report_limits import normalise_findings, truncate_to_size
from device_agent.simulator import updates
from device_agent.simulator.postures import load
from device_agent.simulator.updates import SimulatedUpdateOutcome, UpdateStep, update_steps
from schemas.commands import Command, CommandState
from schemas.updates import InstallParams, RollbackParams, UpdatePhase, UpdateProgress

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
TARGET = "app/2.0/app.tar.gz"


def command(action: str = "update.install", **params: Any) -> Command:
    if action == "update.install":
        defaults = {"target": TARGET, "version": "2.0", "sha256": "a" * 64, "length": 10, "deadline": NOW}
        params = InstallParams.model_validate(defaults | params).params()
    return Command(
        command_id="c1", device_id="d1", action=action, params=params, issued_at=NOW, expires_at=NOW, counter=1
    )


def posture_before() -> dict[str, Any]:
    return updates.software(load(None)[0], {"app": "1.0"})


def reported(posture: dict[str, Any]) -> InstalledVersion:
    """Returns the version that the controller reads from a report of the posture."""
    return installed_version(
        full_report(ReportSender("d1", "boot", "1"), 1, NOW, truncate_to_size(normalise_findings(posture))), "app"
    )


def last_step(outcome: SimulatedUpdateOutcome) -> UpdateStep:
    return update_steps(command(), posture_before(), outcome, NOW)[-1]


@pytest.mark.parametrize(
    ("outcome", "state", "phase", "version"),
    [
        (SimulatedUpdateOutcome.GOOD, CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, "2.0"),
        (SimulatedUpdateOutcome.UNHEALTHY, CommandState.FAILED, UpdatePhase.ROLLED_BACK, "1.0"),
        (SimulatedUpdateOutcome.REFUSED, CommandState.FAILED, UpdatePhase.REFUSED, "1.0"),
        (SimulatedUpdateOutcome.BROKEN, CommandState.FAILED, UpdatePhase.BROKEN, "2.0"),
        (SimulatedUpdateOutcome.DECLINED, CommandState.FAILED, UpdatePhase.DECLINED, "1.0"),
        (SimulatedUpdateOutcome.SILENT, CommandState.EXECUTING, UpdatePhase.DOWNLOADING, "1.0"),
        (SimulatedUpdateOutcome.LIES, CommandState.SUCCEEDED, UpdatePhase.CONFIRMED, "1.0"),
    ],
)
def test_each_outcome_ends_in_its_state_phase_and_version(
    outcome: SimulatedUpdateOutcome, state: CommandState, phase: UpdatePhase, version: str
) -> None:
    end = last_step(outcome)
    assert (end.state, end.phase) == (state, phase)
    progress = UpdateProgress.from_detail(end.detail(command()))
    assert progress is not None
    assert (progress.phase, progress.name, progress.version) == (phase, "app", "2.0")
    assert reported(end.posture or posture_before()).version == version


def test_the_report_confirms_a_good_update() -> None:
    posture = last_step(SimulatedUpdateOutcome.GOOD).posture
    assert posture is not None
    installed = reported(posture)
    assert (installed.outcome, installed.health, installed.command_id) == ("confirmed", "ok", "c1")
    assert reported(updates.unhealthy_posture(posture, command())).health == "failed"


def test_a_second_rollback_changes_nothing() -> None:
    posture = last_step(SimulatedUpdateOutcome.GOOD).posture
    assert posture is not None
    rollback = command("update.rollback", **RollbackParams(name="app", version="2.0").params())
    end = update_steps(rollback, posture, SimulatedUpdateOutcome.GOOD, NOW)[-1]
    assert end.posture is not None
    assert reported(end.posture).version == "1.0"
    assert update_steps(rollback, end.posture, SimulatedUpdateOutcome.GOOD, NOW)[-1].posture is None
