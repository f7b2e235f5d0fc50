"""The options that every command shares that talks to the API, and the client made from them."""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, ApiEndpoint
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import note
from controller.ports.errors import SettingsError
from schemas.secret_sources import IN_PLACE_HELP, SECRET_HELP, SecretError, secret_in_place

DEFAULT_URL: Final = "http://127.0.0.1:8480"
DEFAULT_CONFIG: Final = Path("/etc/cordon/cordon.toml")
TOKEN_FILE: Final = "operator.token"  # noqa: S105 - name of a file in the folder of cordon.toml
_PANEL: Final = "Where the API is"
_TRUE: Final = frozenset({"1", "true", "yes"})

_OPTIONS: Final[Mapping[str, Any]] = {
    "url": Annotated[
        str | None,
        typer.Option("--url", help=f"address of the API; also CORDON_URL  [{DEFAULT_URL}]", rich_help_panel=_PANEL),
    ],
    "token_file": Annotated[
        str | None,
        typer.Option(
            "--token-file",
            help=f"the token: {SECRET_HELP}; also CORDON_TOKEN_FILE or CORDON_TOKEN",
            rich_help_panel=_PANEL,
        ),
    ],
    "token": Annotated[
        str | None,
        typer.Option(
            "--token",
            help=f"the token {IN_PLACE_HELP}; others on this machine can see one that is given itself",
            rich_help_panel=_PANEL,
        ),
    ],
    "config": Annotated[
        Path | None,
        typer.Option("--config", help="cordon.toml to take both from; also CORDON_CONFIG", rich_help_panel=_PANEL),
    ],
    "ca": Annotated[
        Path | None, typer.Option("--ca", help="CA of the API's certificate; also CORDON_CA", rich_help_panel=_PANEL)
    ],
    "unsafe_http": Annotated[
        bool,
        typer.Option("--unsafe-http", help="send the token in clear text to another machine", rich_help_panel=_PANEL),
    ],
}


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The shared options as given."""

    url: str | None = None
    token_file: str | None = None
    token: str | None = None
    config: Path | None = None
    ca: Path | None = None
    unsafe_http: bool = False


def connected(function: Callable[..., None]) -> Callable[..., None]:
    """Returns `function` as a Typer command that has the shared options too.

    The first parameter of `function` is no option: it gets the client, or, where it is annotated
    `Callable[[], ApiClient]`, a function that makes the client, for commands that can do without an API. Parameters
    that `functools.partial` has bound are no options either. Typer reads a command's options from its signature, so the
    signature of the command is put together here: the function's own parameters, then the shared ones.
    """
    first, *own = inspect.signature(function).parameters.values()
    bound = function.keywords if isinstance(function, functools.partial) else {}
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "unsafe_http" else None, annotation=kind
        )
        for name, kind in _OPTIONS.items()
    ]

    def command(**given: Any) -> None:
        options = ConnectionOptions(**{name: given.pop(name) for name in _OPTIONS})

        def client() -> ApiClient:
            return ApiClient(endpoint_of(options, os.environ))

        function(client() if first.annotation is ApiClient else client, **given)

    own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own if one.name not in bound]
    parameters = [*own, *shared]
    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def endpoint_of(options: ConnectionOptions, environment: Mapping[str, str]) -> ApiEndpoint:
    """Returns the API's address and credentials: from the options, then the environment, then the configuration.

    The token in the configuration's folder is used for the API of that configuration only.

    Raises:
        CliError: a given file cannot be used.
    """
    url = options.url or environment.get("CORDON_URL")
    token = _token_in_place(options.token) or _read_token(options.token_file)
    token = token or environment.get("CORDON_TOKEN") or _read_token(environment.get("CORDON_TOKEN_FILE"))
    ca = options.ca or _path(environment.get("CORDON_CA"))
    config = options.config or _path(environment.get("CORDON_CONFIG"))
    if config is None and (url is None or token is None) and os.access(DEFAULT_CONFIG, os.R_OK):
        config = DEFAULT_CONFIG
    if config is not None:
        configured = _from_config(config)
        token_file = config.parent / TOKEN_FILE
        if url is None:
            url, ca = configured.url, ca or configured.ca
        if token is None and url == configured.url and token_file.exists():
            token = _read_token(str(token_file))
    unsafe = options.unsafe_http or environment.get("CORDON_UNSAFE_HTTP", "").lower() in _TRUE
    return ApiEndpoint(url or DEFAULT_URL, token, ca, unsafe)


def _from_config(config: Path) -> ApiEndpoint:
    from controller.service.settings.base import shown_address
    from controller.service.settings.settings import load_settings  # imported late: pydantic takes a while

    try:
        api = load_settings(config).api
    except SettingsError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104 - listens on all addresses
    scheme = "http" if api.certificate is None else "https"
    return ApiEndpoint(f"{scheme}://{shown_address(host, api.port)}", None)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _token_in_place(text: str | None) -> str | None:
    try:
        return (
            secret_in_place(text, "--token", lambda source: _read_token(source, "--token") or "", note)
            if text
            else None
        )
    except SecretError as e:
        raise CliError(str(e), ExitCode.USAGE) from e


def _read_token(source: str | None, what: str = "token file") -> str | None:
    if not source:
        return None
    from controller.app.offline import read_secret

    try:
        return read_secret(source, what).strip()
    except SettingsError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
