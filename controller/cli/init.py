"""`cordon init`: creates what a controller needs before its first start. What exists is never changed."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from controller.cli.connection_options import TOKEN_FILE
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import safe, say
from controller.ports.broker_setup import SERVING_SCOPES
from controller.ports.errors import SettingsError
from schemas.secret_sources import SECRET_HELP, absolute_source

if TYPE_CHECKING:  # imported late: every `cordon --help` would wait for them
    from controller.cli.config_files import InitAnswers
    from controller.ports.broker_setup import SettingChange
    from controller.service.settings.settings import Settings, StoreSettings
    from schemas.secret_sources import SecretSource

DEFAULT_DIRECTORY: Final = Path("/etc/cordon")
DEFAULT_STORE: Final = Path("/var/lib/cordon/cordon.db")
FIRST_ACCOUNT: Final = "admin"
FIRST_TOKEN: Final = "operator"  # noqa: S105 - its name
_SECRET_VARIABLE: Final = "CORDON_EMQX_SECRET"  # noqa: S105 - the name of a variable
_EMQX: Final = "EMQX's HTTP API"
_MQTT: Final = "MQTT"


@dataclass(frozen=True, slots=True)
class EmqxApiKeyOptions:
    """The key of EMQX's API as given; `wanted`: whether the broker is set up."""

    key: str | None
    secret_file: str | None
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
MqttPasswordOption = Annotated[str | None, _option(f"the password: {SECRET_HELP}", _MQTT)]
EmqxUrlsOption = Annotated[
    list[str] | None, _option("http(s)://host:port; repeat for each node  [http://127.0.0.1:18083]", _EMQX)
]
EmqxCaOption = Annotated[Path | None, _option("CA of that API's certificate", _EMQX)]
EmqxKeyNameOption = Annotated[
    str | None,
    _option(
        "API key; asked for when left out. With EMQX 6.1.2 or later one without scopes; serving alone needs "
        f"{', '.join(SERVING_SCOPES)}",
        _EMQX,
    ),
]
EmqxSecretOption = Annotated[str | None, _option(f"its secret: {SECRET_HELP}; also ${_SECRET_VARIABLE}", _EMQX)]
NoBrokerOption = Annotated[bool, typer.Option("--no-broker", help="do not set the broker up", rich_help_panel=_EMQX)]


def init(
    directory: Annotated[Path, typer.Option("--dir", help="folder of the configuration")] = DEFAULT_DIRECTORY,
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="change the broker's settings without asking")] = False,
) -> None:
    """Create configuration, signing key, policies, store and first token, and set the broker up.

    Existing files stay as they are. Changes to the broker are shown first, and made after confirmation.
    """
    from controller.cli.config_files import InitAnswers  # imported late: pydantic takes a while

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
        mqtt_password_file=_absolute_source(mqtt_password_file),
        emqx_ca=_absolute(emqx_ca),
    )
    _init(answers, EmqxApiKeyOptions(emqx_key, emqx_secret_file, not no_broker), yes=yes)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _absolute_source(text: str | None) -> str | None:
    """The configuration has a file's whole path: relative ones are relative to the configuration there."""
    try:
        return None if text is None else absolute_source(text)
    except ValueError as e:
        raise CliError(f"--mqtt-password-file: {e}", ExitCode.USAGE) from e


def _init(answers: "InitAnswers", emqx_key: EmqxApiKeyOptions, *, yes: bool) -> None:
    settings = _config(answers)
    public_key = _signing_key(settings)
    _policies(settings.policy.paths)
    _emqx_key(settings.emqx.key_file, emqx_key, os.environ)
    made = _first_account(settings.store, answers.directory / TOKEN_FILE)
    if made is not None:
        token, code = made
        say("\nYour API token; the store keeps only its SHA-256, so it is shown only now:")
        say(f"  {token}\n")
        say(f"Your account is {FIRST_ACCOUNT!r}. Its one-time code sets password and second factor within a day:")
        say(f"  {settings.api.page}/setup?code={code}\n")
    if emqx_key.wanted:
        asyncio.run(_set_broker_up(settings, yes=yes))
    say("\nMake your devices trust this controller: in their agent.toml, under [commands],")
    say(f'  controller_keys = ["{public_key}"]')
    say(f"Start the controller: cordon serve --config {answers.directory / 'cordon.toml'}")


def _config(answers: "InitAnswers") -> "Settings":
    from controller.cli.config_files import CONFIG, config_text, make_directory, write_config
    from controller.service.settings.settings import load_settings

    make_directory(answers.directory)
    path = answers.directory / CONFIG
    if path.exists():
        settings = load_settings(path)
        _report("there", path, "configuration: not changed, edit it to change something")
        return settings
    settings = write_config(path, config_text(answers))
    _report("made", path, "configuration")
    return settings


def _signing_key(settings: "Settings") -> str:
    from controller.app.offline import create_signing_key, keys_of_others, load_signing_key
    from schemas.signing import public_key_text

    source = settings.commands.signing_key
    is_new = isinstance(source, Path) and not source.exists()
    if is_new and (held := asyncio.run(keys_of_others(settings))):
        text = f"other controllers on this store sign commands with the key {held}: copy its file to {source}"
        raise CliError(f"{text}; devices obey no other key")
    key = create_signing_key(source) if isinstance(source, Path) and is_new else load_signing_key(source)
    _report("made" if is_new else "there", source, "key that signs commands")
    return public_key_text(key.public_key())


def _policies(paths: Sequence[Path]) -> None:
    from controller.cli.config_files import copy_starter

    made = copy_starter(paths)
    for path in paths:
        is_new = any(path in (file, file.parent) for file in made)
        _report("made" if is_new else "there", path, "policies" + (": the starter pack" if is_new else ""))


def _report(state: str, where: object, what: str) -> None:
    say(f"{state:<6} {where}  ({what})")


def _emqx_key(path: "SecretSource", given: EmqxApiKeyOptions, environment: Mapping[str, str]) -> None:
    from controller.app.offline import read_secret
    from controller.cli.config_files import write_new

    if not isinstance(path, Path) or path.exists():
        _report("there", path, "key of EMQX's API")
        return
    if given.key is None and not given.wanted:
        _report("absent", path, "write EMQX's API key there before the start: one line, key:secret, mode 0600")
        return
    key = given.key or _ask("EMQX API key", "--emqx-key", hidden=False)
    if given.secret_file is not None:
        try:
            secret = read_secret(given.secret_file, "--emqx-secret-file", may_be_open=True).strip()
        except SettingsError as e:
            raise CliError(str(e), ExitCode.USAGE) from e
    else:
        options = f"--emqx-secret-file or ${_SECRET_VARIABLE}"
        secret = environment.get(_SECRET_VARIABLE) or _ask("EMQX API secret", options, hidden=True)
    if not key or not secret or ":" in key or not (key + secret).isprintable():
        raise CliError("EMQX's API key and secret are one line each, and the key has no colon", ExitCode.USAGE)
    write_new(path, f"{key}:{secret}\n")
    _report("made", path, "key of EMQX's API")


def _ask(name: str, option: str, *, hidden: bool) -> str:
    if not sys.stdin.isatty():
        raise CliError(f"{name} is missing: give {option}, or --no-broker to do this later", ExitCode.USAGE)
    return str(typer.prompt(name, hide_input=hidden)).strip()


def _first_account(place: "StoreSettings", token_file: Path) -> tuple[str, str] | None:
    """Creates the first account with a token, because the API requires one; `None` when there are tokens.

    Returns the token and the account's one-time code.
    """
    from controller.cli.config_files import make_directory, write_new

    if place.file is not None:
        make_directory(place.file.parent)
    shown = place.file or Path("store.url")
    is_new = place.file is not None and not place.file.exists()
    made = asyncio.run(_store_first_account(place, may_create=not token_file.exists()))
    if made is None:
        _report("there", shown, "store, with API tokens")
        return None
    _report("made" if is_new else "there", shown, "store")
    write_new(token_file, made[0] + "\n")
    _report("made", token_file, f"API token {FIRST_TOKEN!r}, used by every command with --config")
    return made


async def _store_first_account(place: "StoreSettings", *, may_create: bool) -> tuple[str, str] | None:
    """Stores account and token unless the store has tokens; returns the token and the account's one-time code."""
    from controller.app.offline_accounts import add_token, give_code, new_account, open_accounts
    from controller.domain.accounts.roles import ADMIN_ROLE, Roles
    from controller.domain.scopes import ALL
    from controller.service.accounts.operations import SETTING_UP

    async with open_accounts(place, Roles()) as accounts:
        if await accounts.tokens.tokens():
            return None
        if not may_create:
            text = f"{TOKEN_FILE} exists, but the store {place.file or 'in the database'} has no token"
            raise CliError(f"{text}: move that file away and run this again")
        account = await accounts.store.account_named(FIRST_ACCOUNT)  # of a run that was cut off
        if account is None:
            account = await accounts.change.create(new_account(FIRST_ACCOUNT, ADMIN_ROLE), SETTING_UP)
        code = await give_code(accounts, account, SETTING_UP)
        return await add_token(accounts, account, FIRST_TOKEN, ALL, SETTING_UP), code


async def _set_broker_up(settings: "Settings", *, yes: bool) -> None:
    from controller.app.offline import open_broker_setup
    from controller.cli.broker.setup import NO_MATCH_QUESTION
    from controller.ports.errors import BrokerError

    addresses = ", ".join(settings.emqx.api)
    try:
        async with open_broker_setup(settings) as setup:
            plan = await setup.plan()
            deny = not yes and plan.leaves_unmatched_allowed and sys.stdin.isatty() and typer.confirm(NO_MATCH_QUESTION)
            if deny:
                plan = await setup.plan(deny_unmatched=True)
            if not plan.changes:
                say(f"there  {addresses}  (the broker has the required settings)")
            else:
                _show(plan.changes, addresses)
                if not yes and not (sys.stdin.isatty() and typer.confirm("Write this to the broker?", default=False)):
                    text = "the broker was not changed: run this again with --yes, or with --no-broker to skip it"
                    raise CliError(text)
                await setup.apply("operator:init", deny_unmatched=deny)
                say(f"made   {addresses}  (settings at the broker; `cordon broker setup --undo` undoes them)")
            if plan.by_hand:
                say(f"left   {addresses}  ({len(plan.by_hand)} manual steps: `cordon broker setup --plan`)")
    except BrokerError as e:
        key = settings.emqx.key_file
        remedy = "when it answers" if e.transient else f"when that is fixed; key and secret in {key} are not changed"
        text = f"the broker could not be set up: {e}\nEverything else is done: run this again {remedy}"
        raise CliError(text, ExitCode.UNREACHABLE if e.transient else ExitCode.FAILED) from e


def _show(changes: "Sequence[SettingChange]", addresses: str) -> None:
    say(f"\nChanges at the broker ({addresses}):")
    for change in changes:
        say(f"\n  {change.what}")
        for mark, text in (("-", change.before), ("+", change.after)):
            for line in text.splitlines():
                say(f"    {mark} {safe(line)}")
    say()
