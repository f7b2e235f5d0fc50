"""`cordon-agent do`: actions on the device itself."""

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from device_agent.cli.do import ActionUsageError, parse_params
from device_agent.main import main


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key on this machine that every user can read."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path / "device.key"
    path.write_bytes(pem)
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    return path


def test_a_dry_run_prints_the_changes_and_makes_none(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["do", "key.restrict", f"path={key}", "--dry-run"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["would"] == f"chmod 0600 {key}"
    assert "mode 0644" in printed["was"]
    assert key.stat().st_mode & 0o777 == 0o644


def test_an_action_is_done_once(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["do", "key.restrict", f"path={key}"]) == 0
    assert "mode 0600" in json.loads(capsys.readouterr().out)["is"]
    assert key.stat().st_mode & 0o777 == 0o600
    assert main(["do", "key.restrict", f"path={key}"]) == 0
    assert json.loads(capsys.readouterr().out)["would"] == "nothing"


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["no.such"], 2, "there are account.lock"),
        (["key.restrict"], 2, "path: not an absolute path"),
        (["key.restrict", "path"], 2, "key=value"),
        (["key.restrict", "path=/none"], 1, "No such file"),
        (["account.lock", "name=root"], 2, "root is not locked"),
    ],
)
def test_impossible_actions_are_one_error_line(
    argv: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["do", *argv]) == status
    printed = capsys.readouterr()
    assert words in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""


def test_list_prints_all_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["do", "list"]) == 0
    assert {"firewall.enable", "service.disable", "ssh.set"} <= set(capsys.readouterr().out.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_actions_that_may_cut_the_device_off_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["do", "firewall.deny", "port=4711"])
    printed = capsys.readouterr().err
    # Without nft the reason differs; the action never runs.
    assert status in {1, 2}
    assert "send it as a command" in printed or "nft" in printed


def test_parameters_are_parsed() -> None:
    assert parse_params(["a=1", "b=true", "c=x=y", "d="]) == {"a": 1, "b": True, "c": "x=y", "d": ""}
    with pytest.raises(ActionUsageError):
        parse_params(["a=1", "a=2"])
