"""Commands during which the agent was killed: the result after the next start."""

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


class _Broker:
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


def _write_journal(folder: Path, before: Mapping[str, str]) -> None:
    """Writes a state folder as a killed agent leaves it."""
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
    journal.record_accepted(command, frozenset(["0000000000000000"]), now)
    journal.record_before("c1", dict(before))
    journal.close()


def _resume(folder: Path, action: RemediationAction, broker: _Broker) -> CommandResult:
    """Returns the result of the command after the next start."""
    journal = Journal(folder)
    verifier = CommandVerifier.from_keys("edge-1", [], [])
    commands = CommandExecutor(
        verifier,
        {"password.policy": action},
        journal,
        broker.publish,
        clock=Clock(),
        on_forged=lambda _reason: None,
        on_changed=lambda: None,
    )
    commands.start()
    assert broker.ended.wait(20)
    commands.stop(5)
    assert journal.entry("c1") is not None
    assert [key for entry in journal.unconfirmed_results() for key in entry.before if key.startswith("_")] == []
    journal.close()
    return broker.results[-1]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_kill_before_between_and_after_two_file_changes(tmp_path: Path, root: Path, written: int) -> None:
    action = SetPasswordPolicy(System(root))
    before = action.plan(PARAMS).before
    for path, text in list(action.desired_files(PARAMS).items())[:written]:
        (root / path.lstrip("/")).write_text(str(text))
    _write_journal(tmp_path / "state", before)
    result = _resume(tmp_path / "state", action, _Broker())
    assert result.state is CommandState.SUCCEEDED
    assert result.reason == ("reached before the agent was interrupted" if written == 2 else "")
    assert result.detail["was"] == "PASS_MAX_DAYS 99999, PASS_MIN_LEN not set, minlen 8"
    assert result.detail["is"] == "PASS_MAX_DAYS 90, PASS_MIN_LEN 14, minlen 14"
    assert not [key for key in result.detail if key.startswith("_")]


class _Refused(SetPasswordPolicy):
    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        super().apply(params, before)
        raise ActionError("the disk is full")


def test_a_failure_after_a_kill_restores_the_state_before_the_kill(tmp_path: Path, root: Path) -> None:
    action = _Refused(System(root))
    before = action.plan(PARAMS).before
    (root / "etc/login.defs").write_text(str(action.desired_files(PARAMS)["/etc/login.defs"]))
    _write_journal(tmp_path / "state", before)
    result = _resume(tmp_path / "state", action, _Broker())
    assert (result.state, result.reason) == (CommandState.FAILED, "the disk is full; put back as it was")
    assert _files(root) == (DEFS, QUALITY)


class _ConnectivityChecked(SetPasswordPolicy):
    committed = False

    def broker_timeout_seconds(self, params: Params, before: Mapping[str, str]) -> float:
        return 0.3

    def commit(self, params: Params, before: Mapping[str, str]) -> None:
        self.committed = True


@pytest.mark.parametrize("confirms", [True, False])
def test_reaching_the_broker_is_checked_after_a_kill_too(tmp_path: Path, root: Path, confirms: bool) -> None:
    action = _ConnectivityChecked(System(root))
    before = action.plan(PARAMS).before
    action.apply(PARAMS, before)
    after = _files(root)
    _write_journal(tmp_path / "state", before)
    result = _resume(tmp_path / "state", action, _Broker(confirms=confirms))
    assert action.committed is confirms
    assert result.state is (CommandState.SUCCEEDED if confirms else CommandState.FAILED)
    assert _files(root) == (after if confirms else (DEFS, QUALITY))


def test_a_change_that_was_undone_meanwhile_has_failed(tmp_path: Path, root: Path) -> None:
    class UndoneMeanwhile(_ConnectivityChecked):
        def commit(self, params: Params, before: Mapping[str, str]) -> None:
            raise ActionError("put back meanwhile")

    action = UndoneMeanwhile(System(root))
    before = action.plan(PARAMS).before
    action.apply(PARAMS, before)
    _write_journal(tmp_path / "state", before)
    result = _resume(tmp_path / "state", action, _Broker())
    assert (result.state, result.reason) == (CommandState.FAILED, "put back meanwhile")
