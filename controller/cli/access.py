"""`cordon access`: access rules of device classes, and grants for a limited time."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show

_COLUMNS: Final = ("device", "class", "state", "rules")
_REMARKS: Final = ("gravity", "class", "rule", "remark")
_GRANTS: Final = ("grant", "device", "may", "until", "state", "by", "reason")
_MAX: Final = 1024 * 1024  # bytes of a file
app = typer.Typer(help="Access rules: what devices may publish and subscribe.", no_args_is_help=True)

TemplatesFileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="a file of access templates", show_default=False)
]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX + 1)
        if len(content) > _MAX:
            raise CliError(f"{path}: larger than {_MAX} bytes", ExitCode.USAGE)
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise CliError(f"{path}: cannot be read: {e}", ExitCode.USAGE) from e


@app.command("lint")
def lint_file(
    file: TemplatesFileArgument,
    strict: Annotated[bool, typer.Option("--strict", help="warnings count as errors")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Find shadowed rules, wildcards that are too wide, allow-all, access to Cordon's topics. Needs no controller.

    Exit status 1 when there is an error (with --strict also a warning).
    """
    from controller.app.offline import parse_templates
    from controller.domain.broker.access_lint import lint
    from controller.ports.policies import PolicyError

    try:
        remarks = lint(parse_templates(_text(file), str(file)))
    except PolicyError as e:
        note(str(e))
        raise typer.Exit(ExitCode.FAILED) from e
    items = [
        {
            "gravity": remark.severity.value,
            "device_class": remark.device_class,
            "rule": remark.rule,
            "text": remark.text,
        }
        for remark in remarks
    ]
    show(output, items, _REMARKS, map(_remark_row, items), empty="no remarks")
    bad = {"error", "warning"} if strict else {"error"}
    if any(item["gravity"] in bad for item in items):
        raise typer.Exit(ExitCode.FAILED)


@app.command("plan")
@connected
def plan(client: ApiClient, file: TemplatesFileArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show what these templates would change at the broker, and write nothing; exit status 1 with lint errors."""
    planned = client.call("POST", "/access/plan", {"templates": _text(file)})
    _show(planned, output)
    if not planned["ok"]:
        raise typer.Exit(ExitCode.FAILED)


@app.command("apply")
@connected
def apply(
    client: ApiClient,
    file: TemplatesFileArgument,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="also replace rules that Cordon did not write; they are lost")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="write without asking")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Apply these templates: show the changes, then write them; contained devices get them after their release."""
    text = _text(file)
    planned = client.call("POST", "/access/plan", {"templates": text})
    if output is OutputFormat.TABLE:
        _show(planned, output)
    if not planned["ok"]:
        raise CliError("not applied: lint found errors")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Write this to the broker?")):
        raise CliError("nothing was applied: confirm with --yes")
    applied = client.call("POST", "/access/apply", {"templates": text, "overwrite": overwrite})
    if output is OutputFormat.JSON:
        print_json(applied)
    else:
        say(f"in force: {_counts(applied)}")
        if applied["counts"].get("foreign") and not overwrite:
            note("left: rules that Cordon did not write; `--overwrite` replaces them")


@app.command("withdraw")
@connected
def withdraw(
    client: ApiClient,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove without asking")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Withdraw the templates in force: show what is removed, then remove it; grants stay."""
    planned = client.call("POST", "/access/plan-withdraw")
    if output is OutputFormat.TABLE:
        _show(planned, output)
        _note_altered(planned)
    if not yes and not (sys.stdin.isatty() and typer.confirm("Remove this from the broker?")):
        raise CliError("nothing was withdrawn: confirm with --yes")
    withdrawn = client.call("POST", "/access/withdraw")
    if output is OutputFormat.JSON:
        print_json(withdrawn)
    else:
        say("withdrawn: no templates are in force")


def _note_altered(planned: dict[str, Any]) -> None:
    if planned["counts"].get("altered"):
        note("left: rules that others changed since; they are no longer Cordon's")


@app.command("diff")
@connected
def diff(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Compare the rules at the broker with templates and grants in force; exit status 1 if they differ."""
    difference = client.get("/access/diff")
    _show(difference, output)
    if any(state not in ("as it should be", "contained") for state in difference["counts"]):
        raise typer.Exit(ExitCode.FAILED)


@app.command("grant")
@connected
def grant(
    client: ApiClient,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="the device", show_default=False)],
    duration: Annotated[str, typer.Option("--for", help="duration: 90s, 10m, 2h")],
    reason: Annotated[str, typer.Option(help="why; it is kept in the audit log")],
    publish: Annotated[str | None, typer.Option(help="topic it may publish to")] = None,
    subscribe: Annotated[str | None, typer.Option(help="topic it may subscribe to")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Permit a device something that its template does not, for a limited time."""
    if (publish is None) == (subscribe is None):
        raise CliError("give one of --publish and --subscribe", ExitCode.USAGE)
    action, topic = ("publish", publish) if publish is not None else ("subscribe", subscribe)
    body = {"device_id": device, "action": action, "topic": topic, "for": duration, "reason": reason}
    created = client.call("POST", "/access/grants", body)
    if output is OutputFormat.JSON:
        print_json(created)
        return
    end = ago(created["expires_at"])
    say(f"{safe(created['grant_id'])}: {safe(device)} may {action} {safe(topic)}, it ends {end}")
    if not created["in_force"]:
        note("not in force now: the device is contained; the grant counts once the device is released")


@app.command("grants")
@connected
def grants(
    client: ApiClient,
    device: Annotated[str | None, typer.Option(help="only of this device")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List grants, newest first, ended ones too."""
    items = client.get("/access/grants", device_id=device, limit=limit)["items"]
    rows = [
        (
            item["grant_id"],
            item["device_id"],
            f"{item['action']} {item['topic']}",
            ago(item["expires_at"]),
            _state(item),
            item["by"],
            item["reason"],
        )
        for item in items
    ]
    show(output, items, _GRANTS, rows, empty="no grants")


@app.command("revoke")
@connected
def revoke(
    client: ApiClient,
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="id of the grant", show_default=False)],
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End a grant now."""
    ended = client.call("DELETE", f"/access/grants/{segment(grant_id)}")
    if output is OutputFormat.JSON:
        print_json(ended)
    else:
        say(f"{safe(grant_id)} ended")


def _state(grant: dict[str, Any]) -> str:
    if not grant["lasts"]:
        return "ended"
    return "in force" if grant["in_force"] else "not in force: contained"


def _remark_row(remark: dict[str, Any]) -> tuple[object, ...]:
    return remark["gravity"], remark["device_class"], remark["rule"] or "-", remark["text"]


def _counts(plan: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {safe(state)}" for state, count in sorted(plan["counts"].items()))
    return f"{plan['devices']} devices known; of those with rules: {counts or 'none'}"


def _show(plan: dict[str, Any], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(plan)
        return
    if plan["remarks"]:
        show(OutputFormat.TABLE, plan["remarks"], _REMARKS, map(_remark_row, plan["remarks"]))
    changed = [
        (item["device_id"], item["device_class"], item["state"], f"{len(item['before'])} -> {len(item['after'])}")
        for item in plan["items"]
    ]
    if changed:
        show(OutputFormat.TABLE, changed, _COLUMNS, changed)
    sets = {(tuple(item["before"]), tuple(item["after"])) for item in plan["items"] if item["state"] != "contained"}
    for before, after in sorted(sets):
        say()
        for mark, texts in (("-", before), ("+", after)):
            for text in texts:
                if text not in (after if mark == "-" else before):
                    say(f"  {mark} {safe(text)}")
    say(_counts(plan))
