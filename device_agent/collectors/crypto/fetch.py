"""HTTP requests of the collectors, to configured URLs only: bounded in time and size, no redirects."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

SECONDS: Final = 10.0
_SCHEMES: Final = frozenset({"http", "https"})


class FetchError(Exception):
    """The request failed for the reason in the text."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as an error: its target is not a configured URL."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


def fetch(url: str, *, max_bytes: int, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """Returns the response body of a GET, or of a POST when `body` is given.

    Raises:
        FetchError: the scheme is not HTTP(S), there is no answer, an error status, or more than `max_bytes`.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise FetchError("not an HTTP or HTTPS URL")
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
