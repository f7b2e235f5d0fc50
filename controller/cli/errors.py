"""The exit codes of commands, and which error gives which."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from controller.api.client import ApiResponseError, ApiUnreachableError
from controller.ports.errors import BrokerUnreachableError, ControllerError, SettingsError


class ExitCode(IntEnum):
    """Exit status of `cordon`; docs/cli.md documents each."""

    OK = 0
    FAILED = 1
    USAGE = 2  # the command line or the configuration is invalid
    UNREACHABLE = 3
    NOT_ALLOWED = 4  # no token, or one that is not accepted


_BY_STATUS: Final[Mapping[int, ExitCode]] = {
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    422: ExitCode.USAGE,
    429: ExitCode.NOT_ALLOWED,
}


class CliError(ControllerError):
    """Ends a command with an exit code; `str()` is the text that the operator sees."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: ControllerError) -> ExitCode:
    """Returns the exit code for an error."""
    match error:
        case CliError():
            return error.code
        case SettingsError():
            return ExitCode.USAGE
        case BrokerUnreachableError() | ApiUnreachableError():
            return ExitCode.UNREACHABLE
        case ApiResponseError(code="broker_unreachable"):
            return ExitCode.UNREACHABLE
        case ApiResponseError():
            return _BY_STATUS.get(error.status, ExitCode.FAILED)
        case _:
            return ExitCode.FAILED
