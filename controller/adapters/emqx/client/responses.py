"""Maps an answer of EMQX's HTTP API to its data or to an error of the port.

No HTTP library in here: status, content type and bytes in, data or an exception out.
"""

import json
from typing import Final

from controller.ports.errors import (
    BrokerAnswerError,
    BrokerConflictError,
    BrokerError,
    BrokerNotFoundError,
    BrokerRefusedError,
)
from schemas.base import clean_text

MAX_MESSAGE: Final = 300  # characters of EMQX's message in an error's text

# The scope of an API key that covers a path (EMQX 6.1.2 and later; before, a key has all of them or none).
SCOPES: Final = (
    ("/clients", "connections"),
    ("/banned", "connections"),
    ("/authorization", "access_control"),
    ("/authentication", "access_control"),
    ("/publish", "publish"),
    ("/nodes", "cluster_operations"),
    ("/cluster", "cluster_operations"),
    ("/configs", "system"),
    ("/listeners", "system"),
    ("/metrics", "monitoring"),
    ("/stats", "monitoring"),
)

_UNCOMBINED: Final = "system"


class EmqxConflictError(BrokerConflictError):
    """The row exists already. `message` is EMQX's whole message: for a ban the existing row as JSON."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(text)
        self.message = message


def response_data(call: str, path: str, status: int, content_type: str, raw: bytes, *, is_text: bool = False) -> object:
    """Returns the data of a good answer, `None` when it has no body.

    Args:
        call: address, method and path, for error texts.
        path: below `/api/v5`.
        status: HTTP status.
        content_type: of the answer, empty if it had none.
        raw: the whole body.
        is_text: whether text is expected instead of JSON.

    Raises:
        BrokerRefusedError: 400, 401, 403 and other 4xx.
        BrokerNotFoundError: 404 with an error code of EMQX's.
        EmqxConflictError: 409, or 400 with `ALREADY_EXISTS`.
        BrokerError: 408, 429 and 5xx, worth a retry.
        BrokerAnswerError: anything that is not an answer of this API.
    """
    if 200 <= status < 300:
        return _text(call, content_type, raw) if is_text else _data(call, raw)
    code, message = _error_code(raw)
    detail = clean_text(f"{status} {code} {message}".strip(), MAX_MESSAGE)
    if status in {401, 403}:
        raise BrokerRefusedError(f"{call}: {_missing_right(path, status, code)} ({detail})")
    if status in {408, 429} or status >= 500:
        raise BrokerError(f"{call}: EMQX cannot answer now ({detail})")
    if not code:
        # A 404 from a proxy or another server must never be taken for "this client does not exist".
        kind = content_type or "nothing"
        raise BrokerAnswerError(f"{call}: {status} with {clean_text(kind, MAX_MESSAGE)}: not an answer of EMQX's API")
    if status == 404:
        raise BrokerNotFoundError(f"{call}: not there ({detail})")
    if status == 409 or code == "ALREADY_EXISTS":
        raise EmqxConflictError(f"{call}: there already ({detail})", message)
    if 400 <= status < 500:
        raise BrokerRefusedError(f"{call}: refused ({detail})")
    raise BrokerAnswerError(f"{call}: unexpected status ({detail})")


def _data(call: str, raw: bytes) -> object:
    if not raw:
        return None
    try:
        data: object = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise BrokerAnswerError(f"{call}: the answer is not JSON ({len(raw)} bytes)") from e
    return data


def _text(call: str, content_type: str, raw: bytes) -> str:
    if content_type.partition(";")[0].strip() != "text/plain":
        raise BrokerAnswerError(f"{call}: the answer is not text ({clean_text(content_type, MAX_MESSAGE)})")
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise BrokerAnswerError(f"{call}: the answer is not UTF-8 ({len(raw)} bytes)") from e


def _error_code(raw: bytes) -> tuple[str, str]:
    """Returns EMQX's `code` and `message`; the code is empty when the body is no error of EMQX's."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(data, dict):
        return "", ""
    code = data.get("code", data.get("reason_code", ""))
    message = data.get("message", "")
    return str(code), message if isinstance(message, str) else json.dumps(message)


def _missing_right(path: str, status: int, code: str) -> str:
    if code == "API_KEY_NOT_ALLOW":
        return "EMQX lets no API key do this, only a dashboard login"
    if status == 401:
        return "EMQX does not accept the API key: key or secret is wrong, or the key is disabled or expired"
    scope = next((scope for prefix, scope in SCOPES if path.startswith(prefix)), "")
    if scope == _UNCOMBINED:
        return (
            f"the API key lacks the scope {scope}, which EMQX combines with no other: setup and audit need a key with "
            "role administrator and no scopes"
        )
    needs = f"role administrator and the scope {scope}" if scope else "role administrator"
    return f"the API key lacks a right: it needs {needs}"
