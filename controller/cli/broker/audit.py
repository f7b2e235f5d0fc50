"""`cordon broker audit`: evaluates the broker's settings with policies."""

from collections import Counter
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, safe, say, show
from controller.ports.errors import SettingsError
from schemas.secret_sources import SECRET_HELP

_COLUMNS: Final = ("severity", "result", "rule", "title")
_ORDER: Final = {name: place for place, name in enumerate(("critical", "high", "medium", "low", "info"))}
_SATISFIED: Final = frozenset({"pass", "notapplicable", "notselected", "informational", "fixed"})
_BAD: Final = frozenset({"fail", "error"})


@connected
def audit(
    client: ApiClient,
    dashboard_user: Annotated[
        str | None, typer.Option(help="a dashboard user: only dashboard users may list API keys")
    ] = None,
    dashboard_password_file: Annotated[str | None, typer.Option(help=f"that user's password: {SECRET_HELP}")] = None,
    every: Annotated[bool, typer.Option("--all", help="satisfied rules too")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="unknown results count as failed")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Judge the broker's own settings by policies, and show what is wrong and how to fix it.

    Exit status 1 when a rule fails or cannot be evaluated (with --strict also when something is unknown), 0 otherwise.
    What the API key may not read is unknown with its reason, never a pass.
    """
    report = client.call("POST", "/broker/audit", _login(dashboard_user, dashboard_password_file))
    findings = sorted(report["items"], key=lambda finding: (_ORDER.get(finding["severity"], 9), finding["rule"]))
    shown = [finding for finding in findings if every or finding["result"] not in _SATISFIED]
    bad = _BAD | {"unknown"} if strict else _BAD
    failed = any(finding["result"] in bad for finding in findings)
    counts = Counter(str(finding["result"]) for finding in findings)
    if output is OutputFormat.JSON:
        print_json(
            {"ok": not failed, "at": report["at"], "policies": report["policies"], "counts": counts, "items": shown}
        )
    else:
        rows = [(finding["severity"], finding["result"], finding["rule"], finding["title"]) for finding in shown]
        show(output, shown, _COLUMNS, rows, empty="the broker satisfies every rule")
        for finding in shown:
            if finding["result"] not in _SATISFIED:
                _print_reasons(finding)
        note(", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _print_reasons(finding: dict[str, Any]) -> None:
    say(f"\n{safe(finding['rule'])}: {safe(finding['title'])}")
    if finding["detail"]:
        say(f"  {safe(finding['detail'])}")
    for fact in finding["facts"]:
        if fact["value"] is not None:
            say(f"  {fact['name']} = {safe(fact['value'])}")
    if finding["why"]:
        say(f"  why: {safe(finding['why'])}")
    if finding["fix"] and finding["result"] in _BAD:
        say(f"  fix: {safe(finding['fix'])}")


def _login(user: str | None, source: str | None) -> dict[str, dict[str, str]]:
    if (user is None) != (source is None):
        raise CliError("--dashboard-user and --dashboard-password-file belong together", ExitCode.USAGE)
    if user is None or source is None:
        return {}
    from controller.app.offline import read_secret

    try:
        password = read_secret(source, "--dashboard-password-file", may_be_open=True).strip()
    except SettingsError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
    return {"dashboard": {"user": user, "password": password}}
