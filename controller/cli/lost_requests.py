"""Waiting for an end over the API, once it was reached: a question that is not answered is asked again until it is."""

import ssl
import time
from typing import Any, Final

from controller.api.client import ApiClient, ApiResponseError, ApiUnreachableError
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import note, safe
from controller.ports.errors import ControllerError
from schemas.backoff import Backoff

_PAUSES: Final = Backoff(first=1.0, cap=30.0)  # seconds
_PASSING: Final = frozenset({429, 502, 503, 504})  # of a proxy, or of a controller that starts or is busy


def get_until_answered(client: ApiClient, path: str, **query: object) -> Any:
    """`client.get`, repeated with growing pauses while the API cannot be reached or has no time.

    Raises:
        CliError: interrupted by the keyboard while it is not answered; the status says that it was lost, not failed.
        ControllerError: an answer that another attempt does not change.
    """
    attempt, lost = 0, ""
    while True:
        try:
            if lost:
                time.sleep(_PAUSES.ceiling(attempt - 1))
            return client.get(path, **query)
        except (ApiUnreachableError, ApiResponseError) as e:
            if not _may_pass(e):
                raise
            lost = safe(str(e))
        except KeyboardInterrupt:
            if not lost:
                raise
            raise CliError(
                f"the end is not known, and what was started goes on: {lost}", ExitCode.UNREACHABLE
            ) from None
        note(f"{lost}; asking again in {_PAUSES.ceiling(attempt):.0f} s")
        attempt += 1


def _may_pass(error: ControllerError) -> bool:
    if isinstance(error, ApiResponseError):
        return error.status in _PASSING
    return not isinstance(error.__cause__, ssl.SSLCertVerificationError)
