"""Secrets of a stand-in's command line: from where they are, or with a warning."""

import io
from pathlib import Path

import pytest

from controller.standin.__main__ import _parser


def test_secrets_come_from_files_and_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "secret"
    file.write_text("of a file\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("of a pipe\n"))
    given = _parser().parse_args(["--api-secret", f"file:{file}", "--user", "ada:-"])
    assert (given.api_secret, given.user) == ("of a file", [("ada", "of a pipe")])
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        _parser().parse_args(["--api-secret", f"file:{tmp_path / 'absent'}"])
    assert "cannot be read" in capsys.readouterr().err


def test_a_secret_that_others_see_is_taken_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    given = _parser().parse_args(["--api-secret", "s3cret", "--user", "ada:pass:word"])
    assert (given.api_secret, given.user) == ("s3cret", [("ada", "pass:word")])
    told = capsys.readouterr().err
    assert told.count("warning: other users of this machine see") == 2
    assert "s3cret" not in told
