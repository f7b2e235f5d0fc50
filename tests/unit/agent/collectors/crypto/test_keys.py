"""Private keys, generated in every kind and format, with several owners and file modes."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.collectors.base import days_between
from device_agent.collectors.crypto.crypto_files import MAX_READ_BYTES, pem_blocks
from device_agent.collectors.crypto.key_asn1 import KeyFormat
from device_agent.collectors.crypto.key_format import MAX_KEYS, read_keys
from device_agent.collectors.crypto.keys import KeyCollector
from device_agent.domain.report_limits import normalise_findings
from device_agent.errors import FactsUnavailableError, NotApplicableError
from device_agent.host.system import System
from tests.support.pki import NOW, Authority, key_pem
from tests.support.root_folder import gap_texts
from tests.support.unprivileged import unprivileged

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
DSA = dsa.generate_private_key(key_size=1024)


def key_format(data: bytes) -> KeyFormat | None:
    """Returns the only key in a file."""
    found = read_keys(data)
    assert not found.gaps
    assert len(found.value) <= 1
    return found.value[0] if found.value else None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (key_pem(RSA), KeyFormat("pkcs8", "rsa", 2048, protected=False)),
        (key_pem(SHORT), KeyFormat("pkcs8", "rsa", 1024, protected=False)),
        (key_pem(EC), KeyFormat("pkcs8", "ec", 384, protected=False)),
        (key_pem(ED), KeyFormat("pkcs8", "ed25519", 256, protected=False)),
        (key_pem(DSA), KeyFormat("pkcs8", "dsa", 1024, protected=False)),
        (key_pem(ed448.Ed448PrivateKey.generate()), KeyFormat("pkcs8", "ed448", 456, protected=False)),
        (key_pem(x25519.X25519PrivateKey.generate()), KeyFormat("pkcs8", "x25519", 256, protected=False)),
        (key_pem(RSA, "secret"), KeyFormat("pkcs8", "unknown", 0, protected=True)),
        (key_pem(RSA, form="TraditionalOpenSSL"), KeyFormat("pkcs1", "rsa", 2048, protected=False)),
        (key_pem(EC, form="TraditionalOpenSSL"), KeyFormat("sec1", "ec", 384, protected=False)),
        (key_pem(DSA, form="TraditionalOpenSSL"), KeyFormat("pem", "dsa", 1024, protected=False)),
        (key_pem(RSA, "secret", "TraditionalOpenSSL"), KeyFormat("pkcs1", "rsa", 0, protected=True)),
        (key_pem(EC, "secret", "TraditionalOpenSSL"), KeyFormat("sec1", "ec", 0, protected=True)),
        (key_pem(RSA, form="OpenSSH"), KeyFormat("openssh", "rsa", 2048, protected=False)),
        (key_pem(ED, form="OpenSSH"), KeyFormat("openssh", "ed25519", 256, protected=False)),
        (key_pem(EC, form="OpenSSH"), KeyFormat("openssh", "ec", 384, protected=False)),
        (Authority("x").pem + key_pem(EC), KeyFormat("pkcs8", "ec", 384, protected=False)),
        (b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + key_pem(
            EC, form="TraditionalOpenSSL"), KeyFormat("sec1", "ec", 384, protected=False)),
        (Authority("x").pem, None),
        (RSA.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo), None),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: aes256-cbc\r\n",
         KeyFormat("ppk", "ed25519", 256, protected=True)),
        (b"PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\n", KeyFormat("ppk", "rsa", 0, protected=False)),
        (b"", None),
        (b"hello", None),
        (b"-----BEGIN PRIVATE KEY-----\nMIIB", KeyFormat("pkcs8")),
        (b"-----BEGIN RSA PRIVATE KEY-----\n!!!!\n-----END RSA PRIVATE KEY-----",
         KeyFormat("pkcs1", "rsa", 0, protected=False)),
        (key_pem(RSA)[:900], KeyFormat("pkcs8")),
    ],
)  # fmt: skip
def test_the_format_and_kind_of_a_key_are_recognised(content: bytes, expected: KeyFormat | None) -> None:
    assert key_format(content) == expected


def test_der_keys_are_recognised() -> None:
    form = serialization.PrivateFormat
    der = RSA.private_bytes(serialization.Encoding.DER, form.PKCS8, serialization.NoEncryption())
    assert key_format(der) == KeyFormat("pkcs8", "rsa", 2048, protected=False)
    encrypted = RSA.private_bytes(serialization.Encoding.DER, form.PKCS8, serialization.BestAvailableEncryption(b"x"))
    assert key_format(encrypted) == KeyFormat("pkcs8", protected=True)
    store = pkcs12.serialize_key_and_certificates(b"n", RSA, None, None, serialization.BestAvailableEncryption(b"x"))
    assert key_format(store) == KeyFormat("pkcs12")
    assert key_format(Authority("x").own.certificate.public_bytes(serialization.Encoding.DER)) is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program here")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], ("rsa", 3072, False)),
        (["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ("ec", 256, False)),
        (["genpkey", "-algorithm", "ED25519", "-aes256", "-pass", "pass:secret"], ("unknown", 0, True)),
        (["ecparam", "-name", "secp521r1", "-genkey"], ("ec", 521, False)),
    ],
)
def test_keys_of_the_installed_openssl_are_recognised(arguments: list[str], expected: tuple[str, int, bool]) -> None:
    content = subprocess.run(["openssl", *arguments], capture_output=True, check=True, timeout=60).stdout
    recognised = key_format(content)
    assert recognised is not None
    assert (recognised.kind, recognised.bits, recognised.protected) == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"kty": "EC", "crv": "P-256", "d": "c"', "JSON Web Key"),
        (b"[Interface]\nPrivateKey = !2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=\n", "PrivateKey of WireGuard"),
        (key_pem(EC) * (MAX_KEYS + 1), "first 16 keys"),
    ],
)
def test_what_looks_like_a_key_and_is_not_understood_is_a_gap(tmp_path: Path, content: bytes, reason: str) -> None:
    prepare_keys(tmp_path, odd=(content, 0o600))
    (text,) = gap_texts(collect(tmp_path))
    assert text.startswith("entries: ")
    assert reason in text
    assert text.endswith("(/etc/ssl/private/odd)")


def test_each_key_of_a_file_is_an_entry(tmp_path: Path) -> None:
    prepare_keys(tmp_path, both=(key_pem(ED, "s") + key_pem(RSA), 0o600))
    entries = [(entry["path"], entry["protected"]) for entry in collect(tmp_path)["entries"]]
    assert entries == [("/etc/ssl/private/both", True), ("/etc/ssl/private/both", False)]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_the_kind_of_a_protected_ssh_key_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "id"
    argv = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "secret", "-f", str(path)]
    subprocess.run(argv, check=True, timeout=60)
    assert key_format(path.read_bytes()) == KeyFormat("openssh", "rsa", 2048, protected=True)


def prepare_keys(root: Path, **files: tuple[bytes, int]) -> Path:
    folder = root / "etc/ssl/private"
    folder.mkdir(parents=True)
    for name, (content, mode) in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(mode)
        os.utime(folder / name, (NOW.timestamp(), NOW.timestamp() - 40 * 86400))
    (root / "etc/passwd").write_text(f"owner:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\nbroken\n:::\n")
    (root / "etc/group").write_text(f"owners:x:{os.getgid()}:\n")
    for directory in (folder, folder.parent, folder.parent.parent, root):
        directory.chmod(0o755)
    return folder


def collect(root: Path, *paths: str, now: float = NOW.timestamp()) -> dict[str, Any]:
    section = KeyCollector([Path(path) for path in paths], clock=lambda: now)(System(root))
    sent = normalise_findings({"keys": section}).sections["keys"]
    assert sent["state"] == "ok", sent
    return section


def test_owner_mode_and_readers_of_a_key(tmp_path: Path) -> None:
    folder = prepare_keys(
        tmp_path, good=(key_pem(EC, "s"), 0o600), group=(key_pem(EC), 0o640), all=(key_pem(ED), 0o644)
    )
    section = collect(tmp_path)
    assert gap_texts(section) == []
    entries = {entry["path"].rpartition("/")[2]: entry for entry in section["entries"]}
    good = entries["good"]
    assert good == {
        "path": "/etc/ssl/private/good",
        "format": "pkcs8",
        "kind": "unknown",
        "bits": 0,
        "protected": True,
        "age_days": 40,
        "owner": "owner",
        "group": "owners",
        "mode": "0600",
        "folder_owner": "owner",
        "folder_group": "owners",
        "folder_mode": "0755",
        "readable_by": [],
        "replaceable_by": [],
    }
    assert [entries[name]["readable_by"] for name in ("group", "all")] == [["group"], ["group", "others"]]
    folder.chmod(0o750)
    entries = {entry["path"].rpartition("/")[2]: entry for entry in collect(tmp_path)["entries"]}
    assert entries["all"]["readable_by"] == ["group"], "others cannot enter the folder"
    folder.chmod(0o777)
    assert collect(tmp_path)["entries"][0]["replaceable_by"] == ["group", "others"]
    folder.chmod(0o1777)
    assert {tuple(entry["replaceable_by"]) for entry in collect(tmp_path)["entries"]} == {()}


def test_ages_change_only_at_midnight(tmp_path: Path) -> None:
    prepare_keys(tmp_path, key=(key_pem(EC), 0o600))
    midnight = NOW.timestamp() // 86400 * 86400
    ages = [collect(tmp_path, now=midnight + second)["entries"][0]["age_days"] for second in (-1, 0, 86399, 86400)]
    assert ages == [39, 40, 40, 41]
    assert collect(tmp_path, now=0.0)["entries"][0]["age_days"] == 0
    assert days_between(0.0, 86399.9) == 0


def test_the_content_of_a_key_is_never_reported(tmp_path: Path) -> None:
    prepare_keys(tmp_path, key=(key_pem(RSA), 0o600))
    text = repr(collect(tmp_path))
    body = "".join(key_pem(RSA).decode().splitlines()[1:-1])
    assert not any(body[at : at + 12] in text for at in range(0, len(body) - 12, 4))


def test_links_are_resolved_pipes_skipped_and_depth_limited(tmp_path: Path) -> None:
    folder = prepare_keys(tmp_path, key=(key_pem(EC), 0o600))
    (tmp_path / "outside").write_bytes(key_pem(EC))
    os.mkfifo(folder / "pipe")
    (folder / "alias").symlink_to("key")
    (folder / "out").symlink_to("/etc/hostname")
    (folder / "nowhere").symlink_to("missing")
    (folder / "loop").symlink_to(".")
    (folder / "large").write_bytes(key_pem(EC) + b"x" * MAX_READ_BYTES)
    deep = folder.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    section = collect(tmp_path)
    assert [entry["path"].rpartition("/")[2] for entry in section["partial"]["entries"]] == ["alias", "large"]
    assert gap_texts(section) == [
        f"entries: larger than {MAX_READ_BYTES} bytes, only the first were read (/etc/ssl/private/large)",
        "entries: more than 6 folders deep (/etc/ssl/private/a/b/c/d/e/f/g)",
    ]
    assert gap_texts(collect(tmp_path, "/missing")) == ["entries: No such file or directory (/missing)"]


def test_a_host_without_key_folders_is_not_applicable(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="no folder of keys"):
        collect(tmp_path)


def test_a_closed_folder_needs_root(tmp_path: Path) -> None:
    prepare_keys(tmp_path).chmod(0)
    with unprivileged(), pytest.raises(FactsUnavailableError, match="needs root"):
        KeyCollector([Path("/etc/ssl/private")])(System(tmp_path))


SAMPLES = [key_pem(RSA), key_pem(EC, form="TraditionalOpenSSL"), key_pem(ED, form="OpenSSH"), key_pem(DSA)]
DER = [RSA.private_bytes(
    serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SAMPLES + DER), st.integers(0, 2000), st.binary(max_size=40))
def test_malformed_keys_never_raise(sample: bytes, at: int, junk: bytes) -> None:
    found = read_keys(sample[:at] + junk + sample[at + len(junk) :]).value
    assert all(0 <= key.bits <= 65_536 and key.format for key in found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_an_error(data: bytes) -> None:
    for start in (
        b"",
        b"\x30",
        b"-----BEGIN PRIVATE KEY-----\n",
        b"\xfe\xed\xfe\xed",
        b"\0\0\0",
        b"PuTTY-User-Key-File-",
        b"{",
    ):
        read_keys(start + data)


def test_many_pem_markers_take_linear_time() -> None:
    markers = b"-----BEGIN A-----\n" * 200_000
    assert sum(1 for _ in pem_blocks(markers)) == 200_000
