"""`cordon init`: all that a controller needs before its first start. A second run finds it and changes nothing."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from controller.cli.connection_options import TOKEN_FILE
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import safe, say

if TYPE_CHECKING:  # loaded late: every `cordon --help` would wait for them
    from controller.cli.config_files import InitAnswers
    from controller.ports.broker_setup import SettingChange
    from controller.service.settings.settings import Settings

DEFAULT_DIRECTORY: Final = Path("/etc/cordon")
DEFAULT_STORE: Final = Path("/var/lib/cordon/cordon.db")
FIRST_TOKEN: Final = "operator"  # noqa: S105 - its name
_SECRET_VARIABLE: Final = "CORDON_EMQX_SECRET"  # noqa: S105 - the name of a variable
_EMQX: Final = "EMQX's HTTP API"
_MQTT: Final = "MQTT"


@dataclass(frozen=True, slots=True)
class EmqxApiKeyOptions:
    """What is known of EMQX's API key before anybody is asked."""

    key: str | None
    secret_file: Path | None
    wanted: bool


def _option(text: str, panel: str | None = None) -> Any:
    return typer.Option(help=text, rich_help_panel=panel)


StorePathOption = Annotated[
    Path | None, _option(f"database file  [{DEFAULT_STORE}, or cordon.db in --dir where that is another]")
]
MqttUrlsOption = Annotated[
    list[str] | None, _option("mqtt(s)://host:port; repeat for each node  [mqtt://127.0.0.1:1883]", _MQTT)
]
ClientIdOption = Annotated[str, _option("the controller's client id", _MQTT)]
MqttCaOption = Annotated[Path | None, _option("CA of the broker's certificate", _MQTT)]
MqttCertOption = Annotated[Path | None, _option("the controller's certificate", _MQTT)]
MqttKeyOption = Annotated[Path | None, _option("key of that certificate", _MQTT)]
MqttUserOption = Annotated[str | None, _option("user name", _MQTT)]
MqttPasswordOption = Annotated[Path | None, _option("file with the password", _MQTT)]
EmqxUrlsOption = Annotated[
    list[str] | None, _option("http(s)://host:port; repeat for each node  [http://127.0.0.1:18083]", _EMQX)
]
EmqxCaOption = Annotated[Path | None, _option("CA of that API's certificate", _EMQX)]
EmqxKeyNameOption = Annotated[str | None, _option("API key; asked for when left out", _EMQX)]
EmqxSecretOption = Annotated[Path | None, _option(f"file with its secret; also ${_SECRET_VARIABLE}", _EMQX)]
NoBrokerOption = Annotated[
    bool, typer.Option("--no-broker", help="leave the broker alone for now", rich_help_panel=_EMQX)
]


def init(
    directory: Annotated[Path, typer.Option("--dir", help="where the configuration goes")] = DEFAULT_DIRECTORY,
    store: StorePathOption = None,
    listen: Annotated[str, _option("host:port of Cordon's own API")] = "127.0.0.1:8480",
    mqtt: MqttUrlsOption = None,
    client_id: ClientIdOption = "cordon-controller",
    mqtt_ca: MqttCaOption = None,
    mqtt_cert: MqttCertOption = None,
    mqtt_key: MqttKeyOption = None,
    mqtt_user: MqttUserOption = None,
    mqtt_password_file: MqttPasswordOption = None,
    emqx: EmqxUrlsOption = None,
    emqx_ca: EmqxCaOption = None,
    emqx_key: EmqxKeyNameOption = None,
    emqx_secret_file: EmqxSecretOption = None,
    no_broker: NoBrokerOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="change the broker's rules without asking")] = False,
) -> None:
    """Make configuration, signing key, policies, store and first token, and set the broker up.

    What is there already stays as it is. Changes to the broker are shown first, and made after you agreed.
    """
    from controller.cli.config_files import InitAnswers  # pydantic takes a while to load

    base = directory.absolute()
    default_store = DEFAULT_STORE if base == DEFAULT_DIRECTORY else base / "cordon.db"
    answers = InitAnswers(
        directory=base,
        store=_absolute(store) or default_store,
        mqtt=tuple(mqtt or ("mqtt://127.0.0.1:1883",)),
        emqx=tuple(emqx or ("http://127.0.0.1:18083",)),
        listen=listen,
        client_id=client_id,
        mqtt_ca=_absolute(mqtt_ca),
        mqtt_certificate=_absolute(mqtt_cert),
        mqtt_key=_absolute(mqtt_key),
        mqtt_user=mqtt_user,
        mqtt_password_file=_absolute(mqtt_password_file),
        emqx_ca=_absolute(emqx_ca),
    )
    _init(answers, EmqxApiKeyOptions(emqx_key, emqx_secret_file, not no_broker), yes=yes)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _init(answers: "InitAnswers", emqx_key: EmqxApiKeyOptions, *, yes: bool) -> None:
    settings = _config(answers)
    public_key = _signing_key(settings.commands.signing_key)
    _policies(settings.policy.paths)
    _emqx_key(settings.emqx.key_file, emqx_key, os.environ)
    token = _first_token(settings.store.path, answers.directory / TOKEN_FILE)
    if token is not None:
        say("\nYour API token; the store keeps only its SHA-256, so this is the last time it is shown:")
        say(f"  {token}\n")
    if emqx_key.wanted:
        asyncio.run(_set_broker_up(settings, yes=yes))
    say("\nLet your devices trust this controller: in their agent.toml, under [commands],")
    say(f'  controller_keys = ["{public_key}"]')
    say(f"Start the controller: cordon serve --config {answers.directory / 'cordon.toml'}")


def _config(answers: "InitAnswers") -> "Settings":
    from controller.cli.config_files import CONFIG, config_text, make_directory, write_config
    from controller.service.settings.settings import load_settings

    make_directory(answers.directory)
    path = answers.directory / CONFIG
    if path.exists():
        settings = load_settings(path)
        _tell("there", path, "configuration: kept as it is, edit it to change something")
        return settings
    settings = write_config(path, config_text(answers))
    _tell("made", path, "configuration")
    return settings


def _signing_key(path: Path) -> str:
    from controller.app.offline import create_signing_key, load_signing_key
    from schemas.signing import public_key_text

    is_new = not path.exists()
    key = create_signing_key(path) if is_new else load_signing_key(path)
    _tell("made" if is_new else "there", path, "key that signs commands")
    return public_key_text(key.public_key())


def _policies(paths: Sequence[Path]) -> None:
    from controller.cli.config_files import copy_starter

    made = copy_starter(paths)
    for path in paths:
        is_new = any(path in (one, one.parent) for one in made)
        _tell("made" if is_new else "there", path, "policies" + (": the starter pack" if is_new else ""))


def _tell(state: str, path: Path, what: str) -> None:
    say(f"{state:<6} {path}  ({what})")


def _emqx_key(path: Path, given: EmqxApiKeyOptions, environment: Mapping[str, str]) -> None:
    from controller.cli.config_files import write_new

    if path.exists():
        _tell("there", path, "key of EMQX's API")
        return
    if given.key is None and not given.wanted:
        _tell("absent", path, "put EMQX's API key there before you start: one line, key:secret, mode 0600")
        return
    key = given.key or _ask("EMQX API key", "--emqx-key", hidden=False)
    if given.secret_file is not None:
        try:
            secret = given.secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as e:
            raise CliError(f"{given.secret_file}: the secret cannot be read: {e}", ExitCode.USAGE) from e
    else:
        wanted = f"--emqx-secret-file or ${_SECRET_VARIABLE}"
        secret = environment.get(_SECRET_VARIABLE) or _ask("EMQX API secret", wanted, hidden=True)
    if not key or not secret or ":" in key or not (key + secret).isprintable():
        raise CliError("EMQX's API key and secret are one line each, and the key has no colon", ExitCode.USAGE)
    write_new(path, f"{key}:{secret}\n")
    _tell("made", path, "key of EMQX's API")


def _ask(what: str, option: str, *, hidden: bool) -> str:
    if not sys.stdin.isatty():
        raise CliError(f"{what} is missing: give {option}, or --no-broker to do this later", ExitCode.USAGE)
    return str(typer.prompt(what, hide_input=hidden)).strip()


def _first_token(path: Path, token_file: Path) -> str | None:
    """The first token straight into the store, because the API needs one; `None` when there are tokens."""
    from controller.api.auth import new_token
    from controller.cli.config_files import make_directory, write_new

    make_directory(path.parent)
    is_new = not path.exists()
    token = new_token()
    if not asyncio.run(_keep_first(path, token, may_make=not token_file.exists())):
        _tell("there", path, "store, with API tokens")
        return None
    _tell("made" if is_new else "there", path, "store")
    write_new(token_file, token + "\n")
    _tell("made", token_file, f"API token {FIRST_TOKEN!r}, used by every command with --config")
    return token


async def _keep_first(path: Path, token: str, *, may_make: bool) -> bool:
    """Whether the store had no token and holds this one now."""
    from controller.api.auth import digest_of
    from controller.app.offline import open_store
    from controller.domain.scopes import ALL
    from controller.ports.store import ApiToken

    async with open_store(path) as store:
        if await store.tokens():
            return False
        if not may_make:
            text = f"{TOKEN_FILE} is there, but the store {path} knows no token: move that file away, run this again"
            raise CliError(text)
        await store.put_token(ApiToken(FIRST_TOKEN, digest_of(token), time.time(), ALL))
    return True


async def _set_broker_up(settings: "Settings", *, yes: bool) -> None:
    from controller.app.offline import open_broker_setup
    from controller.ports.errors import BrokerError

    where = ", ".join(settings.emqx.api)
    try:
        async with open_broker_setup(settings) as desk:
            plan = await desk.plan()
            if not plan.changes:
                say(f"there  {where}  (the broker has what devices and controller need)")
            else:
                _show(plan.changes, where)
                if not yes and not (sys.stdin.isatty() and typer.confirm("Write this to the broker?", default=False)):
                    text = "the broker was left as it is: run this again, with --yes to agree beforehand"
                    raise CliError(f"{text}, or with --no-broker to do it another way")
                await desk.apply("operator:init")
                say(f"made   {where}  (settings at the broker; `cordon broker setup --undo` takes them back)")
            if plan.by_hand:
                say(f"left   {where}  ({len(plan.by_hand)} more to look at: `cordon broker setup --plan`)")
    except BrokerError as e:
        key = settings.emqx.key_file
        mend = (
            "once it answers"
            if e.transient
            else f"when that is mended; the key and secret in {key} are kept as they are"
        )
        text = f"the broker could not be set up: {e}\nEverything else is in place: run this again {mend}"
        raise CliError(text, ExitCode.UNREACHABLE if e.transient else ExitCode.FAILED) from e


def _show(changes: "Sequence[SettingChange]", where: str) -> None:
    say(f"\nAt the broker ({where}) this has to change:")
    for change in changes:
        say(f"\n  {change.what}")
        for mark, text in (("-", change.before), ("+", change.after)):
            for line in text.splitlines():
                say(f"    {mark} {safe(line)}")
    say()
