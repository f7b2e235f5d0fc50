"""`cordon access`: what devices of a class may publish and subscribe, and grants that lapse by themselves."""

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
app = typer.Typer(help="What devices may publish and subscribe.", no_args_is_help=True)

TemplatesFileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="a file of access templates", show_default=False)
]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX + 1)
        if len(raw) > _MAX:
            raise CliError(f"{path}: larger than {_MAX} bytes", ExitCode.USAGE)
        return raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise CliError(f"{path}: cannot be read: {e}", ExitCode.USAGE) from e


@app.command("lint")
def lint_file(
    file: TemplatesFileArgument,
    strict: Annotated[bool, typer.Option("--strict", help="warnings count as errors")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Look for shadowed rules, wildcards too wide, allow-all, rules that open Cordon's branches. Needs no controller.

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
    rows = [(one.severity.value, one.device_class, one.rule or "-", one.text) for one in remarks]
    plain = [
        {"gravity": one.severity.value, "device_class": one.device_class, "rule": one.rule, "text": one.text}
        for one in remarks
    ]
    show(output, plain, _REMARKS, rows, empty="nothing to remark")
    bad = {"error", "warning"} if strict else {"error"}
    if any(one.severity.value in bad for one in remarks):
        raise typer.Exit(ExitCode.FAILED)


@app.command("plan")
@connected
def plan(client: ApiClient, file: TemplatesFileArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Show what these templates would change at the broker, and write nothing; exit status 1 with errors of lint."""
    found = client.call("POST", "/access/plan", {"templates": _text(file)})
    _show(found, output)
    if not found["ok"]:
        raise typer.Exit(ExitCode.FAILED)


@app.command("apply")
@connected
def apply(
    client: ApiClient,
    file: TemplatesFileArgument,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="also devices whose rules somebody else wrote; they are lost")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do it without asking")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Put these templates in force: show what changes, then write it; contained devices wait for their release."""
    text = _text(file)
    found = client.call("POST", "/access/plan", {"templates": text})
    if output is OutputFormat.TABLE:
        _show(found, output)
    if not found["ok"]:
        raise CliError("not applied: lint found errors")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Write this to the broker?")):
        raise CliError("nothing was applied: agree with --yes")
    made = client.call("POST", "/access/apply", {"templates": text, "overwrite": overwrite})
    if output is OutputFormat.JSON:
        print_json(made)
    else:
        say(f"in force: {_counts(made)}")
        if made["counts"].get("foreign") and not overwrite:
            note("left: rules that somebody else wrote; `--overwrite` takes them as well")


@app.command("diff")
@connected
def diff(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """Compare the rules at the broker with templates and grants in force; exit status 1 if they differ."""
    found = client.get("/access/diff")
    _show(found, output)
    if any(state not in ("as it should be", "contained") for state in found["counts"]):
        raise typer.Exit(ExitCode.FAILED)


@app.command("grant")
@connected
def grant(
    client: ApiClient,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="the device", show_default=False)],
    duration: Annotated[str, typer.Option("--for", help="how long, as in 90s, 10m, 2h")],
    reason: Annotated[str, typer.Option(help="why, for the record")],
    publish: Annotated[str | None, typer.Option(help="topic it may publish to")] = None,
    subscribe: Annotated[str | None, typer.Option(help="topic it may subscribe to")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Let a device do something for a time besides its template; it lapses by itself, also after a restart."""
    if (publish is None) == (subscribe is None):
        raise CliError("give one of --publish and --subscribe", ExitCode.USAGE)
    action, topic = ("publish", publish) if publish is not None else ("subscribe", subscribe)
    body = {"device_id": device, "action": action, "topic": topic, "for": duration, "reason": reason}
    found = client.call("POST", "/access/grants", body)
    if output is OutputFormat.JSON:
        print_json(found)
        return
    say(f"{safe(found['grant_id'])}: {safe(device)} may {action} {safe(topic)}, it ends {ago(found['expires_at'])}")
    if not found["in_force"]:
        note("not in force now: the device is contained; it is once it is released, if it lasts that long")


@app.command("grants")
@connected
def grants(
    client: ApiClient,
    device: Annotated[str | None, typer.Option(help="of this device")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List grants, newest first, ended ones too."""
    found = client.get("/access/grants", device_id=device, limit=limit)["items"]
    rows = [
        (
            one["grant_id"],
            one["device_id"],
            f"{one['action']} {one['topic']}",
            ago(one["expires_at"]),
            _state(one),
            one["by"],
            one["reason"],
        )
        for one in found
    ]
    show(output, found, _GRANTS, rows, empty="no grants")


@app.command("revoke")
@connected
def revoke(
    client: ApiClient,
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="its id", show_default=False)],
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End a grant now."""
    found = client.call("DELETE", f"/access/grants/{segment(grant_id)}")
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        say(f"{safe(grant_id)} ended")


def _state(one: dict[str, Any]) -> str:
    if not one["lasts"]:
        return "ended"
    return "in force" if one["in_force"] else "waits: contained"


def _counts(found: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {safe(state)}" for state, count in sorted(found["counts"].items()))
    return f"{found['devices']} devices known; of those with rules: {counts or 'none'}"


def _show(found: dict[str, Any], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(found)
        return
    if found["remarks"]:
        rows = [(one["gravity"], one["device_class"], one["rule"] or "-", one["text"]) for one in found["remarks"]]
        show(OutputFormat.TABLE, rows, _REMARKS, rows)
    changed = [
        (one["device_id"], one["device_class"], one["state"], f"{len(one['before'])} -> {len(one['after'])}")
        for one in found["items"]
    ]
    if changed:
        show(OutputFormat.TABLE, changed, _COLUMNS, changed)
    sets = {(tuple(one["before"]), tuple(one["after"])) for one in found["items"] if one["state"] != "contained"}
    for before, after in sorted(sets):
        say()
        for mark, texts in (("-", before), ("+", after)):
            for text in texts:
                if text not in (after if mark == "-" else before):
                    say(f"  {mark} {safe(text)}")
    say(_counts(found))
