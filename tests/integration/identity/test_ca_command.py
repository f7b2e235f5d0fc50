"""`cordon ca` as an operator uses it before the first start."""

import contextlib
import json
import sqlite3
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.cli.app import run_safely
from controller.cli.errors import ExitCode

WORDS = "k4c2-9d3f-7m1q-x8tz-5h6n-w2vb"


def config(folder: Path) -> Path:
    path = folder / "cordon.toml"
    path.write_text(
        f'[mqtt]\nservers = ["mqtts://127.0.0.1:1"]\n[emqx]\napi = ["http://127.0.0.1:1"]\nkey_file = "emqx.key"\n'
        f'[store]\npath = "cordon.db"\n[policy]\npaths = ["policies"]\n[commands]\nsigning_key = "signing.key"\n'
        f"[authority]\nfolder = {json.dumps(str(folder / 'ca'))}\n"
    )
    return path


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    argv = ["ca", "init", "--dir", str(tmp_path / "ca"), "--root-key", str(tmp_path / "root.key")]
    assert run_safely([*argv, "--crl-url", "http://127.0.0.1:8481"]) == 0
    said = capsys.readouterr().out
    assert "passphrase" in said
    assert "--ca-fingerprint" in said
    config(tmp_path)
    return tmp_path


def test_what_is_issued_works_for_tls(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--out", str(made / "out"), "--config", str(made / "cordon.toml")]
    assert run_safely(["ca", "issue-server", "broker.example", "--host", "192.0.2.7", *common]) == 0
    assert run_safely(["ca", "issue-client", "cordon-controller", *common]) == 0
    assert stat.S_IMODE((made / "out" / "broker.example.key").stat().st_mode) == 0o600
    context = ssl.create_default_context(cafile=str(made / "out" / "ca.pem"))
    context.load_cert_chain(made / "out" / "cordon-controller.pem", made / "out" / "cordon-controller.key")
    server = x509.load_pem_x509_certificates((made / "out" / "broker.example.pem").read_bytes())
    assert len(server) == 2
    names = server[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert run_safely(["ca", "issue-client", "cordon-controller", *common]) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["edge-7.key", "edge-7.pem", "out"])
def test_nothing_is_registered_where_a_file_is_in_the_way(
    made: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    out = made / "elsewhere"
    if left == "out":
        out.write_text("a file")
    else:
        out.mkdir()
        (out / left).write_text("somebody's")
    before = _registered(made)
    argv = ["ca", "issue-client", "edge-7", "--out", str(out), "--config", str(made / "cordon.toml")]
    assert run_safely(argv) == 1
    assert str(out) in capsys.readouterr().err
    assert _registered(made) == before
    if left != "out":
        assert [path.name for path in out.iterdir()] == [left]


def _registered(folder: Path) -> list[tuple[str]]:
    if not (folder / "cordon.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(folder / "cordon.db")) as store:
        return store.execute("SELECT name FROM certificates ORDER BY name").fetchall()


def test_a_second_init_changes_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "ca" / "root.pem").read_bytes()
    argv = ["ca", "init", "--dir", str(made / "ca"), "--root-key", str(made / "root2.key")]
    assert run_safely([*argv, "--crl-url", "http://127.0.0.1:8481"]) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert (made / "ca" / "root.pem").read_bytes() == before


@pytest.mark.parametrize("url", ["https://lists.example", "http://lists.example/path", "lists.example"])
def test_lists_are_fetched_by_plain_http(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["ca", "init", "--dir", str(tmp_path / "ca"), "--root-key", str(tmp_path / "root.key"), "--crl-url", url]
    assert run_safely(argv) == 2
    assert "EMQX fetches lists by plain http" in capsys.readouterr().err


def test_the_roots_list_is_signed_again_with_a_passphrase_from_a_file(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.touch(mode=0o600)
    words.write_text(WORDS + "\n")
    common = ["--dir", str(tmp_path / "ca"), "--root-key", str(tmp_path / "root.key"), "--passphrase-file", str(words)]
    assert run_safely(["ca", "init", "--crl-url", "http://127.0.0.1:8481", *common]) == 0
    before = (tmp_path / "ca" / "root.crl").read_bytes()
    assert run_safely(["ca", "crl", *common]) == 0
    assert (tmp_path / "ca" / "root.crl").read_bytes() != before


def test_anothers_authority_and_its_certificates(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca = made / "ca"
    argv = ["ca", "import", "--root", str(ca / "root.pem"), "--issuing", str(ca / "issuing.pem")]
    assert run_safely([*argv, "--key", str(ca / "issuing.key"), "--dir", str(made / "taken")]) == 0
    common = ["--out", str(made / "out"), "--config", str(made / "cordon.toml")]
    assert run_safely(["ca", "issue-client", "edge-9", *common]) == 0
    capsys.readouterr()
    argv = ["ca", "register", str(made / "out" / "edge-9.pem"), "--config", str(made / "cordon.toml")]
    assert run_safely(argv) == 0
    assert capsys.readouterr().out.startswith("edge-9  ")


def self_signed(folder: Path, name: str, key: ec.EllipticCurvePrivateKey) -> Path:
    """A certificate of another authority."""
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    path = folder / f"{name}.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("is_issued_here", [True, False])
def test_key_that_another_name_has_is_not_registered(
    made: Path, capsys: pytest.CaptureFixture[str], is_issued_here: bool
) -> None:
    common = ["--config", str(made / "cordon.toml")]
    key = ec.generate_private_key(ec.SECP256R1())
    if is_issued_here:
        assert run_safely(["ca", "issue-client", "edge-1", "--out", str(made / "out"), *common]) == 0
        loaded = serialization.load_pem_private_key((made / "out" / "edge-1.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        key = loaded
    else:
        assert run_safely(["ca", "register", str(self_signed(made, "edge-1", key)), *common]) == 0
    before = _registered(made)
    good, bad = self_signed(made, "edge-2", ec.generate_private_key(ec.SECP256R1())), self_signed(made, "edge-3", key)
    capsys.readouterr()
    assert run_safely(["ca", "register", str(good), str(bad), *common]) == 1
    said = capsys.readouterr()
    assert "edge-3: its key is in a certificate of edge-1 already" in said.err
    assert said.out == ""
    assert _registered(made) == before == [("edge-1",)]


def test_one_key_of_two_names_in_one_call_is_not_registered(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    files = [str(self_signed(made, name, key)) for name in ("edge-1", "edge-2")]
    assert run_safely(["ca", "register", *files, "--config", str(made / "cordon.toml")]) == 1
    assert "its key is in a certificate of edge-1 already" in capsys.readouterr().err
    assert _registered(made) == []


def test_a_stolen_issuing_key_is_revoked_only_with_the_roots_key(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = ["--issuing", str(made / "ca" / "issuing.pem"), "--key", str(made / "ca" / "issuing.key")]
    argv = ["ca", "rotate-issuing", *pair, "--compromised", "--config", str(made / "cordon.toml")]
    assert run_safely(argv) == ExitCode.USAGE
    assert "--compromised needs --root-key" in capsys.readouterr().err


BAD_NAMES = ("", " ", "a b", "../../x", "a/b", "..", ".hidden", "x" * 65, "x" * 67, "line\nfeed", "https://a", "ü")
BAD_HOSTS = (
    "https://broker:8883",
    "broker:8883",
    "a b",
    "",
    " ",
    "a/b",
    "-a",
    "a..b",
    "x" * 254,
    "300.1.1.1",
    "ü.example",
)


@pytest.mark.parametrize("command", ["issue-server", "issue-client"])
def test_names_that_cannot_be_are_refused(made: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(made.rglob("*"))
    common = ["--out", str(made / "out" / "deep"), "--config", str(made / "cordon.toml")]
    for name in BAD_NAMES:
        assert run_safely(["ca", command, *common, "--", name]) == 1, name
        said = capsys.readouterr().err
        assert said.strip(), name
        assert "Traceback" not in said
    assert [path for path in sorted(made.rglob("*.pem")) if path not in before] == []


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_hosts_that_cannot_be_are_refused(made: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--out", str(made / "out"), "--config", str(made / "cordon.toml")]
    assert run_safely(["ca", "issue-server", "broker", f"--host={host}", *common]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not (made / "out").exists()


@pytest.mark.parametrize(
    "url", ["http://", "http://a b:1", "http://a:port", "http://[::1", "http://u@h:1", "http://a?x"]
)
def test_addresses_of_lists_that_cannot_be_are_refused(tmp_path: Path, url: str) -> None:
    argv = ["ca", "init", "--dir", str(tmp_path / "ca"), "--root-key", str(tmp_path / "root.key"), "--crl-url", url]
    assert run_safely(argv) == 2
    assert not (tmp_path / "ca").exists()


def test_a_long_name_of_an_authority_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["ca", "init", "--dir", str(tmp_path / "ca"), "--root-key", str(tmp_path / "root.key"), "--name", "x" * 60]
    assert run_safely([*argv, "--crl-url", "http://127.0.0.1:8481"]) == 1
    assert "1 to 64 characters" in capsys.readouterr().err


def test_the_issuing_certificate_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "words"
    words.touch(mode=0o600)
    words.write_text(WORDS + "\n")
    keys = ["--root-key", str(tmp_path / "root.key"), "--passphrase-file", str(words)]
    assert run_safely(["ca", "init", "--crl-url", "http://127.0.0.1:8481", "--dir", str(tmp_path / "ca"), *keys]) == 0
    where = ["--config", str(config(tmp_path))]
    before = (tmp_path / "ca" / "issuing.pem").read_bytes()
    assert run_safely(["ca", "rotate-issuing", *where, "--issuing", "x"]) == 2
    assert run_safely(["ca", "rotate-issuing", *where]) == 2
    capsys.readouterr()
    assert run_safely(["ca", "rotate-issuing", *where, *keys]) == 0
    assert "Restart the controller" in capsys.readouterr().out
    assert (tmp_path / "ca" / "issuing.pem").read_bytes() != before
    (kept,) = (tmp_path / "ca" / "former").glob("*.pem")
    assert kept.read_bytes() == before
    out = ["--out", str(tmp_path / "out")]
    assert run_safely(["ca", "issue-client", "edge-9", *where, *out]) == 0
