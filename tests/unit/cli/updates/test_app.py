"""`cordon update` on a folder: key ceremonies, publishing, listing, and usage errors."""

import json
from pathlib import Path

import pytest

from controller.cli.app import run_safely
from tests.support.updates import PASSPHRASE, archive


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    (tmp_path / "edge-app-1.4.0.tar.gz").write_bytes(archive({"bin/app": "one"}))
    assert _run(tmp_path, "init", "--root-keys", "1", "--root-threshold", "1", root=True) == 0
    return tmp_path


def _run(folder: Path, *argv: str, root: bool = False, keys: bool = True) -> int:
    secret = str(folder / "passphrase")
    more = ["--repository", str(folder / "updates")]
    more += ["--keys", str(folder / "keys"), "--targets-passphrase-file", secret] if keys else []
    more += ["--root-passphrase-file", secret] if root else []
    return run_safely(["update", *argv, *more])


def test_a_version_is_published_shown_and_withdrawn(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(repository / "edge-app-1.4.0.tar.gz")
    words = ("--kind", "file", "--version", "1.4.0", "--for", "gateway", "--requires", "free_mib>=1")
    assert _run(repository, "publish", file, *words, "--health", "command:bin/app --self-test") == 0
    capsys.readouterr()
    assert _run(repository, "list", "--output", "json", keys=False) == 0
    (update,) = json.loads(capsys.readouterr().out)
    assert update["path"] == "edge-app/1.4.0/edge-app-1.4.0.tar.gz"
    assert update["target"]["health"]["command"] == ["bin/app", "--self-test"]
    assert update["target"]["installed_bytes"] == 3
    assert _run(repository, "show", "edge-app", "1.4.0", keys=False) == 0
    assert "free_mib" in capsys.readouterr().out
    assert _run(repository, "status", keys=False) == 0
    assert "1 of 2" in capsys.readouterr().out
    assert _run(repository, "keys", "rotate", "targets", "--count", "3", "--threshold", "2", root=True) == 0
    assert _run(repository, "keys", "rotate", "root", root=True) == 0
    assert _run(repository, "keys", "renew", "root", root=True) == 0
    capsys.readouterr()
    assert _run(repository, "keys", "list", "--output", "json", keys=False) == 0
    roles = {role["role"]: role for role in json.loads(capsys.readouterr().out)}
    assert (len(roles["targets"]["keys"]), roles["targets"]["threshold"]) == (3, 2)
    assert _run(repository, "withdraw", "edge-app", "1.4.0") == 0
    assert _run(repository, "show", "edge-app", "1.4.0", keys=False) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kind", "package"), "give --installer"),
        (("--kind", "moon"), "kind"),
        (("--kind", "file", "--requires", "luck>=1"), "requires"),
        (("--kind", "file", "--health", "luck:yes"), "--health is"),
        (("--kind", "file", "--health", "http:http://elsewhere/"), "http"),
        (("--kind", "file", "--restart", "service"), "belong together"),
    ],
)
def test_an_invalid_update_is_a_usage_error(
    repository: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    file = str(repository / "edge-app-1.4.0.tar.gz")
    assert _run(repository, "publish", file, "--version", "1.4.0", "--for", "*", *options) == 2
    assert message in capsys.readouterr().err


def test_a_missing_passphrase_is_a_usage_error(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CORDON_CONFIG", raising=False)
    file = str(repository / "edge-app-1.4.0.tar.gz")
    where = ("--repository", str(repository / "updates"), "--keys", str(repository / "keys"))
    words = ("--version", "1.4.0", "--for", "*", "--kind", "file")
    assert run_safely(["update", "publish", file, *words, *where]) == 2
    assert "--targets-passphrase-file" in capsys.readouterr().err
