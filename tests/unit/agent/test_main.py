"""The command line: documented exit statuses, one line for each error, never a traceback."""

import logging
from pathlib import Path

import pytest

from device_agent import __version__
from device_agent.main import main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_every_noun_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for noun in ([], ["run"], ["report"], ["do"], ["simulate"]):
        with pytest.raises(SystemExit) as ended:
            main([*noun, "--help"])
        assert ended.value.code == 0
        assert "usage: cordon-agent" in capsys.readouterr().out


def _error_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(argv)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("cordon-agent: ")
    return status, lines[0]


def test_a_wrong_configuration_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = _error_line(["run", "--config", str(tmp_path / "none.toml")], capsys)
    assert (status, "none.toml: No such file" in line) == (2, True)
    (tmp_path / "bad.toml").write_text("device_id = 7\n")
    status, line = _error_line(["report", "--config", str(tmp_path / "bad.toml")], capsys)
    assert (status, "bad.toml: device_id" in line) == (2, True)
    assert logging.getLogger("tuf").level == logging.ERROR, "its lines about keys that did not sign are noise"


def test_an_unusable_state_folder_is_status_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "commands.json").write_text("{")
    config = tmp_path / "agent.toml"
    config.write_text(
        f'device_id = "edge-1"\n[mqtt]\nservers = ["mqtt://127.0.0.1:1"]\n[agent]\nstate_dir = "{tmp_path}/state"\n'
    )
    status, line = _error_line(["run", "--config", str(config)], capsys)
    assert (status, "commands.json is damaged" in line) == (3, True)


def test_an_invalid_authority_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    config = tmp_path / "agent.toml"
    config.write_text(
        f'device_id = "edge-1"\n[mqtt]\nservers = ["mqtts://127.0.0.1:1"]\nca = "{tmp_path}/ca.pem"\n'
        f'[agent]\nstate_dir = "{tmp_path}/state"\n'
    )
    status, line = _error_line(["run", "--config", str(config)], capsys)
    assert (status, "certificate, key or ca cannot be used" in line) == (2, True)
