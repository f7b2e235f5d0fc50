"""`cordon policy`: check files before they are used, list what is in force, explain a result."""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.event_explanation import (
    event_follows_text,
    explain_event_offline,
    print_event_explanations,
    print_standing,
)
from controller.cli.explanation import explain_offline, follows_text, print_explanations
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say, show
from controller.cli.preview import preview


class PolicySubject(StrEnum):
    """What a policy judges."""

    DEVICE = "device"
    BROKER = "broker"


_COLUMNS: Final = ("rule", "severity", "on failure", "title")
app = typer.Typer(help="What devices are judged by.", no_args_is_help=True)
app.command("preview")(preview)


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="policy files or folders", show_default=False)],
    subject: Annotated[PolicySubject, typer.Option(help="what the policies judge")] = PolicySubject.DEVICE,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Check policy files without using them; every mistake is told with its place. Needs no controller."""
    from controller.app.offline import read_policies  # the rule language takes a while to load
    from controller.domain.broker.facts import TYPES as BROKER_TYPES
    from controller.domain.policy.cel import CelEnvironment
    from controller.domain.policy.facts import TYPES
    from controller.ports.policies import PolicyError

    try:
        policies, version = read_policies(
            files, CelEnvironment(TYPES if subject is PolicySubject.DEVICE else BROKER_TYPES, subject.value)
        )
    except PolicyError as e:
        if output is OutputFormat.JSON:
            names = ("source", "line", "column", "message")
            problems = [{name: getattr(one, name) for name in names} for one in e.problems]
            print_json({"ok": False, "problems": problems})
        else:
            note(str(e))
        raise typer.Exit(ExitCode.FAILED) from e
    rules = sum(len(policy.rules) + len(policy.events) for policy in policies)
    if output is OutputFormat.JSON:
        print_json({"ok": True, "version": version, "policies": len(policies), "rules": rules})
    else:
        say(f"ok: {len(policies)} policies, {rules} rules, version {version}")
        if not any(policy.rules for policy in policies):
            note("only rules about events: use them beside policies that judge reports")


@app.command("list")
@connected
def list_policies(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the rules in force."""
    found = client.get("/policies")
    rows = (
        (rule["rule"], rule["severity"], follows_text(rule), rule["title"])
        for policy in found["items"]
        for rule in policy["rules"]
    )
    events = (
        (rule["rule"], rule["severity"], event_follows_text(rule), f"event: {rule['title']}")
        for policy in found["items"]
        for rule in policy["events"]
    )
    show(output, found["items"], _COLUMNS, (*rows, *events))


@app.command("reload")
@connected
def reload_policies(
    client: ApiClient,
    force: Annotated[
        bool, typer.Option("--force", help="also if they would contain more than [guards] allows")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read the policy files again; those in force stay if a file has a mistake, or if too much would be contained."""
    found = client.call("POST", "/policies/reload" + ("?force=true" if force else ""))
    if output is OutputFormat.JSON:
        print_json(found["items"])
    else:
        rules = sum(len(policy["rules"]) + len(policy["events"]) for policy in found["items"])
        say(f"in force: {len(found['items'])} policies, {rules} rules, version {found['version']}")


@app.command("explain")
@connected
def explain(
    client: Callable[[], ApiClient],
    device: Annotated[str | None, typer.Argument(metavar="[DEVICE]", help="a device, by its last report")] = None,
    report: Annotated[
        Path | None, typer.Option(help="a report as `cordon-agent report` prints it; - for standard input")
    ] = None,
    policy: Annotated[
        list[Path] | None, typer.Option(help="policy files for --report; the starter pack without it")
    ] = None,
    all_rules: Annotated[bool, typer.Option("--all", help="rules that pass in full too")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Say of every rule what it asked, of which facts, and what came out: of a device, or of a report in a file.

    With --report no controller is needed: cordon-agent report | cordon policy explain --report -
    """
    if (device is None) == (report is None):
        raise CliError("give a DEVICE or --report FILE", ExitCode.USAGE)
    if report is not None:
        found = explain_offline(report, policy or [])
    else:
        if policy:
            raise CliError("--policy goes with --report: a device is judged by the policies in force", ExitCode.USAGE)
        found = client().get(f"/devices/{segment(str(device))}/explain")
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        print_explanations(found, in_full=all_rules)
        print_standing(found.get("events", []))


@app.command("test")
def judge_report(
    pack: Annotated[
        str, typer.Argument(metavar="PACK", help="a policy file, a folder, or a pack that ships with Cordon")
    ],
    report: Annotated[
        Path | None,
        typer.Argument(metavar="[REPORT.json]", help="a report as `cordon-agent report` prints it; - reads it"),
    ] = None,
    event: Annotated[
        Path | None, typer.Option(help="an event as devices send it, in place of a report; - reads it")
    ] = None,
    device_class: Annotated[str, typer.Option("--class", help="judge as a device of this class")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="judge as a device with this tag; may be repeated")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="what could not be found out counts as failed")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Judge a report or an event in a file by a policy; exit status 1 when a rule fails. Needs no controller."""
    if (report is None) == (event is None):
        raise CliError("give a REPORT.json or --event EVENT.json", ExitCode.USAGE)
    if event is not None:
        _judge_event(explain_event_offline(event, [_pack(pack)], device_class, tuple(tag or ())), output)
        return
    assert report is not None
    found = explain_offline(report, [_pack(pack)], device_class, tuple(tag or ()))
    counts = Counter(str(one["result"]) for one in found["items"])
    # A rule that cannot be evaluated has not been kept either.
    bad = {"fail", "error", "unknown"} if strict else {"fail", "error"}
    passed = not any(counts[word] for word in bad)
    if output is OutputFormat.JSON:
        print_json({"ok": passed, "counts": dict(counts), **found})
    else:
        print_explanations(found, in_full=False)
    if not passed:
        raise typer.Exit(ExitCode.FAILED)


def _judge_event(found: dict[str, Any], output: OutputFormat) -> None:
    broken = any(one["result"] == "fail" for one in found["items"])
    if output is OutputFormat.JSON:
        print_json({"ok": not broken, **found})
    else:
        print_event_explanations(found)
    if broken:
        raise typer.Exit(ExitCode.FAILED)


def _pack(name: str) -> Path:
    path = Path(name)
    if path.exists() or path.suffix or "/" in name:
        return path
    from controller.packs import pack_path

    try:
        return pack_path(name)
    except KeyError as e:
        raise CliError(f"{name}: no file, and {e.args[0]}", ExitCode.USAGE) from e
