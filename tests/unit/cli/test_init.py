"""`cordon init` without a broker: the files it creates, and that existing files stay as they are."""

import contextlib
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from controller.cli.app import run_safely
from controller.domain.accounts.secret_text import digest_of
from controller.service.settings.settings import load_settings
from schemas.signing import parse_public_key

SECRETS = ("command-signing.key", "emqx.key", "operator.token", "cordon.db")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with EMQX's secret."""
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    return path


@pytest.fixture
def args(tmp_path: Path, secret: Path) -> list[str]:
    """Arguments of a first run without a broker."""
    given = ["--emqx-key", "key", "--emqx-secret-file", str(secret), "--listen", "127.0.0.1:0"]
    return ["init", "--dir", str(tmp_path / "new" / "conf"), "--no-broker", *given]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(path: Path) -> bytes:
    """The content of a file; of the store its rows, because opening it changes other bytes."""
    if path.suffix != ".db":
        return path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump()).encode()


def _tokens(folder: Path) -> list[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(folder / "cordon.db")) as connection:
        rows = connection.execute("SELECT name, digest FROM tokens").fetchall()
    return [(str(name), str(digest)) for name, digest in rows]


def test_the_first_run_creates_everything(args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(args) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "new" / "conf"
    settings = load_settings(folder / "cordon.toml")
    assert settings.store.path == folder / "cordon.db"
    assert settings.emqx.key_file == folder / "emqx.key"
    assert (folder / "emqx.key").read_text() == "key:s3cret\n"
    for name in SECRETS:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    token = (folder / "operator.token").read_text().strip()
    assert token in out
    assert _tokens(folder) == [("operator", digest_of(token))]
    assert token.encode() not in (folder / "cordon.db").read_bytes()
    (key_line,) = [line for line in out.splitlines() if "controller_keys" in line]
    parse_public_key(key_line.split('"')[1])
    assert run_safely(["policy", "check", str(folder / "policies")]) == 0


def test_a_second_run_changes_nothing(args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_safely(args) == 0
    folder = tmp_path / "new" / "conf"
    token = (folder / "operator.token").read_text().strip()
    before = _contents(folder)
    first = capsys.readouterr().out
    assert run_safely([*args, "--mqtt", "mqtt://elsewhere:1883"]) == 0
    second = capsys.readouterr().out
    assert _contents(folder) == before
    assert token not in second
    assert "made" not in second
    keys = [[line for line in out.splitlines() if "controller_keys" in line] for out in (first, second)]
    assert keys[0] == keys[1]


def test_only_missing_files_are_created(args: list[str], tmp_path: Path) -> None:
    assert run_safely(args) == 0
    folder = tmp_path / "new" / "conf"
    before = _contents(folder)
    starter = folder / "policies" / "starter.yaml"
    starter.unlink()
    (folder / "policies" / "mine.yaml").write_text("mine")
    assert run_safely(args) == 0
    assert not starter.exists()  # the operator has policies
    (folder / "policies" / "mine.yaml").unlink()
    (folder / "command-signing.key").unlink()
    assert run_safely(args) == 0
    after = _contents(folder)
    assert after.keys() == before.keys()
    assert {path for path in before if before[path] != after[path]} == {str(folder / "command-signing.key")}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--mqtt", "http://broker"], "mqtt.servers"),
        (["--emqx", "http://broker/api/v5"], "emqx.api"),
        (["--mqtt-cert", "c.pem"], "certificate and key"),
        (["--client-id", "a/b"], "client_id"),
        (["--listen", "nowhere"], "listen"),
    ],
)
def test_an_invalid_configuration_is_never_written(
    args: list[str], tmp_path: Path, more: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_safely([*args, *more]) == 2
    err = capsys.readouterr().err
    assert text in err
    assert ".draft" not in err
    assert _contents(tmp_path / "new") == {}


def test_a_missing_emqx_key_is_an_error_or_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "conf"
    assert not sys.stdin.isatty()
    assert run_safely(["init", "--dir", str(folder)]) == 2
    assert "--emqx-key" in capsys.readouterr().err
    assert run_safely(["init", "--dir", str(folder), "--no-broker"]) == 0
    assert "absent" in capsys.readouterr().out
    assert not (folder / "emqx.key").exists()


@pytest.mark.parametrize(("key", "content"), [("a:b", "x"), ("a", ""), ("a", "x\ny"), ("", "x")])
def test_an_invalid_emqx_key_is_an_error(args: list[str], secret: Path, key: str, content: str, tmp_path: Path) -> None:
    secret.write_text(content)
    assert run_safely([*args, "--emqx-key", key]) == 2
    assert not (tmp_path / "new" / "conf" / "emqx.key").exists()


def test_a_token_file_of_another_store_is_not_overwritten(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_safely(args) == 0
    folder = tmp_path / "new" / "conf"
    before = (folder / "operator.token").read_text()
    for path in folder.glob("cordon.db*"):
        path.unlink()
    assert run_safely(args) == 1
    assert "operator.token" in capsys.readouterr().err
    assert (folder / "operator.token").read_text() == before
    assert _tokens(folder) == []
    (folder / "operator.token").unlink()
    assert run_safely(args) == 0
    assert len(_tokens(folder)) == 1


def test_an_unreachable_broker_has_exit_status_3(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_broker = [argument for argument in args if argument != "--no-broker"]
    assert run_safely([*with_broker, "--emqx", "http://127.0.0.1:1", "--yes"]) == 3
    assert "run this again" in capsys.readouterr().err
    assert (tmp_path / "new" / "conf" / "operator.token").exists()
