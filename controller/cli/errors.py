"""Why a command ended as it did: the exit codes, and the errors that carry them."""

from enum import IntEnum

from controller.ports.errors import ControllerError


class ExitCode(IntEnum):
    """What the shell gets; documented in docs/cli.md."""

    OK = 0
    FAILED = 1  # it was asked, and the answer is no
    USAGE = 2  # the command line or the configuration cannot be
    UNREACHABLE = 3  # nobody answered
    NOT_ALLOWED = 4  # no token, or one that is not accepted


class CliError(ControllerError):
    """A command that ends here; `str()` is what the operator reads."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason  # the API's word for it, for programs
