"""Runs one command line and turns every error an operator may see into its text and exit code, in one place."""

from collections.abc import Sequence

from controller.cli.app import app
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import note
from controller.ports.errors import BrokerUnreachableError, ControllerError, SettingsError


def run_safely(argv: Sequence[str]) -> int:
    """The exit code of `cordon` with these arguments."""
    try:
        app(list(argv), prog_name="cordon")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else ExitCode.OK
    except ControllerError as e:
        note(f"cordon: {e}")
        return code_of(e)
    return ExitCode.OK


def code_of(error: ControllerError) -> ExitCode:
    """The exit code that tells this error."""
    match error:
        case CliError():
            return error.code
        case SettingsError():
            return ExitCode.USAGE
        case BrokerUnreachableError():
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.FAILED
