"""The one place that asks a web server, for what the configuration names: bounded, and never redirected."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

SECONDS: Final = 10.0
_SCHEMES: Final = frozenset({"http", "https"})


class FetchError(Exception):
    """It could not be fetched; the text says why in a few words."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An answer that points elsewhere is no answer: nobody configured that place."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


def fetch(url: str, *, max_bytes: int, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """What is at an address; with `body` it is sent there (POST).

    Raises:
        FetchError: another scheme, no answer, another status than 200, or more than `max_bytes`.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise FetchError("not an address that can be fetched")
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))  # noqa: S310 - scheme checked above
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
            data: bytes = answer.read(max_bytes + 1)
    except urllib.error.HTTPError as e:
        e.close()
        raise FetchError(f"the server answered {e.code}") from e
    except (OSError, HTTPException, ValueError) as e:
        reason = getattr(e, "reason", None) or getattr(e, "strerror", None) or type(e).__name__
        raise FetchError(f"no answer: {reason}") from e
    if len(data) > max_bytes:
        raise FetchError(f"more than {max_bytes} bytes")
    return data
