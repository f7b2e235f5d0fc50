"""Where `cordon-agent enrol` has its token from."""

import io
from argparse import ArgumentParser
from pathlib import Path

import pytest

from device_agent.cli.enrol import _token, add_parser
from device_agent.errors import SettingsError


def token_of(*words: str) -> str:
    parser = ArgumentParser()
    add_parser(parser.add_subparsers())
    return _token(parser.parse_args(["enrol", "--url", "https://c", "--ca-fingerprint", "00", *words]))


def test_the_token_comes_from_its_source_or_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text("of-a-file\n")
    monkeypatch.setenv("ENROL_TOKEN", "of-the-environment")
    monkeypatch.setattr("sys.stdin", io.StringIO("of-a-pipe\n"))
    for words, token in (
        (("--token-file", str(file)), "of-a-file"),
        (("--token", f"file:{file}"), "of-a-file"),
        (("--token", "env:ENROL_TOKEN"), "of-the-environment"),
        (("--token", "-"), "of-a-pipe"),
    ):
        assert token_of(*words) == token
    assert capsys.readouterr().err == ""
    with pytest.raises(SettingsError, match="standard input gives nothing"):
        token_of("--token", "-")
    assert token_of("--token", "cordon-enrol_x") == "cordon-enrol_x"
    assert "warning: other users" in capsys.readouterr().err
