"""`cordon account`: the accounts of people, in the store on this machine, beside a running controller too."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from controller.cli.connection_options import DEFAULT_CONFIG
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say, show

if TYPE_CHECKING:  # imported late: every `cordon --help` would wait for them
    from controller.app.offline_accounts import OfflineAccounts
    from controller.domain.accounts.account import Account
    from controller.ports.accounts import AccountOverview
    from controller.service.settings.settings import Settings

T = TypeVar("T")
_COLUMNS: Final = ("name", "role", "state", "factors", "sessions", "tokens", "signed in")
_MAX_INPUT: Final = 1024  # characters read of a password
app = typer.Typer(
    help="Accounts of people. Works on the store on this machine; each change is an alert in the audit.",
    no_args_is_help=True,
)
AccountNameArgument = Annotated[str, typer.Argument(metavar="NAME", help="login name", show_default=False)]
RoleOption = Annotated[
    str,
    typer.Option("--role", help="viewer, operator, maintainer, identity, auditor, admin, or one of the configuration"),
]
AccountConfigOption = Annotated[
    Path, typer.Option("--config", envvar="CORDON_CONFIG", help="cordon.toml with the path of the store")
]


def _run(config: Path, work: "Callable[[OfflineAccounts, Settings], Awaitable[T]]") -> T:
    """Runs `work` over the accounts of the configured store."""
    from controller.app.offline_accounts import open_accounts
    from controller.service.settings.settings import load_settings

    settings = load_settings(config)

    async def opened() -> T:
        async with open_accounts(settings.store, settings.accounts.all_roles) as accounts:
            return await work(accounts, settings)

    return asyncio.run(opened())


async def _named(accounts: "OfflineAccounts", name: str) -> "Account":
    account = await accounts.store.account_named(name)
    if account is None:
        raise CliError(f"there is no account {name}: `cordon account list` shows them")
    return account


@app.command("create")
def create(name: AccountNameArgument, role: RoleOption, config: AccountConfigOption = DEFAULT_CONFIG) -> None:
    """Create an account, and print the one-time code with which its owner sets password and second factor."""
    from controller.app.offline_accounts import BY_MACHINE, give_code, new_account

    async def work(accounts: "OfflineAccounts", settings: "Settings") -> str:
        account = await accounts.change.create(new_account(name, role), BY_MACHINE)
        return f"{settings.api.page}/setup?code={await give_code(accounts, account, BY_MACHINE)}"

    address = _run(config, work)
    note(f"account {name} is made; this page sets its password, once and within a day:")
    say(address)


@app.command("list")
def list_accounts(config: AccountConfigOption = DEFAULT_CONFIG, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the accounts by name."""

    async def work(accounts: "OfflineAccounts", _settings: "Settings") -> "list[AccountOverview]":
        return list(await accounts.store.overviews())

    found = _run(config, work)
    show(output, [_shown(one) for one in found], _COLUMNS, map(_row, found), empty="there are no accounts")


@app.command("show")
def show_account(
    name: AccountNameArgument, config: AccountConfigOption = DEFAULT_CONFIG, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Show one account."""

    async def work(accounts: "OfflineAccounts", _settings: "Settings") -> "AccountOverview":
        account = await _named(accounts, name)
        found = await accounts.store.overviews()
        return next(one for one in found if one.account.account_id == account.account_id)

    shown = _shown(_run(config, work))
    if output is OutputFormat.JSON:
        print_json(shown)
    else:
        for key, value in shown.items():
            say(f"{key.replace('_', ' '):<16} {'-' if value in (None, '') else value}")


@app.command("set-role")
def set_role(
    name: AccountNameArgument,
    role: Annotated[str, typer.Argument(metavar="ROLE", show_default=False)],
    config: AccountConfigOption = DEFAULT_CONFIG,
) -> None:
    """Give an account another role; it counts at once, for its sessions and tokens too."""
    from controller.app.offline_accounts import BY_MACHINE, now

    async def work(accounts: "OfflineAccounts", _settings: "Settings") -> None:
        await accounts.change.set_role(await _named(accounts, name), role, BY_MACHINE, now())

    _run(config, work)
    note(f"account {name} has the role {role}")


@app.command("set-password")
def set_password(name: AccountNameArgument, config: AccountConfigOption = DEFAULT_CONFIG) -> None:
    """Set a password, asked for at the terminal or read from standard input; the account's sessions end."""
    from controller.app.offline_accounts import BY_MACHINE, hash_of, now
    from controller.domain.accounts.passwords import WeakPasswordError

    async def work(accounts: "OfflineAccounts", _settings: "Settings") -> None:
        account = await _named(accounts, name)
        try:
            phc = await hash_of(_password(), account.name)
        except WeakPasswordError as e:
            raise CliError(str(e), ExitCode.USAGE) from e
        await accounts.change.set_password(account, phc, BY_MACHINE, now())

    _run(config, work)
    note(f"account {name} has a new password")


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline(_MAX_INPUT).rstrip("\r\n")


@app.command("enable")
def enable(name: AccountNameArgument, config: AccountConfigOption = DEFAULT_CONFIG) -> None:
    """Enable an account; the tokens and sessions that it had stay over."""
    _set_enabled(name, config, enabled=True)


@app.command("disable")
def disable(name: AccountNameArgument, config: AccountConfigOption = DEFAULT_CONFIG) -> None:
    """Disable an account, and end its tokens, sessions and open requests."""
    _set_enabled(name, config, enabled=False)


def _set_enabled(name: str, config: Path, *, enabled: bool) -> None:
    from controller.app.offline_accounts import BY_MACHINE, now

    async def work(accounts: "OfflineAccounts", _settings: "Settings") -> None:
        await accounts.change.set_enabled(await _named(accounts, name), BY_MACHINE, now(), enabled=enabled)

    _run(config, work)
    note(f"account {name} is {'enabled' if enabled else 'disabled'}")


@app.command("reset-factor")
def reset_factor(name: AccountNameArgument, config: AccountConfigOption = DEFAULT_CONFIG) -> None:
    """Remove all second factors and the password of an account, end its sessions, and print a one-time code for it."""
    from controller.app.offline_accounts import BY_MACHINE, reset_factors

    async def work(accounts: "OfflineAccounts", settings: "Settings") -> "tuple[Account, str]":
        account = await _named(accounts, name)
        code = await reset_factors(accounts, account, BY_MACHINE)
        return account, f"{settings.api.page}/setup?code={code}" if code else ""

    account, address = _run(config, work)
    gone = f"account {name} has no second factor and no password any more"
    if address:
        note(f"{gone}; this page sets it up anew, once and within a day:")
        say(address)
    elif account.enabled:
        note(f"{gone}; it signs in at the provider, and registers a factor at /me")
    else:
        note(f"{gone}; it is disabled: `cordon account enable {name}`, then this command again for a one-time code")


def _shown(found: "AccountOverview") -> dict[str, Any]:
    from controller.app.offline_accounts import written

    account, factors = found.account, found.factors
    return {
        "name": account.name,
        "account_id": account.account_id,
        "role": account.role,
        "enabled": account.enabled,
        "created_at": written(account.created_at),
        "last_login_at": written(account.last_login_at),
        "has_password": bool(account.password),
        "issuer": account.issuer,
        "made_by": account.makers[0].name if account.makers else "",
        "setup_until": written(account.setup_until),
        "passkeys": len(factors.passkeys),
        "totp": factors.totp is not None and factors.totp.confirmed_at > 0.0,
        "recovery_codes": factors.recovery_codes,
        "sessions": found.sessions,
        "tokens": found.tokens,
    }


def _row(found: "AccountOverview") -> tuple[object, ...]:
    shown = _shown(found)
    kinds = [f"{shown['passkeys']} passkeys"] if shown["passkeys"] else []
    factors = ", ".join([*kinds, *(["TOTP"] if shown["totp"] else [])]) or "none"
    no_password = "enabled" if found.account.password or found.account.issuer else "no password yet"
    state = no_password if found.account.enabled else "disabled"
    used = shown["last_login_at"] or "never"
    return shown["name"], shown["role"], state, factors, found.sessions, found.tokens, used
