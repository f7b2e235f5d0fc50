"""Double confirmation before a protected device is contained."""

import sys
from collections.abc import Callable
from typing import Any, Final

import typer

from controller.api.client import ApiResponseError
from controller.cli.errors import CliError
from controller.cli.output import note, safe

PROTECTED: Final = "device_protected"  # an error code of the API
_WORD: Final = "contain"


def confirm_protected(call: Callable[[bool], Any], even_protected: bool) -> Any:
    """Returns `call(even_protected)`; where a device is protected and a person confirms twice, `call(True)`.

    Raises:
        CliError: no terminal, or not confirmed.
    """
    try:
        return call(even_protected)
    except ApiResponseError as e:
        if e.code != PROTECTED or even_protected:
            raise
        if not sys.stdin.isatty():
            raise CliError(f"{e}; give --even-protected") from e
        note(safe(str(e)))
        if not typer.confirm("Contain a protected device?", err=True):
            raise CliError("nothing was contained") from e
        if typer.prompt(f"Really? Write '{_WORD}'", err=True).strip() != _WORD:
            raise CliError("nothing was contained") from e
    return call(True)
