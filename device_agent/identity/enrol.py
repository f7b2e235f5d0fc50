"""Enrolment: generates a key, and exchanges a token for a certificate and the controller's keys.

The server is trusted only after it presented the root with the fingerprint that the operator gave, and then proved by
TLS that it has a certificate of that root. The root, as parsed, is the only trust anchor of that connection and of
`ca.pem`; certificates and keys are written as they were parsed and checked, not as they were received.
"""

import base64
import hashlib
import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from device_agent.errors import AgentError, ExitCode
from device_agent.host.certificate import IdentityError, read_file
from device_agent.host.files import write_whole
from device_agent.identity.keypair import (
    certificate_info,
    crl_distribution_points,
    generate_key,
    load_leaf_certificate,
    make_csr,
    private_key_pem,
    public_key_der,
    read_key,
)
from schemas.enrolment import EnrolRequest, EnrolResponse
from schemas.http_deadline import HttpsConnection
from schemas.key_text import KEY_PREFIX, raw_public_key
from schemas.pem import PemError, check_chain, encode, fingerprint, read_certificate, read_chain

ROOT_PATH: Final = "/api/v1/enrolment/root"
ENROL_PATH: Final = "/api/v1/enrolment/enrol"
TIMEOUT_SECONDS: Final = 30.0  # without a byte; a whole answer has `ANSWER_TIMEOUTS` times as long
MAX_ANSWER_BYTES: Final = 256 * 1024
UPDATES_ROOT: Final = "updates-root.json"
KEY: Final = "device.key"
NEW_KEY: Final = "device.key.new"  # beside a complete pair, until the answer is here
CERTIFICATE: Final = "device.pem"
USED: Final = "device.token.sha256"  # of the token that the pair came with: the same one again gives the same pair


class EnrolmentError(AgentError):
    """The enrolment failed; the text says why."""


class EnrolmentUsageError(EnrolmentError):
    """The command line is wrong."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class EnrolmentOptions:
    """The controller's address, the operator's token and fingerprint, the device, and the folder for the files."""

    url: str
    token: str
    fingerprint: str
    device_id: str
    folder: Path
    passphrase: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A checked answer: exactly what was written to the folder, or goes into the configuration.

    `chain` follows the leaf. `updates_root` is the first root of signed updates, empty without updates.
    """

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    root: x509.Certificate
    controller_keys: tuple[str, ...]
    servers: tuple[str, ...]
    updates_url: str
    updates_root: bytes


def enrol(options: EnrolmentOptions) -> Enrolment:
    """Gets a certificate for a new key, and writes `ca.pem`, `device.pem` and `device.key` to the folder.

    The key is written before the request, so that a second call after a lost answer gets the same certificate. A pair
    that is there stays until the answer is here: an enrolment in place fails without harm.

    Raises:
        EnrolmentError: address, authority or token are not valid, or the disk refuses.
    """
    host, port = _parse_url(options.url)
    root = _fetch_pinned_root(host, port, options.fingerprint)
    path, key = _load_or_create_key(options)
    body = EnrolRequest(token=options.token, device_id=options.device_id, csr=make_csr(key, options.device_id))
    context = ssl.create_default_context(cadata=root.public_bytes(Encoding.DER))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    status, raw = _https_request(host, port, context, "POST", ENROL_PATH, body.model_dump_json().encode())
    answer = check_answer(_parse_answer(status, raw), root, options.device_id, public_key_der(key.public_key()))
    try:
        _write(options.folder / "ca.pem", encode([root]).encode(), 0o644)
        if answer.updates_root:
            _write(options.folder / UPDATES_ROOT, answer.updates_root, 0o644)
        if path.name != KEY:
            path.replace(options.folder / KEY)
        _write(options.folder / USED, _mark(options), 0o600)
        _write(options.folder / CERTIFICATE, encode((answer.leaf, *answer.chain)).encode(), 0o644)
    except OSError as e:
        raise EnrolmentError(f"{e.filename}: {e.strerror}") from e
    return answer


def check_answer(answer: EnrolResponse, root: x509.Certificate, device_id: str, key: bytes) -> Enrolment:
    """Returns what a device takes from an answer; `key`: its public key in DER.

    Raises:
        EnrolmentError: not a certificate for the device's key under the pinned root, or malformed keys.
    """
    try:
        leaf, chain = read_certificate(answer.certificate), read_chain(answer.chain)
        if read_certificate(answer.trust) != root:
            raise EnrolmentError("the authority in the answer does not have the given fingerprint")
        info = certificate_info(leaf)
        if info.name != device_id or info.public_key_der != key:
            raise EnrolmentError("the certificate in the answer is not for this device's key")
        check_chain((leaf, *chain, root))
        keys = tuple(KEY_PREFIX + base64.b64encode(raw_public_key(one)).decode() for one in answer.controller_keys)
    except (PemError, IdentityError, ValueError) as e:
        raise EnrolmentError(f"the answer cannot be used: {e}") from e
    updates_root = _parse_updates_root(answer.updates_root) if answer.updates_root else b""
    return Enrolment(leaf, chain, root, keys, answer.servers, answer.updates_url, updates_root)


def _parse_updates_root(text: str) -> bytes:
    """Returns the first root of signed updates, encoded from what was parsed and verified by its own keys."""
    from tuf.api.exceptions import RepositoryError  # large: only where there are updates
    from tuf.api.metadata import Metadata, Root

    try:
        root = Metadata[Root].from_bytes(text.encode())
        if not isinstance(root.signed, Root):
            raise EnrolmentError("the answer's root of updates is other metadata")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
        return root.to_bytes()
    except RepositoryError as e:
        raise EnrolmentError(f"the answer's root of updates cannot be used: {e}") from e


def config_text(device_id: str, folder: Path, answer: Enrolment, passphrase_source: str | None) -> str:
    """Returns agent.toml as it follows from an enrolment."""
    lines = [
        "# Written by cordon-agent enrol. Every key: docs/configuration.md",
        f"device_id = {json.dumps(device_id)}",
        "",
        "[mqtt]",
        f"servers = {json.dumps(list(answer.servers))}",
        f"ca = {json.dumps(str(folder / 'ca.pem'))}",
        f"certificate = {json.dumps(str(folder / 'device.pem'))}",
        f"key = {json.dumps(str(folder / 'device.key'))}",
        *([] if passphrase_source is None else [f"key_passphrase_file = {json.dumps(passphrase_source)}"]),
        "",
        "[identity]",
        "renew = true",
        "",
        "[certificates]",
        f"paths = {json.dumps([str(folder)])}",
        f"trust_store = {json.dumps(str(folder / 'ca.pem'))}",
        f"crl_urls = {json.dumps(crl_distribution_points(answer.leaf))}",
        "",
        "[commands]",
        "# Nothing is ever changed on this device unless `allow` says so.",
        f"controller_keys = {json.dumps(list(answer.controller_keys))}",
        'allow = ["rescan"]',
        "",
        *(_updates_text(folder, answer) if answer.updates_root else []),
    ]
    return "\n".join(lines)


def _updates_text(folder: Path, answer: Enrolment) -> list[str]:
    return [
        "[updates]",
        "# Updates are installed once `allow` has update.install and update.rollback.",
        f"url = {json.dumps(answer.updates_url)}",
        f"root = {json.dumps(str(folder / UPDATES_ROOT))}",
        "",
    ]


def _parse_url(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
        raise EnrolmentError(f"{url}: the controller's address is https://host:port")
    return parts.hostname, parts.port or 443


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fetch_pinned_root(host: str, port: int, wanted: str) -> x509.Certificate:
    """Returns the server's root, whose fingerprint has to match; this connection has no other use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint authenticates the root
    status, raw = _https_request(host, port, context, "GET", ROOT_PATH, None)
    if status != 200:
        raise EnrolmentError(f"{_shown(host, port)} answered {status}: it has no authority for enrolment")
    try:
        root = read_certificate(raw)
    except PemError as e:
        raise EnrolmentError(f"{_shown(host, port)} has an authority that cannot be used: {e}") from e
    if fingerprint(root) != wanted:
        raise EnrolmentError(
            f"{_shown(host, port)} has an authority with another fingerprint: "
            "the connection is intercepted, or the fingerprint belongs to another installation"
        )
    return root


def _load_or_create_key(options: EnrolmentOptions) -> tuple[Path, Any]:
    """Returns the key to be certified, and its file.

    It is the key of an enrolment that was not finished, or that had the same token; else a new one, beside a complete
    pair as `device.key.new`.
    """
    path, new = options.folder / KEY, options.folder / NEW_KEY
    try:
        if new.exists():
            return new, read_key(read_file(new), options.passphrase)
        if path.exists():
            key = read_key(read_file(path), options.passphrase)
            if not _is_pair(options.folder / CERTIFICATE, key) or _is_marked(options):
                return path, key
            path = new
        options.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        key = generate_key()
        _write(path, private_key_pem(key, options.passphrase), 0o600)
    except OSError as e:
        raise EnrolmentError(f"{path}: {e.strerror}") from e
    except IdentityError as e:
        raise EnrolmentError(f"{path}: {e}") from e
    return path, key


def _mark(options: EnrolmentOptions) -> bytes:
    return hashlib.sha256(options.token.encode()).hexdigest().encode()


def _is_marked(options: EnrolmentOptions) -> bool:
    mark = options.folder / USED
    return mark.exists() and read_file(mark) == _mark(options)


def _is_pair(certificate: Path, key: Any) -> bool:
    if not certificate.exists():
        return False
    try:
        return load_leaf_certificate(read_file(certificate)).public_key_der == public_key_der(key.public_key())
    except IdentityError:
        return False


def write_config(path: Path, text: str) -> None:
    """Writes agent.toml (EnrolmentError: the disk refuses)."""
    try:
        _write(path, text.encode(), 0o600)
    except OSError as e:
        raise EnrolmentError(f"{path}: {e.strerror}") from e


def _write(path: Path, content: bytes, mode: int) -> None:
    write_whole(path, path.with_name(f".{path.name}.new"), content, mode)


def _https_request(
    host: str, port: int, context: ssl.SSLContext, method: str, path: str, body: bytes | None
) -> tuple[int, bytes]:
    connection = HttpsConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
        response = connection.getresponse()
        raw = response.read(MAX_ANSWER_BYTES + 1)
    except ssl.SSLCertVerificationError as e:
        text = f"{_shown(host, port)} has no certificate of that authority for this name: {e.verify_message}"
        raise EnrolmentError(text) from e
    except (OSError, http.client.HTTPException) as e:
        raise EnrolmentError(f"{_shown(host, port)} cannot be reached: {e}; the key is saved, try again") from e
    finally:
        connection.close()
    if len(raw) > MAX_ANSWER_BYTES:
        raise EnrolmentError(f"{_shown(host, port)}: the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return response.status, raw


def _parse_answer(status: int, raw: bytes) -> EnrolResponse:
    try:
        if status == 200:
            return EnrolResponse.model_validate_json(raw)
        text = str(json.loads(raw)["error"]["message"])
    except (ValidationError, ValueError, KeyError, TypeError) as e:
        raise EnrolmentError(f"the answer ({status}) is not Cordon's: is this the address of its API?") from e
    raise EnrolmentError(text)
