"""Enrolment: generates a key, and exchanges a token for a certificate and the controller's keys.

The server is trusted only after it presented the root with the fingerprint that the operator gave, and then proved by
TLS that it has a certificate of that root.
"""

import hashlib
import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from device_agent.errors import AgentError, ExitCode
from device_agent.host.certificate import IdentityError, read_file
from device_agent.host.files import write_whole
from device_agent.identity.keypair import (
    crl_distribution_points,
    generate_key,
    load_leaf_certificate,
    make_csr,
    private_key_pem,
    public_key_der,
    read_key,
)
from schemas.enrolment import EnrolRequest, EnrolResponse

ROOT_PATH: Final = "/api/v1/enrolment/root"
ENROL_PATH: Final = "/api/v1/enrolment/enrol"
TIMEOUT_SECONDS: Final = 30.0  # without a byte
MAX_ANSWER_BYTES: Final = 256 * 1024
UPDATES_ROOT: Final = "updates-root.json"


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


def enrol(options: EnrolmentOptions) -> EnrolResponse:
    """Gets a certificate, and writes `ca.pem`, `device.pem` and `device.key` to the folder.

    The key is written before the request, so that a second call after a lost answer gets the same certificate.

    Raises:
        EnrolmentError: address, authority or token are not valid, or the disk refuses.
    """
    host, port = _parse_url(options.url)
    root = _fetch_pinned_root(host, port, options.fingerprint)
    key = _load_or_create_key(options)
    body = EnrolRequest(token=options.token, device_id=options.device_id, csr=make_csr(key, options.device_id))
    context = ssl.create_default_context(cadata=root)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    status, raw = _https_request(host, port, context, "POST", ENROL_PATH, body.model_dump_json().encode())
    answer = _parse_answer(status, raw)
    info = load_leaf_certificate(answer.certificate.encode())
    if info.name != options.device_id or info.public_key_der != public_key_der(key.public_key()):
        raise EnrolmentError("the certificate in the answer is not for this device's key")
    if _digest(answer.trust) != options.fingerprint:
        raise EnrolmentError("the authority in the answer does not have the given fingerprint")
    try:
        _write(options.folder / "ca.pem", answer.trust.encode(), 0o644)
        if answer.updates_root:
            _write(options.folder / UPDATES_ROOT, answer.updates_root.encode(), 0o644)
        _write(options.folder / "device.pem", (answer.certificate + answer.chain).encode(), 0o644)
    except OSError as e:
        raise EnrolmentError(f"{e.filename}: {e.strerror}") from e
    return answer


def config_text(device_id: str, folder: Path, answer: EnrolResponse, passphrase_file: Path | None) -> str:
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
        *([] if passphrase_file is None else [f"key_passphrase_file = {json.dumps(str(passphrase_file))}"]),
        "",
        "[identity]",
        "renew = true",
        "",
        "[certificates]",
        f"paths = {json.dumps([str(folder)])}",
        f"trust_store = {json.dumps(str(folder / 'ca.pem'))}",
        f"crl_urls = {json.dumps(crl_distribution_points(answer.certificate.encode()))}",
        "",
        "[commands]",
        "# Nothing is ever changed on this device unless `allow` says so.",
        f"controller_keys = {json.dumps(list(answer.controller_keys))}",
        'allow = ["rescan"]',
        "",
        *(_updates_text(folder, answer) if answer.updates_root else []),
    ]
    return "\n".join(lines)


def _updates_text(folder: Path, answer: EnrolResponse) -> list[str]:
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


def _fetch_pinned_root(host: str, port: int, fingerprint: str) -> str:
    """Returns the server's root, whose fingerprint has to match; this connection has no other use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint authenticates the root
    status, raw = _https_request(host, port, context, "GET", ROOT_PATH, None)
    if status != 200:
        raise EnrolmentError(f"{host}:{port} answered {status}: it has no authority for enrolment")
    text = raw.decode("ascii", "replace")
    if _digest(text) != fingerprint:
        raise EnrolmentError(
            f"{host}:{port} has an authority with another fingerprint: "
            "the connection is intercepted, or the fingerprint belongs to another installation"
        )
    return text


def _digest(pem: str) -> str:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip() + "\n")).hexdigest()
    except ValueError:
        return ""


def _load_or_create_key(options: EnrolmentOptions) -> Any:
    path = options.folder / "device.key"
    try:
        if path.exists():
            return read_key(read_file(path), options.passphrase)
        options.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        key = generate_key()
        _write(path, private_key_pem(key, options.passphrase), 0o600)
    except OSError as e:
        raise EnrolmentError(f"{path}: {e.strerror}") from e
    except IdentityError as e:
        raise EnrolmentError(f"{path}: {e}") from e
    return key


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
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
        response = connection.getresponse()
        raw = response.read(MAX_ANSWER_BYTES + 1)
    except ssl.SSLCertVerificationError as e:
        text = f"{host}:{port} has no certificate of that authority for this name: {e.verify_message}"
        raise EnrolmentError(text) from e
    except (OSError, http.client.HTTPException) as e:
        raise EnrolmentError(f"{host}:{port} cannot be reached: {e}; the key is saved, try again") from e
    finally:
        connection.close()
    if len(raw) > MAX_ANSWER_BYTES:
        raise EnrolmentError(f"{host}:{port}: the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return response.status, raw


def _parse_answer(status: int, raw: bytes) -> EnrolResponse:
    try:
        if status == 200:
            return EnrolResponse.model_validate_json(raw)
        text = str(json.loads(raw)["error"]["message"])
    except (ValidationError, ValueError, KeyError, TypeError) as e:
        raise EnrolmentError(f"the answer ({status}) is not Cordon's: is this the address of its API?") from e
    raise EnrolmentError(text)
