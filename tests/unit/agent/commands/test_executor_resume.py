"""Commands that an agent was killed in, with actions that change files: the end is right after the next start."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from device_agent.actions.base import ActionError, Params, RemediationAction
from device_agent.actions.password import SetPasswordPolicy
from device_agent.commands.executor import CommandExecutor
from device_agent.commands.journal import Journal
from device_agent.domain.command_verifier import CommandVerifier
from device_agent.host.clock import Clock
from device_agent.host.system import System
from schemas.commands import Command, CommandResult, CommandState
from schemas.topics import UpChannel

PARAMS: dict[str, Any] = {"max_days": 90, "min_length": 14}
DEFS, QUALITY = "PASS_MAX_DAYS 99999\n", "minlen = 8\n"


class _Told:
    """A broker that confirms everything, or nothing."""

    def __init__(self, *, confirms: bool = True) -> None:
        self.results: list[CommandResult] = []
        self.ended = threading.Event()
        self.confirms = confirms

    def publish(self, channel: UpChannel, payload: bytes, confirmed: Any = None) -> bool:
        assert channel is UpChannel.RESULT
        result = CommandResult.model_validate_json(payload)
        self.results.append(result)
        if confirmed is not None and self.confirms:
            confirmed(True)
        if result.state.is_end:
            self.ended.set()
        return True


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/etc/security").mkdir(parents=True)
    (tmp_path / "root/etc/login.defs").write_text(DEFS)
    (tmp_path / "root/etc/security/pwquality.conf").write_text(QUALITY)
    return tmp_path / "root"


def _files(root: Path) -> tuple[str, str]:
    return (root / "etc/login.defs").read_text(), (root / "etc/security/pwquality.conf").read_text()


def _begun(folder: Path, was: Mapping[str, str]) -> None:
    """A state folder as a killed agent leaves it."""
    now = datetime.now(UTC)
    journal = Journal(folder)
    command = Command(
        command_id="c1",
        device_id="edge-1",
        action="password.policy",
        params=PARAMS,
        issued_at=now,
        expires_at=now + timedelta(minutes=5),
        counter=1,
    )
    journal.begin(command, now)
    journal.planned("c1", dict(was))
    journal.close()


def _resume(folder: Path, action: RemediationAction, told: _Told) -> CommandResult:
    """The end of the command after the next start."""
    journal = Journal(folder)
    guard = CommandVerifier.of("edge-1", [], [])
    commands = CommandExecutor(
        guard,
        {"password.policy": action},
        journal,
        told.publish,
        clock=Clock(),
        refused=lambda _reason: None,
        succeeded=lambda: None,
    )
    commands.start()
    assert told.ended.wait(20)
    commands.stop(5)
    assert journal.entry("c1") is not None
    assert [key for entry in journal.untold() for key in entry.was if key.startswith("_")] == []
    journal.close()
    return told.results[-1]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_killed_before_between_and_after_its_two_files(tmp_path: Path, root: Path, written: int) -> None:
    action = SetPasswordPolicy(System(root))
    was = action.plan(PARAMS).was
    for place, text in list(action.wanted(PARAMS).items())[:written]:
        (root / place.lstrip("/")).write_text(str(text))
    _begun(tmp_path / "state", was)
    end = _resume(tmp_path / "state", action, _Told())
    assert end.state is CommandState.SUCCEEDED
    assert end.reason == ("reached before the agent was interrupted" if written == 2 else "")
    assert end.detail["was"] == "PASS_MAX_DAYS 99999, PASS_MIN_LEN not set, minlen 8"
    assert end.detail["is"] == "PASS_MAX_DAYS 90, PASS_MIN_LEN 14, minlen 14"
    assert not [key for key in end.detail if key.startswith("_")]


class _Refused(SetPasswordPolicy):
    def apply(self, params: Params, was: Mapping[str, str]) -> None:
        super().apply(params, was)
        raise ActionError("the disk is full")


def test_what_fails_after_a_kill_goes_back_to_what_was_before_the_kill(tmp_path: Path, root: Path) -> None:
    action = _Refused(System(root))
    was = action.plan(PARAMS).was
    (root / "etc/login.defs").write_text(str(action.wanted(PARAMS)["/etc/login.defs"]))
    _begun(tmp_path / "state", was)
    end = _resume(tmp_path / "state", action, _Told())
    assert (end.state, end.reason) == (CommandState.FAILED, "the disk is full; put back as it was")
    assert _files(root) == (DEFS, QUALITY)


class _CutsOff(SetPasswordPolicy):
    kept = False

    def proof_seconds(self, params: Params, was: Mapping[str, str]) -> float:
        return 0.3

    def keep(self, params: Params, was: Mapping[str, str]) -> None:
        self.kept = True


@pytest.mark.parametrize("confirms", [True, False])
def test_what_may_cut_the_device_off_is_proven_after_a_kill_too(tmp_path: Path, root: Path, confirms: bool) -> None:
    action = _CutsOff(System(root))
    was = action.plan(PARAMS).was
    action.apply(PARAMS, was)
    after = _files(root)
    _begun(tmp_path / "state", was)
    end = _resume(tmp_path / "state", action, _Told(confirms=confirms))
    assert action.kept is confirms
    assert end.state is (CommandState.SUCCEEDED if confirms else CommandState.FAILED)
    assert _files(root) == (after if confirms else (DEFS, QUALITY))


def test_what_was_put_back_meanwhile_has_failed(tmp_path: Path, root: Path) -> None:
    class Late(_CutsOff):
        def keep(self, params: Params, was: Mapping[str, str]) -> None:
            raise ActionError("put back meanwhile")

    action = Late(System(root))
    was = action.plan(PARAMS).was
    action.apply(PARAMS, was)
    _begun(tmp_path / "state", was)
    end = _resume(tmp_path / "state", action, _Told())
    assert (end.state, end.reason) == (CommandState.FAILED, "put back meanwhile")
