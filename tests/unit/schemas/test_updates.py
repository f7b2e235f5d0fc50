"""The wire contract of updates: signed metadata of targets, command parameters, progress, and the report's section."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.commands import Command
from schemas.posture import ReportSections
from schemas.sections.installed import SoftwareSection
from schemas.updates import (
    INSTALL,
    InstallParams,
    RollbackParams,
    UpdateKind,
    UpdatePhase,
    UpdateProgress,
    UpdateTarget,
    parse_requirement,
    target_path,
)

TARGET: dict[str, Any] = {
    "name": "edge-app",
    "version": "1.4.0",
    "kind": "file",
    "installer": "fileset",
    "classes": ["gateway"],
    "requires": [{"what": "free_mib", "op": ">=", "value": "200"}],
    "health": {"command": ["bin/check"], "seconds": 30},
}
PARAMS: dict[str, Any] = {
    "target": "edge-app/1.4.0/edge-app.tar.gz",
    "version": "1.4.0",
    "sha256": "5f" * 32,
    "length": 48_213,
    "deadline": "2026-11-23T12:00:00Z",
}


def test_a_target_is_unchanged_by_serialisation() -> None:
    target = UpdateTarget.model_validate(TARGET)
    assert UpdateTarget.model_validate(target.model_dump(mode="json")) == target
    assert target.is_for("gateway", ())
    assert not target.is_for("", ())


@pytest.mark.parametrize(
    ("classes", "hardware", "device", "fits"),
    [
        (["*"], [], ("", ()), True),
        (["*"], ["rpi4"], ("gateway", ("rpi3", "rpi4")), True),
        (["*"], ["rpi4"], ("gateway", ("rpi3",)), False),
        (["*"], ["rpi4"], ("gateway", ()), False),
        (["lab"], [], ("gateway", ()), False),
    ],
)
def test_a_target_is_for_devices_of_its_classes_and_hardware(
    classes: list[str], hardware: list[str], device: tuple[str, tuple[str, ...]], fits: bool
) -> None:
    target = UpdateTarget.model_validate({**TARGET, "classes": classes, "hardware": hardware})
    assert target.is_for(*device) is fits


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"classes": []}, "at least 1"),
        ({"installer": "apt"}, "not by apt"),
        ({"restart": "service"}, "belong together"),
        ({"name": "../x"}, "pattern"),
        ({"surprise": 1}, "Extra inputs"),
        ({"health": {"http": "http://elsewhere/"}}, "pattern"),
        ({"requires": [{"what": "moon", "op": ">=", "value": "1"}]}, "pattern"),
    ],
)
def test_invalid_targets_are_rejected(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        UpdateTarget.model_validate({**TARGET, **change})


def test_parameters_are_unchanged_by_a_command() -> None:
    install = InstallParams.model_validate(PARAMS)
    command = Command.model_validate(
        {
            "command_id": "c1",
            "device_id": "edge-17",
            "action": INSTALL,
            "params": install.params(),
            "issued_at": "2026-11-23T10:00:00Z",
            "expires_at": "2026-11-23T12:00:00Z",
            "counter": 1,
        }
    )
    parsed = Command.model_validate_json(command.model_dump_json())
    assert InstallParams.model_validate(parsed.params) == install
    assert install.name == "edge-app"
    rollback = RollbackParams(name="edge-app", version="1.4.0")
    assert RollbackParams.model_validate(rollback.params()) == rollback


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.5.0"},
        {"target": "edge-app/../x"},
        {"target": "edge-app/1.4.0"},
        {"target": "/edge-app/1.4.0/x"},
        {"sha256": "sha256:00"},
        {"length": -1},
        {"deadline": "2026-11-23T12:00:00"},
    ],
)
def test_inexact_parameters_are_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InstallParams.model_validate({**PARAMS, **change})


def test_progress_is_sent_as_text_values() -> None:
    progress = UpdateProgress(phase=UpdatePhase.DOWNLOADING, name="edge-app", version="1.4.0", percent=40)
    detail = progress.detail()
    assert detail == {
        "phase": "downloading",
        "name": "edge-app",
        "version": "1.4.0",
        "percent": "40",
    }
    assert UpdateProgress.from_detail(detail) == progress
    assert UpdateProgress.from_detail({"was": "enabled"}) is None
    newer = UpdateProgress.from_detail({"phase": "teleported"})
    assert newer is not None
    assert newer.phase is UpdatePhase.UNKNOWN
    assert not newer.phase.is_end
    assert UpdatePhase.ROLLED_BACK.is_end


@pytest.mark.parametrize(
    ("text", "what", "op", "value"),
    [
        ("free_mib>=200", "free_mib", ">=", "200"),
        ("os=debian", "os", "==", "debian"),
        ("installed:edge-app < 2.0", "installed:edge-app", "<", "2.0"),
    ],
)
def test_requirements_are_parsed(text: str, what: str, op: str, value: str) -> None:
    requirement = parse_requirement(text)
    assert (requirement.what, requirement.op, requirement.value) == (what, op, value)
    assert parse_requirement(str(requirement)) == requirement


@pytest.mark.parametrize("text", ["", "free_mib", "free_mib>>2", "moon==full", "os==$(x)"])
def test_invalid_requirements_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"requirement|unknown property"):
        parse_requirement(text)


@pytest.mark.parametrize(
    "text", ["os>=debian", "machine<x86_64", "os_version>=12~rc1", "os_version<15-SP5", "agent>=1.0rc1", "free_mib>=2G"]
)
def test_a_requirement_that_nothing_orders_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="no order is defined"):
        parse_requirement(text)
    assert parse_requirement(text.replace(">=", "==").replace("<", "=="))


def test_target_paths_are_built_and_validated() -> None:
    assert target_path("edge-app", "1.4.0", "a.tar.gz") == "edge-app/1.4.0/a.tar.gz"
    for name, version, file in (("edge-app", "1.4.0", ".."), ("Edge", "1", "a"), ("a", "../1", "a")):
        with pytest.raises(ValueError, match=r"letters|pattern"):
            target_path(name, version, file)


def test_the_section_of_a_report_accepts_unknown_phases() -> None:
    entry = {"name": "edge-app", "version": "1.4.0", "kind": UpdateKind.FILE, "health": "ok", "outcome": "confirmed"}
    software = {"state": "ok", "entries": [{**entry, "outcome": "improved"}]}
    sections = ReportSections.model_validate({"software": software})
    assert isinstance(sections.software, SoftwareSection)
    assert sections.software.entries[0].outcome is UpdatePhase.UNKNOWN
    missing = ReportSections.model_validate(
        {"software": {"state": "notapplicable", "reason": "updates are not set up"}}
    )
    assert missing.software is not None
    assert missing.software.state == "notapplicable"
