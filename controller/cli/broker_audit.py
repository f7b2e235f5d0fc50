"""`cordon broker audit`: the broker judged by policies, as findings with severity and what to do."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, safe, say, show

_COLUMNS: Final = ("severity", "result", "rule", "title")
_ORDER: Final = {name: place for place, name in enumerate(("critical", "high", "medium", "low", "info"))}
_KEPT: Final = frozenset({"pass", "notapplicable", "notselected", "informational", "fixed"})
_BAD: Final = frozenset({"fail", "error"})
_MAX_PASSWORD: Final = 4096  # bytes of the file


@connected
def audit(
    client: ApiClient,
    dashboard_user: Annotated[
        str | None, typer.Option(help="a dashboard user, who alone may read which API keys there are")
    ] = None,
    dashboard_password_file: Annotated[Path | None, typer.Option(help="file with that user's password")] = None,
    every: Annotated[bool, typer.Option("--all", help="rules that are kept, too")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="what could not be found out counts as failed")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Judge the broker's own settings by policies, and say what is wrong and what to do about it.

    Exit status 1 when a rule fails or cannot be evaluated (with --strict also when something is unknown), 0 otherwise.
    What the API key may not read is unknown with its reason, never a pass.
    """
    found = client.call("POST", "/broker/audit", _login(dashboard_user, dashboard_password_file))
    items = sorted(found["items"], key=lambda one: (_ORDER.get(one["severity"], 9), one["rule"]))
    shown = [one for one in items if every or one["result"] not in _KEPT]
    bad = _BAD | {"unknown"} if strict else _BAD
    failed = any(one["result"] in bad for one in items)
    counts = Counter(str(one["result"]) for one in items)
    if output is OutputFormat.JSON:
        print_json(
            {"ok": not failed, "at": found["at"], "policies": found["policies"], "counts": counts, "items": shown}
        )
    else:
        rows = [(one["severity"], one["result"], one["rule"], one["title"]) for one in shown]
        show(output, shown, _COLUMNS, rows, empty="the broker keeps every rule")
        for one in shown:
            if one["result"] not in _KEPT:
                _reasons(one)
        note(", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _reasons(one: dict[str, Any]) -> None:
    say(f"\n{safe(one['rule'])}: {safe(one['title'])}")
    if one["detail"]:
        say(f"  {safe(one['detail'])}")
    for fact in one["facts"]:
        if fact["value"] is not None:
            say(f"  {fact['name']} = {safe(fact['value'])}")
    if one["why"]:
        say(f"  why: {safe(one['why'])}")
    if one["fix"] and one["result"] in _BAD:
        say(f"  fix: {safe(one['fix'])}")


def _login(user: str | None, path: Path | None) -> dict[str, dict[str, str]]:
    if (user is None) != (path is None):
        raise CliError("--dashboard-user and --dashboard-password-file belong together", ExitCode.USAGE)
    if user is None or path is None:
        return {}
    try:
        with path.open("rb") as file:
            password = file.read(_MAX_PASSWORD).decode().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise CliError(f"{path}: the password cannot be read: {e}", ExitCode.USAGE) from e
    return {"dashboard": {"user": user, "password": password}}
