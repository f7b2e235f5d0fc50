"""Commands while the state folder is full: refused, or their results told; none runs twice."""

import errno
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.actions.base import ActionPlan, Params, Verification
from device_agent.commands.executor import CommandExecutor
from device_agent.commands.journal import Journal
from device_agent.domain.command_verifier import CommandVerifier
from device_agent.errors import AgentError, ExitCode, JournalError
from device_agent.host import files
from device_agent.host.clock import Clock
from device_agent.host.system import System
from device_agent.main import main
from device_agent.runtime import run
from device_agent.settings import Settings
from schemas.commands import COMMAND_PAYLOAD_TYPE, Command, CommandResult, CommandState
from schemas.signing import sign
from schemas.topics import UpChannel
from tests.support.waiting import wait_for


def full_disk(path: Path, *_more: Any, **_options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_a_command_that_cannot_be_recorded_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, results = Ed25519PrivateKey.generate(), list[CommandResult]()

    def publish(channel: UpChannel, payload: bytes, _confirmed: Any = None) -> bool:
        assert channel is UpChannel.RESULT
        results.append(CommandResult.model_validate_json(payload))
        return True

    verifier = CommandVerifier.from_keys("edge-1", [key.public_key()], ["scan.run"])
    journal = Journal(tmp_path)
    executor = CommandExecutor(
        verifier, {}, journal, publish, clock=Clock(), on_forged=lambda _reason: None, on_changed=lambda: None
    )
    now = datetime.now(UTC)
    command = Command(
        command_id="c1", device_id="edge-1", action="scan.run", params={}, issued_at=now,
        expires_at=now + timedelta(minutes=5), counter=1,
    )  # fmt: skip
    envelope = sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, key)
    with monkeypatch.context() as full:
        full.setattr(files, "write_whole", full_disk)
        executor.on_envelope(envelope)
    (result,) = results
    assert result.state is CommandState.REJECTED
    assert "cannot be recorded" in result.reason
    assert "No space left on device" in result.reason
    assert journal.unfinished() == ()
    executor.on_envelope(envelope)  # there is room again, and the controller sends it again
    assert [entry.command.command_id for entry in journal.unfinished()] == ["c1"]
    journal.close()


class Touch:
    """Appends a line to a file; its goal is a file with a line."""

    is_repeatable = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, params: Params) -> None:
        """Anything is fine."""

    def plan(self, params: Params) -> ActionPlan:
        return ActionPlan({"was": "nothing"}, "write", is_needed=True)

    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        with self.path.open("a") as file:
            file.write("run\n")

    def verify(self, params: Params, before: Mapping[str, str]) -> Verification:
        return Verification(self.path.exists())

    def undo(self, params: Params, before: Mapping[str, str]) -> str:
        return "undone"


class FullDisk:
    """A disk that is full from when the command has run, apart from the space that was kept."""

    def __init__(self, folder: Path, touched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.extra = 0  # further writes that fail without the spare space
        self.failed = threading.Event()
        write_whole, spare = files.write_whole, folder / "commands.spare"

        def limited(path: Path, *more: Any, **options: Any) -> None:
            if touched.exists() and path.name == "commands.json":
                if spare.exists():
                    full_disk(path)
                if self.extra:
                    self.extra -= 1
                    self.failed.set()
                    full_disk(path)
            write_whole(path, *more, **options)

        monkeypatch.setattr(files, "write_whole", limited)


@pytest.mark.parametrize("extra", [0, 2, 10_000])
def test_a_result_on_a_full_disk_is_told_and_its_command_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    monkeypatch.setattr("device_agent.commands.executor.RECORD_AGAIN_SECONDS", 0.01)
    key, results, told = Ed25519PrivateKey.generate(), list[CommandResult](), threading.Event()

    def publish(_channel: UpChannel, payload: bytes, confirmed: Any = None) -> bool:
        results.append(CommandResult.model_validate_json(payload))
        if results[-1].state.is_end:
            told.set()
            if confirmed is not None:
                confirmed(True)
        return True

    def started(journal: Journal) -> CommandExecutor:
        verifier = CommandVerifier.from_keys("edge-1", [key.public_key()], ["touch"])
        executor = CommandExecutor(
            verifier, {"touch": Touch(tmp_path / "touched")}, journal, publish, clock=Clock(),
            on_forged=lambda _reason: None, on_changed=lambda: None,
        )  # fmt: skip
        executor.start()
        return executor

    folder = tmp_path / "state"
    journal = Journal(folder)
    disk = FullDisk(folder, tmp_path / "touched", monkeypatch)
    disk.extra = extra
    executor, now = started(journal), datetime.now(UTC)
    command = Command(
        command_id="c1", device_id="edge-1", action="touch", params={}, issued_at=now,
        expires_at=now + timedelta(minutes=5), counter=1,
    )  # fmt: skip
    executor.on_envelope(sign(command.model_dump_json().encode(), COMMAND_PAYLOAD_TYPE, key))
    assert told.wait(10.0)
    wait_for(lambda: extra == 10_000 or not journal.unfinished())
    executor.stop(10.0)
    journal.close()
    monkeypatch.undo()
    told.clear()
    journal = Journal(folder)
    assert bool(journal.unfinished()) is (extra == 10_000)
    executor = started(journal)
    wait_for(lambda: not journal.unfinished())
    executor.stop(10.0)
    journal.close()
    assert {result.state for result in results if result.state.is_end} == {CommandState.SUCCEEDED}
    assert (tmp_path / "touched").read_text() == "run\n"


def test_a_command_is_refused_where_its_result_would_have_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, now = Journal(tmp_path), datetime.now(UTC)
    write_whole = files.write_whole

    def small(path: Path, temporary: Path, content: bytes, *more: Any) -> None:
        if len(content) > 32 * 1024:
            full_disk(path)
        write_whole(path, temporary, content, *more)

    monkeypatch.setattr(files, "write_whole", small)
    command = Command(
        command_id="c1", device_id="edge-1", action="touch", params={}, issued_at=now, expires_at=now, counter=1
    )
    with pytest.raises(JournalError, match=r"commands\.spare: No space left"):
        journal.record_accepted(command, frozenset(), now)
    assert journal.unfinished() == ()
    journal.close()


def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "device_id": "edge-1",
            "mqtt": {"servers": ["mqtt://127.0.0.1:1"]},
            "agent": {"state_dir": str(tmp_path / "state")},
        }
    )


def test_a_thread_that_cannot_use_the_state_folder_ends_the_agent_with_status_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def broken(path: Path, *_more: Any, **_options: Any) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(files, "write_whole", broken)
    with pytest.raises(AgentError) as failure:
        run(settings(tmp_path), System(), threading.Event(), collectors={}, actions={})
    assert isinstance(failure.value, JournalError)
    assert failure.value.exit_code is ExitCode.STATE


def test_a_folder_that_cannot_be_made_ends_it_with_status_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "agent.toml"
    state = tmp_path / "state"
    config.write_text(
        f'device_id = "edge-1"\n[mqtt]\nservers = ["mqtt://127.0.0.1:1"]\n[agent]\nstate_dir = "{state}"\n'
    )
    mkdir = Path.mkdir

    def full(path: Path, *more: Any, **options: Any) -> None:
        if path == state:
            full_disk(path)
        mkdir(path, *more, **options)

    monkeypatch.setattr(Path, "mkdir", full)
    assert main(["run", "--config", str(config)]) == ExitCode.STATE
    assert "No space left on device" in capsys.readouterr().err
