"""Simulated devices and updates: each outcome says and reports what a real agent would."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.domain.rollout.model import InstalledVersion
from controller.service.rollout.observations import installed_version
from device_agent.domain.report import ReportSender, full_report
from device_agent.domain.report_limits import findings_of, fit
from device_agent.simulator import updates
from device_agent.simulator.postures import load
from device_agent.simulator.updates import SimulatedUpdateOutcome, UpdateStep, stages
from schemas.commands import Command, CommandState
from schemas.updates import InstallParams, RollbackParams, UpdatePhase, UpdateProgress

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
TARGET = "app/2.0/app.tar.gz"


def command(action: str = "update.install", **params: Any) -> Command:
    made = {"target": TARGET, "version": "2.0", "sha256": "a" * 64, "length": 10, "deadline": NOW}
    chosen = InstallParams.model_validate(made | params).params() if action == "update.install" else params
    return Command(
        command_id="c1", device_id="d1", action=action, params=chosen, issued_at=NOW, expires_at=NOW, counter=1
    )


def before() -> dict[str, Any]:
    return updates.software(load(None)[0], {"app": "1.0"})


def shown(posture: dict[str, Any]) -> InstalledVersion:
    """What the controller reads off the report of it."""
    return installed_version(full_report(ReportSender("d1", "boot", "1"), 1, NOW, fit(findings_of(posture))), "app")


def last(outcome: SimulatedUpdateOutcome) -> UpdateStep:
    return stages(command(), before(), outcome, NOW)[-1]


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
def test_how_it_ends(outcome: SimulatedUpdateOutcome, state: CommandState, phase: UpdatePhase, version: str) -> None:
    end = last(outcome)
    assert (end.state, end.phase) == (state, phase)
    progress = UpdateProgress.of(end.detail(command()))
    assert progress is not None
    assert (progress.phase, progress.name, progress.version) == (phase, "app", "2.0")
    assert shown(end.posture or before()).version == version


def test_a_good_one_is_shown_by_the_report() -> None:
    posture = last(SimulatedUpdateOutcome.GOOD).posture
    assert posture is not None
    found = shown(posture)
    assert (found.outcome, found.health, found.command_id) == ("confirmed", "ok", "c1")
    assert shown(updates.sick(posture, command())).health == "failed"


def test_it_goes_back_once() -> None:
    posture = last(SimulatedUpdateOutcome.GOOD).posture
    assert posture is not None
    order = command("update.rollback", **RollbackParams(name="app", version="2.0").params())
    back = stages(order, posture, SimulatedUpdateOutcome.GOOD, NOW)[-1]
    assert back.posture is not None
    assert shown(back.posture).version == "1.0"
    assert stages(order, back.posture, SimulatedUpdateOutcome.GOOD, NOW)[-1].posture is None
