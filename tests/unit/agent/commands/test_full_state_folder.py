"""Commands while the state folder is full: refused, because what is not recorded could run twice."""

import errno
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
