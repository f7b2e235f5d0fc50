"""Actions by hand: `cordon-agent do`."""

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
    """A private key that everybody may read, on this machine."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path / "device.key"
    path.write_bytes(pem)
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    return path


def test_a_dry_run_says_what_would_be_done_and_does_nothing(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["do", "key.restrict", f"path={key}", "--dry-run"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["would"] == f"chmod 0600 {key}"
    assert "mode 0644" in said["was"]
    assert key.stat().st_mode & 0o777 == 0o644


def test_it_is_done_and_then_there_is_nothing_to_do(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_what_cannot_be(argv: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["do", *argv]) == status
    told = capsys.readouterr()
    assert words in told.err
    assert len(told.err.splitlines()) == 1
    assert told.out == ""


def test_all_actions_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["do", "list"]) == 0
    assert {"firewall.enable", "service.disable", "ssh.set"} <= set(capsys.readouterr().out.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_may_cut_the_device_off_is_not_done_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["do", "firewall.deny", "port=4711"])
    told = capsys.readouterr().err
    # Without nft it is another refusal; it is never done.
    assert status in {1, 2}
    assert "send it as a command" in told or "nft" in told


def test_parameters() -> None:
    assert parse_params(["a=1", "b=true", "c=x=y", "d="]) == {"a": 1, "b": True, "c": "x=y", "d": ""}
    with pytest.raises(ActionUsageError):
        parse_params(["a=1", "a=2"])
