"""Secrets from files, credentials, variables and programs; with `pass` itself where it is installed."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from controller.adapters.files import read_line, read_passphrase, read_secret
from controller.ports.errors import SettingsError
from device_agent.errors import SettingsError as AgentSettingsError
from device_agent.host.secrets import read_given_secret
from schemas import secret_sources
from schemas.secret_sources import OutsideSecret, SecretError, absolute_source, key_file, secret_source

SECRET: Final = "correct-horse-battery-staple"
needs_pass = pytest.mark.skipif(
    shutil.which("pass") is None or shutil.which("gpg") is None, reason="needs pass and gpg (Debian: pass, gnupg)"
)


def program(folder: Path, text: str) -> str:
    """A command that runs these lines of a shell."""
    script = folder / "manager"
    script.write_text(text)
    return f"command:/bin/sh '{script}' --for {SECRET}-argument"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("words", "words"),
        ("/etc/cordon/words", "/etc/cordon/words"),
        ("file:words", "words"),
        ("file:env:x", "env:x"),
        ("C:words", "C:words"),  # no kind of source: a path, as it always was
        ("credential:words", "/run/credentials/x/words"),
    ],
)
def test_sources_that_are_files(text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    assert secret_source(text) == Path(path) == key_file(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "file:", "file:a\0b", "credential:", "credential:../x", "credential:..", "credential:a/b", "env:",
        "env:A B", "env:A=1", "command:", "command: ", "command:''", "command:pass 'x", "command:pass\0",
    ],
)  # fmt: skip
def test_malformed_sources_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|credential:NAME|env:NAME|command:"):
        secret_source(text)


def test_a_key_that_libraries_read_is_a_file() -> None:
    for text in ("env:KEY", "command:pass show key"):
        with pytest.raises(ValueError, match="has to be a file"):
            key_file(text)


def test_only_paths_of_files_are_made_whole() -> None:
    assert absolute_source("file:words") == str(Path.cwd() / "words")
    assert absolute_source("command:pass show x") == "command:pass show x"
    assert absolute_source("credential:words") == "credential:words"


def test_a_variable_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = secret_source("env:BROKER_PASSWORD")
    for value in (SECRET, "a later one"):
        monkeypatch.setenv("BROKER_PASSWORD", f"{value}\n")
        assert read_secret(source, "mqtt.password_file") == value
    monkeypatch.delenv("BROKER_PASSWORD")
    with pytest.raises(SettingsError, match=r"^mqtt.password_file: .*no variable BROKER_PASSWORD: set it"):
        read_secret(source, "mqtt.password_file")


def test_a_credential_is_read_from_the_folder_of_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "words"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o440)  # how an access list for the service's user looks
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(secret_source("credential:words"), "x") == SECRET
    assert read_given_secret("credential:words", "x") == SECRET
    file.chmod(0o444)
    with pytest.raises(SettingsError, match="others can read"):
        read_secret(secret_source("credential:words"), "x")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(SettingsError, match=r"x: there are no credentials: .*LoadCredential=words:"):
        read_secret(secret_source("credential:words"), "x")
    with pytest.raises(AgentSettingsError, match=r"x: there are no credentials: .*LoadCredential=words:"):
        read_given_secret("credential:words", "x")


def test_the_first_line_counts_and_notes_below_it_do_not(tmp_path: Path) -> None:
    text = program(tmp_path, f"printf '%s\\r\\nuser: ada\\n' {SECRET}")
    source = secret_source(text)
    assert read_line(source, "x") == read_passphrase(source, "x") == read_given_secret(text, "x") == SECRET
    assert read_secret(source, "x") == f"{SECRET}\r\nuser: ada"  # a key in PEM has many lines


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A password store with a new key of GnuPG, in which the entry cordon/emqx is."""
    with tempfile.TemporaryDirectory(prefix="gpg") as short:  # sockets have short paths
        home = Path(short) / "home"
        home.mkdir(mode=0o700)
        monkeypatch.setenv("GNUPGHOME", str(home))
        monkeypatch.setenv("PASSWORD_STORE_DIR", str(Path(short) / "store"))
        new_key = [
            "gpg",
            "--batch",
            "--passphrase",
            "",
            "--quick-generate-key",
            "tests@cordon.example",
            "future-default",
        ]
        subprocess.run([*new_key, "default", "never"], check=True, capture_output=True)
        subprocess.run(["pass", "init", "tests@cordon.example"], check=True, capture_output=True)
        entry = f"{SECRET}\nurl: https://emqx.example\n".encode()
        subprocess.run(["pass", "insert", "-m", "cordon/emqx"], input=entry, check=True, capture_output=True)
        yield "command:pass show cordon/emqx"
        subprocess.run(["gpgconf", "--kill", "all"], check=True)


@needs_pass
def test_a_secret_of_the_password_store(store: str) -> None:
    assert read_line(secret_source(store), "x") == SECRET
    assert read_given_secret(store, "x") == SECRET
    with pytest.raises(SettingsError, match=r"x: pass ended with status 1: Error: .*not in the password store"):
        read_line(secret_source("command:pass show cordon/other"), "x")


HOSTILE: Final = {
    "asks": ("read answer; echo $answer", "gives nothing"),
    "empty": ("echo; echo", "gives nothing"),
    "endless": (f"while :; do echo {SECRET}; done", "prints more than 4096 bytes"),
    "late": (f"echo {SECRET}; exec sleep 600", "did not end within 0.5 s"),
    "binary": (f"printf '{SECRET}\\377'", "gives no text"),
    "failed": ("echo the vault is sealed >&2; exit 3", "ended with status 3: the vault is sealed; run it by hand"),
    "failed after": (f"echo {SECRET}; echo wrong: {SECRET} >&2; exit 1", "its error is not shown"),
    "loud": ("yes error >&2 & yes error | head -c 3000000 >&2; kill $!; exit 1", "status 1: "),
    "killed": (f"echo {SECRET}; kill -9 $$", "ended with status -9"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_no_error_about_a_program_has_the_secret(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_sources, "COMMAND_SECONDS", 0.5 if case == "late" else 60.0)
    lines, expected = HOSTILE[case]
    source = secret_source(program(tmp_path, lines))
    with pytest.raises(SettingsError, match=r"^emqx.key_file: (sh|command:/bin/sh) ") as caught:
        read_secret(source, "emqx.key_file")
    assert expected in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:  # what a traceback would show
        assert SECRET not in f"{error!r} {error} {source} {source!r}"
        error = error.__cause__
    assert len(str(caught.value)) < 400


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    for text, expected in (("no-such-manager show", "is not installed"), (f"{tmp_path}", "cannot be started")):
        with pytest.raises(SecretError, match=expected):
            OutsideSecret(f"command:{text} {SECRET}").read()


def test_what_a_program_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    source = secret_source(program(tmp_path, f"sleep 600 & echo $! > {pid}; echo {SECRET}"))
    assert read_secret(source, "x") == SECRET
    os.kill(int(pid.read_text()), 9)  # it runs: not waited for, and not killed, as gpg-agent must not be


def test_a_program_gets_neither_input_nor_cordons_own_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CORDON_TOKEN", "CORDON_EMQX_SECRET", "BROKER_PASSWORD", "LD_PRELOAD", "PYTHONPATH"):
        monkeypatch.setenv(name, "" if name == "LD_PRELOAD" else SECRET)
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example")
    given = OutsideSecret("command:env").read().splitlines()
    names = {line.partition("=")[0] for line in given}
    assert names >= {"PATH", "VAULT_ADDR"}
    assert not names & {"CORDON_TOKEN", "CORDON_EMQX_SECRET", "BROKER_PASSWORD", "LD_PRELOAD", "PYTHONPATH"}
    text = program(tmp_path, "readlink /proc/self/fd/0; ps -o tty= -p $$ 2>/dev/null || echo none")
    assert read_line(secret_source(text), "x") == "/dev/null"


def test_a_secret_is_on_no_command_line(tmp_path: Path) -> None:
    (tmp_path / "words").write_text(SECRET)
    shown = tmp_path / "command-lines"
    lines = f"cat /proc/[0-9]*/cmdline > {shown} 2>/dev/null; exec cat {tmp_path / 'words'}"
    (tmp_path / "manager").write_text(lines)
    command = f"command:/bin/sh {tmp_path / 'manager'}"
    code = "import sys; from device_agent.host.secrets import read_given_secret as r; assert r(sys.argv[1], 'x')"
    subprocess.run([sys.executable, "-c", code, command], check=True)
    assert read_secret(secret_source(command), "x") == SECRET
    assert b"manager" in shown.read_bytes()
    assert SECRET.encode() not in shown.read_bytes()
