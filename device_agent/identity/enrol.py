"""Enrolment: a key made here, a token, a pinned authority; in return a certificate and whose commands to obey.

The server is not trusted before it has shown the root whose fingerprint the operator gave, and then proved by TLS that
it has a certificate of it.
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
from device_agent.identity.keypair import key_text, list_addresses, new_key, public_bytes, read_key, read_leaf, request
from schemas.enrolment import EnrolRequest, EnrolResponse

ROOT: Final = "/api/v1/enrolment/root"
ENROL: Final = "/api/v1/enrolment/enrol"
TIMEOUT: Final = 30.0  # seconds without a byte
MAX_ANSWER: Final = 256 * 1024  # bytes
NAMES: Final = ("ca.pem", "device.pem", "device.key")
UPDATES_ROOT: Final = "updates-root.json"


class EnrolmentError(AgentError):
    """No certificate; the text says why."""


@dataclass(frozen=True, slots=True)
class EnrolmentOptions:
    """What to enrol, where, and where the files go."""

    url: str
    token: str
    fingerprint: str
    device_id: str
    folder: Path
    passphrase: str | None = None


def enrol(wish: EnrolmentOptions) -> EnrolResponse:
    """Get a certificate, and write `ca.pem`, `device.pem` and `device.key` into the folder.

    The key is kept before it is sent for, so that a second call after a lost answer gets the same certificate.

    Raises:
        EnrolmentError: the address, the authority, the token or the disk will not do.
    """
    host, port = _address(wish.url)
    root = _root(host, port, wish.fingerprint)
    key = _key(wish)
    body = EnrolRequest(token=wish.token, device_id=wish.device_id, csr=request(key, wish.device_id))
    context = ssl.create_default_context(cadata=root)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    status, raw = _exchange(host, port, context, "POST", ENROL, body.model_dump_json().encode())
    answer = _read(status, raw)
    leaf = read_leaf(answer.certificate.encode())
    if leaf.name != wish.device_id or leaf.key != public_bytes(key.public_key()):
        raise EnrolmentError("the certificate that came is not for this device's key")
    if _digest(answer.trust) != wish.fingerprint:
        raise EnrolmentError("the authority that came is not the one whose fingerprint was given")
    try:
        _write(wish.folder / "ca.pem", answer.trust.encode(), 0o644)
        if answer.updates_root:
            _write(wish.folder / UPDATES_ROOT, answer.updates_root.encode(), 0o644)
        _write(wish.folder / "device.pem", (answer.certificate + answer.chain).encode(), 0o644)
    except OSError as e:
        raise EnrolmentError(f"{e.filename}: {e.strerror}") from e
    return answer


def config_text(device_id: str, folder: Path, answer: EnrolResponse, passphrase_file: Path | None) -> str:
    """The parts of agent.toml that follow from an enrolment."""
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
        f"crl_urls = {json.dumps(list_addresses(answer.certificate.encode()))}",
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


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
        raise EnrolmentError(f"{url}: the controller's address is https://host:port")
    return parts.hostname, parts.port or 443


def _root(host: str, port: int, fingerprint: str) -> str:
    """The root as the server gives it, once its fingerprint is the expected one; nothing else is said on this way."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint decides, and only about this one certificate
    status, raw = _exchange(host, port, context, "GET", ROOT, None)
    if status != 200:
        raise EnrolmentError(f"{host}:{port} answered {status}: it has no authority that devices enrol at")
    text = raw.decode("ascii", "replace")
    if _digest(text) != fingerprint:
        raise EnrolmentError(
            f"{host}:{port} has another authority than the one whose fingerprint was given: "
            "somebody is in between, or the fingerprint is of another installation"
        )
    return text


def _digest(pem: str) -> str:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip() + "\n")).hexdigest()
    except ValueError:
        return ""


def _key(wish: EnrolmentOptions) -> Any:
    path = wish.folder / "device.key"
    try:
        if path.exists():
            return read_key(read_file(path), wish.passphrase)
        wish.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        key = new_key()
        _write(path, key_text(key, wish.passphrase), 0o600)
    except OSError as e:
        raise EnrolmentError(f"{path}: {e.strerror}") from e
    except IdentityError as e:
        raise EnrolmentError(f"{path}: {e}") from e
    return key


def write_config(path: Path, text: str) -> None:
    """Write agent.toml.

    Raises:
        EnrolmentError: the disk refuses.
    """
    try:
        _write(path, text.encode(), 0o600)
    except OSError as e:
        raise EnrolmentError(f"{path}: {e.strerror}") from e


def _write(path: Path, content: bytes, mode: int) -> None:
    write_whole(path, path.with_name(f".{path.name}.new"), content, mode)


def _exchange(
    host: str, port: int, context: ssl.SSLContext, method: str, path: str, body: bytes | None
) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    try:
        connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
        response = connection.getresponse()
        raw = response.read(MAX_ANSWER + 1)
    except ssl.SSLCertVerificationError as e:
        text = f"{host}:{port} has no certificate of that authority for this name: {e.verify_message}"
        raise EnrolmentError(text) from e
    except (OSError, http.client.HTTPException) as e:
        raise EnrolmentError(f"{host}:{port} cannot be reached: {e}; the key is kept, try again") from e
    finally:
        connection.close()
    if len(raw) > MAX_ANSWER:
        raise EnrolmentError(f"{host}:{port}: the answer is larger than {MAX_ANSWER} bytes")
    return response.status, raw


def _read(status: int, raw: bytes) -> EnrolResponse:
    try:
        if status == 200:
            return EnrolResponse.model_validate_json(raw)
        text = str(json.loads(raw)["error"]["message"])
    except (ValidationError, ValueError, KeyError, TypeError) as e:
        raise EnrolmentError(f"the answer ({status}) is not Cordon's: is this the address of its API?") from e
    raise EnrolmentError(text)


class EnrolmentUsageError(EnrolmentError):
    """The command line cannot be."""

    exit_code = ExitCode.USAGE
