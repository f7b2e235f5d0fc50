"""`cordon update` on a folder: ceremonies, publishing, looking; what cannot be is said with its exit code."""

import json
from pathlib import Path

import pytest

from controller.cli.app import run_safely
from tests.support.updates import PASSPHRASE, archive


@pytest.fixture
def place(tmp_path: Path) -> Path:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    secret.chmod(0o600)
    (tmp_path / "edge-app-1.4.0.tar.gz").write_bytes(archive({"bin/app": "one"}))
    assert _run(tmp_path, "init", "--root-keys", "1", "--root-threshold", "1", root=True) == 0
    return tmp_path


def _run(place: Path, *words: str, root: bool = False, keys: bool = True) -> int:
    secret = str(place / "passphrase")
    more = ["--repository", str(place / "updates")]
    more += ["--keys", str(place / "keys"), "--targets-passphrase-file", secret] if keys else []
    more += ["--root-passphrase-file", secret] if root else []
    return run_safely(["update", *words, *more])


def test_from_the_ceremony_to_a_withdrawn_version(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(place / "edge-app-1.4.0.tar.gz")
    words = ("--kind", "file", "--version", "1.4.0", "--for", "gateway", "--requires", "free_mib>=1")
    assert _run(place, "publish", file, *words, "--health", "command:bin/app --self-test") == 0
    capsys.readouterr()
    assert _run(place, "list", "--output", "json", keys=False) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["path"] == "edge-app/1.4.0/edge-app-1.4.0.tar.gz"
    assert one["target"]["health"]["command"] == ["bin/app", "--self-test"]
    assert one["target"]["installed_bytes"] == 3
    assert _run(place, "show", "edge-app", "1.4.0", keys=False) == 0
    assert "free_mib" in capsys.readouterr().out
    assert _run(place, "status", keys=False) == 0
    assert "1 of 2" in capsys.readouterr().out
    assert _run(place, "keys", "rotate", "targets", "--count", "3", "--threshold", "2", root=True) == 0
    assert _run(place, "keys", "rotate", "root", root=True) == 0
    assert _run(place, "keys", "renew", "root", root=True) == 0
    capsys.readouterr()
    assert _run(place, "keys", "list", "--output", "json", keys=False) == 0
    roles = {one["role"]: one for one in json.loads(capsys.readouterr().out)}
    assert (len(roles["targets"]["keys"]), roles["targets"]["threshold"]) == (3, 2)
    assert _run(place, "withdraw", "edge-app", "1.4.0") == 0
    assert _run(place, "show", "edge-app", "1.4.0", keys=False) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--kind", "package"), "say --installer"),
        (("--kind", "moon"), "kind"),
        (("--kind", "file", "--requires", "luck>=1"), "requires"),
        (("--kind", "file", "--health", "luck:yes"), "--health is"),
        (("--kind", "file", "--health", "http:http://elsewhere/"), "http"),
        (("--kind", "file", "--restart", "service"), "belong together"),
    ],
)
def test_what_cannot_be_published_is_wrong_usage(
    place: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], complaint: str
) -> None:
    file = str(place / "edge-app-1.4.0.tar.gz")
    assert _run(place, "publish", file, "--version", "1.4.0", "--for", "*", *words) == 2
    assert complaint in capsys.readouterr().err


def test_without_a_place_or_a_passphrase_it_asks_for_them(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CORDON_CONFIG", raising=False)
    file = str(place / "edge-app-1.4.0.tar.gz")
    where = ("--repository", str(place / "updates"), "--keys", str(place / "keys"))
    words = ("--version", "1.4.0", "--for", "*", "--kind", "file")
    assert run_safely(["update", "publish", file, *words, *where]) == 2
    assert "--targets-passphrase-file" in capsys.readouterr().err
