"""Certificates and keys from outside: what was checked is what is trusted, stored and used."""

import base64
import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.x509.authority import registered
from controller.adapters.x509.folder import take_in
from controller.adapters.x509.foreign import X509ExternalCrls
from controller.ports.certificates import AuthorityError
from controller.ports.errors import SettingsError
from device_agent.host.certificate import IdentityError
from device_agent.identity.enrol import (
    EnrolmentError,
    EnrolmentOptions,
    check_answer,
    enrol,
)
from device_agent.identity.keypair import public_key_der
from device_agent.identity.store import IdentityStore
from schemas.enrolment import EnrolResponse
from schemas.key_text import raw_public_key
from schemas.pem import PemError, fingerprint, read_certificate, read_certificates, read_crl, read_request
from tests.support.pki import NOW, Authority, IssuedCertificate, key_pem
from tests.support.updates import repository

GENUINE: Final = Authority("genuine root")
EVIL: Final = Authority("evil root")
DEVICE: Final = GENUINE.issue("edge-17")
COMMAND_KEY: Final = "ed25519:" + base64.b64encode(bytes(range(32))).decode()
NOISE: Final = b"# a comment\n"
BAGS: Final = b"Bag Attributes\n    friendlyName: root\nsubject=CN = root\n"
BOM: Final = b"\xef\xbb\xbf"


def headed(pem: bytes) -> bytes:
    """The block with a header, as in old encrypted keys."""
    return pem.replace(b"-----\n", b"-----\nProc-Type: 4,CLEAR\n\n", 1)


def padded(pem: bytes, extra: bytes) -> bytes:
    """The block with more base64 after the padding."""
    return pem.replace(b"\n-----END", extra + b"\n-----END")


def relabelled(pem: bytes, label: bytes) -> bytes:
    return pem.replace(b"CERTIFICATE", label)


def with_length(one: Authority, remainder: int) -> Authority:
    """An authority whose certificate's length in DER leaves this remainder by 3: none is padded only at 0."""
    made = one
    while len(made.own.certificate.public_bytes(Encoding.DER)) % 3 != remainder:
        made = Authority(f"{made.name}x")
    return made


def reencoded(good: bytes, evil: bytes) -> bytes:
    """One block with both certificates in DER."""
    der = b"".join(ssl.PEM_cert_to_DER_cert(one.decode()) for one in (good, evil))
    return ssl.DER_cert_to_PEM_cert(der).encode()


TRICKS: Final[dict[str, Callable[[bytes, bytes], bytes]]] = {
    "another after it": lambda good, evil: good + evil,
    "another before it": lambda good, evil: evil + good,
    "another after a comment": lambda good, evil: good + NOISE + evil,
    "the same twice": lambda good, _: good + good,
    "another without a line between": lambda good, evil: good.rstrip() + evil,
    "another within it": lambda good, evil: good.replace(b"\n-----END", b"\n" + evil + b"-----END"),
    "another with another label": lambda good, evil: good + relabelled(evil, b"TRUSTED CERTIFICATE"),
    "another with the old label": lambda good, evil: good + relabelled(evil, b"X509 CERTIFICATE"),
    "base64 after the padding": lambda good, evil: padded(good, b"=" + evil.split(b"\n")[1]),
    "der after it": reencoded,
    "a comment before it": lambda good, _: NOISE + good,
    "a comment after it": lambda good, _: good + NOISE,
    "bag attributes": lambda good, _: BAGS + good,
    "a byte order mark": lambda good, _: BOM + good,
    "a header": lambda good, _: headed(good),
    "a null byte": lambda good, _: good + b"\0",
    "a private key": lambda good, _: good + key_pem(EVIL.own.key),
    "a list": lambda good, _: good + EVIL.crl(),
    "DER": lambda good, _: ssl.PEM_cert_to_DER_cert(good.decode()),
    "nothing": lambda good, _: good[:0],
}


@pytest.mark.parametrize("remainder", [0, 1, 2])
@pytest.mark.parametrize("trick", TRICKS)
def test_one_certificate_is_one_and_nothing_else(trick: str, remainder: int) -> None:
    good = with_length(GENUINE, remainder)
    with pytest.raises(PemError):
        read_certificate(TRICKS[trick](good.pem, EVIL.pem))
    assert read_certificate(good.pem) == good.own.certificate


PIECES: Final = (
    *(GENUINE.pem, GENUINE.pem.replace(b"\n", b"\r\n"), EVIL.pem, DEVICE.pem, GENUINE.crl(), key_pem(EVIL.own.key)),
    *(NOISE, BAGS, BOM, b"\n", b"\r\n", b" ", b"\0", b"="),
    *(b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----"),
    *(relabelled(EVIL.pem, b"TRUSTED CERTIFICATE"), headed(EVIL.pem), padded(EVIL.pem, b"==")),
    reencoded(GENUINE.pem, EVIL.pem),
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Certificates with other things around, some with bytes changed."""
    text = bytearray(b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=5))))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=2))
    return bytes(text)


@given(texts(), st.integers(1, 3))
def test_what_is_accepted_is_all_that_openssl_would_trust_of_the_text(text: bytes, most: int) -> None:
    try:
        found = read_certificates(text, most)
    except PemError:
        return
    assert 1 <= len(found) <= most
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text.decode("ascii"))
    except ssl.SSLError:
        return  # it trusts none of it: a changed byte that only OpenSSL minds
    der = {one.public_bytes(Encoding.DER) for one in found}
    assert context.cert_store_stats()["x509"] == len(der)
    assert set(context.get_ca_certs(binary_form=True)) <= der
    assert text.count(b"-----BEGIN") == len(found)


# Enrolment


class Interceptor:
    """Answers as a controller, with a certificate of its own root; remembers the tokens it is sent."""

    def __init__(self, folder: Path, root: bytes) -> None:
        self.root = root
        self.tokens: list[str] = []
        server = EVIL.issue("localhost", names=["localhost"])
        (folder / "server.pem").write_bytes(server.pem)
        (folder / "server.key").write_bytes(key_pem(server.key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        interceptor = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_args: Any) -> None:
                """Nothing."""

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                self._answer(interceptor.root)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                interceptor.tokens.append(body["token"])
                self._answer(b"{}")

        return Handler


@pytest.fixture
def interceptor(tmp_path: Path) -> Iterator[Callable[[bytes], tuple[Interceptor, str]]]:
    with contextlib.ExitStack() as stack:

        def start(root: bytes) -> tuple[Interceptor, str]:
            made = Interceptor(tmp_path, root)
            thread = threading.Thread(target=made.server.serve_forever, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(made.server.server_close)
            stack.callback(made.server.shutdown)
            return made, f"https://localhost:{made.server.server_port}"

        yield start


@pytest.mark.parametrize("trick", ["another after it", "another before it", "another after a comment", "der after it"])
def test_the_pinned_root_brings_no_other_root_along(
    trick: str, tmp_path: Path, interceptor: Callable[[bytes], tuple[Interceptor, str]]
) -> None:
    """The server's own certificate is of the second root: with it trusted, it would be sent the token."""
    genuine = with_length(GENUINE, 1)
    made, url = interceptor(TRICKS[trick](genuine.pem, EVIL.pem))
    options = EnrolmentOptions(url, "secret", fingerprint(genuine.own.certificate), "edge-17", tmp_path / "device")
    with pytest.raises(EnrolmentError, match="cannot be used"):
        enrol(options)
    assert made.tokens == []
    assert not (tmp_path / "device" / "ca.pem").exists()


def answered(**changes: Any) -> EnrolResponse:
    body = {
        "certificate": DEVICE.pem.decode(),
        "trust": GENUINE.pem.decode(),
        "controller_keys": [COMMAND_KEY],
        "servers": ["mqtts://b:8883"],
        "not_after": NOW,
        "renew_at": NOW,
    }
    return EnrolResponse.model_validate({**body, **changes})


def check(answer: EnrolResponse) -> None:
    check_answer(answer, GENUINE.own.certificate, "edge-17", public_key_der(DEVICE.key.public_key()))


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("part", ["certificate", "trust", "chain"])
def test_a_part_of_the_enrolment_answer_with_more_in_it_is_refused(part: str, trick: str) -> None:
    check(answered())
    genuine = (DEVICE if part == "certificate" else GENUINE).pem
    with pytest.raises((EnrolmentError, ValueError)):
        check(answered(**{part: TRICKS[trick](genuine, EVIL.pem).decode("latin-1") or " "}))


@pytest.mark.parametrize(
    "changes",
    [
        {"trust": EVIL.pem.decode()},
        {"certificate": GENUINE.issue("edge-17").pem.decode()},
        {"certificate": EVIL.issue("edge-17", DEVICE.key).pem.decode()},
        {"chain": EVIL.pem.decode()},
        {"controller_keys": [COMMAND_KEY + "\n"]},
        {"controller_keys": [COMMAND_KEY[:-2] + "9="]},
        {"controller_keys": [COMMAND_KEY, "ed25519:AAAA"]},
    ],
)
def test_an_enrolment_answer_that_does_not_follow_from_the_root_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EnrolmentError):
        check(answered(**changes))


def test_the_root_of_updates_is_verified_and_written_as_it_was_parsed(tmp_path: Path) -> None:
    text = repository(tmp_path).first_root.decode()
    taken = check_answer(
        answered(updates_root='{"signed": {}, ' + text.lstrip()[1:]),
        *(GENUINE.own.certificate, "edge-17", public_key_der(DEVICE.key.public_key())),
    )
    assert json.loads(taken.updates_root) == json.loads(text)
    assert taken.updates_root.count(b'"signed"') == 1
    other = json.loads(text)
    other["signed"]["version"] += 1
    no_root = json.loads(text)
    common = {key: no_root["signed"][key] for key in ("spec_version", "version", "expires")}
    no_root["signed"] = {"_type": "timestamp", **common, "meta": {"snapshot.json": {"version": 1}}}
    for bad in (json.dumps(other), json.dumps(no_root), "{}", "[]", "x"):
        with pytest.raises(EnrolmentError, match="root of updates"):
            check(answered(updates_root=bad))


# Renewal


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("part", ["certificate", "chain"])
def test_a_renewed_certificate_brings_nothing_along(tmp_path: Path, part: str, trick: str) -> None:
    store = IdentityStore(tmp_path, None)
    leaf = GENUINE.issue("edge-17", store.pending_key())
    parts = {"certificate": leaf.pem.decode(), "chain": GENUINE.pem.decode()}
    parts[part] = TRICKS[trick](parts[part].encode(), EVIL.pem).decode("latin-1") or " "
    with pytest.raises(IdentityError):
        store.save_candidate(parts["certificate"], parts["chain"], "edge-17")
    assert not store.candidate.exists()
    store.save_candidate(leaf.pem.decode(), GENUINE.pem.decode(), "edge-17")
    content = store.candidate.read_bytes()
    assert content.count(b"-----BEGIN") == 3
    assert content.endswith(leaf.pem + GENUINE.pem)


# The controller's own imports


def test_a_request_with_more_in_it_is_refused() -> None:
    key = GENUINE.issue("edge-1").key
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(GENUINE.own.certificate.subject)
        .sign(key, GENUINE.own.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
        .public_bytes(Encoding.PEM)
    )
    read_request(request)
    for more in (request + request, NOISE + request, request + EVIL.pem, BOM + request, headed(request)):
        with pytest.raises(PemError):
            read_request(more)


def test_two_lists_in_one_file_are_refused(tmp_path: Path) -> None:
    """Else the second one's serial numbers are never revoked, and nobody is told."""
    first, second = GENUINE.crl(), GENUINE.crl(DEVICE)
    der = read_crl(first).public_bytes(Encoding.DER)
    assert read_crl(der).issuer == GENUINE.own.certificate.subject
    for more in (first + second, NOISE + first, first + GENUINE.pem, BOM + first, der + der, b"\n" + der):
        with pytest.raises(PemError):
            read_crl(more)
    issuers = tmp_path / "issuers.pem"
    issuers.write_bytes(GENUINE.pem)
    X509ExternalCrls(issuers)
    issuers.write_bytes(GENUINE.pem + NOISE + EVIL.pem)
    with pytest.raises(SettingsError, match="nothing else"):
        X509ExternalCrls(issuers)


def test_registering_takes_one_certificate_with_its_own_chain() -> None:
    assert registered(DEVICE.pem + GENUINE.pem, 0).name == "edge-17"
    for more in (DEVICE.pem + EVIL.pem, DEVICE.pem + GENUINE.issue("edge-18").pem, DEVICE.pem + NOISE):
        with pytest.raises(AuthorityError):
            registered(more, 0)


def test_an_imported_list_is_signed_by_the_imported_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.adapters.x509.folder._check_authority", lambda *_: None)
    issuing = Authority("issuing", GENUINE)
    files: dict[str, bytes | IssuedCertificate] = {
        "root.pem": GENUINE.pem,
        "issuing.pem": issuing.pem,
        "issuing.key": key_pem(issuing.own.key),
        "root.crl": Authority("genuine root").crl(),
    }
    for name, content in files.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(content)  # type: ignore[arg-type]
    root, middle, key, crl = (tmp_path / name for name in files)
    with pytest.raises(AuthorityError, match="not signed by"):
        take_in(tmp_path / "ca", root, middle, key, None, crl)
    crl.write_bytes(GENUINE.crl())
    take_in(tmp_path / "ca", root, middle, key, None, crl)


@given(st.binary(min_size=32, max_size=32), st.data())
def test_a_command_key_has_one_text(raw: bytes, data: st.DataObject) -> None:
    text = "ed25519:" + base64.b64encode(raw).decode()
    assert raw_public_key(text) == raw
    at = data.draw(st.integers(0, len(text)))
    other = text[:at] + data.draw(st.text(max_size=2)) + text[at + data.draw(st.integers(0, 1)) :]
    if other != text:
        with contextlib.suppress(ValueError):
            assert raw_public_key(other) != raw
