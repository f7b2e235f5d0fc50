"""The exit status of an error."""

import pytest

from controller.api.client import ApiResponseError, ApiUnreachableError
from controller.cli.errors import CliError, ExitCode, code_of
from controller.ports.errors import BrokerUnreachableError, ControllerError, SettingsError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CliError("x", ExitCode.USAGE), 2),
        (SettingsError("x"), 2),
        (ApiUnreachableError("x"), 3),
        (BrokerUnreachableError("x"), 3),
        (ApiResponseError("no node answers", 503, "broker_unreachable"), 3),
        (ApiResponseError("x", 503, "store_failed"), 1),
        (ApiResponseError("x", 502, "broker_refused"), 1),
        (ApiResponseError("x", 403), 4),
        (ApiResponseError("x", 422), 2),
    ],
)
def test_an_error_has_the_documented_exit_status(error: ControllerError, code: int) -> None:
    assert code_of(error) == code
