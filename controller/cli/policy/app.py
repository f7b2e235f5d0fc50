"""`cordon policy`: checks policy files, lists the rules in force, explains results."""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, safe, say, show
from controller.cli.policy import explanation
from controller.cli.policy.preview import preview


class PolicySubject(StrEnum):
    DEVICE = "device"
    BROKER = "broker"


KnowledgeOption = Annotated[
    Path | None, typer.Option("--knowledge", help="a knowledge file for the report, in place of the one that ships")
]
_COLUMNS: Final = ("rule", "severity", "on failure", "title")
app = typer.Typer(help="The policies that devices are evaluated with.", no_args_is_help=True)
app.command("preview")(preview)


@app.command("check")
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="policy files or folders", show_default=False)],
    subject: Annotated[PolicySubject, typer.Option(help="what the policies evaluate")] = PolicySubject.DEVICE,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Check policy files without using them; shows each mistake with its line. Needs no controller."""
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
            problems = [{name: getattr(problem, name) for name in names} for problem in e.problems]
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
            note("only rules about events: use them together with policies that have rules about reports")


@app.command("list")
@connected
def list_policies(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the rules in force."""
    found = client.get("/policies")
    policies = found["items"]
    rules = [(rule, str(rule["title"])) for policy in policies for rule in policy["rules"]]
    rules += [(rule, f"event: {rule['title']}") for policy in policies for rule in policy["events"]]
    rows = ((rule["rule"], rule["severity"], explanation.response_text(rule), title) for rule, title in rules)
    show(output, policies, _COLUMNS, rows)
    shared = found.get("shared")
    if shared is not None and output is OutputFormat.TABLE:
        note(f"version {found['version']}, put in force by {safe(shared['by'])} from {safe(shared['controller'])}")
        if shared["warning"]:
            note(f"warning: {safe(shared['warning'])}")


@app.command("reload")
@connected
def reload_policies(
    client: ApiClient,
    force: Annotated[
        bool, typer.Option("--force", help="also if they would contain more than [guards] allows")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read the policy files again. Those in force stay if a file has a mistake, or if too much would be contained."""
    loaded = client.call("POST", "/policies/reload", force=force or None)
    policies = loaded["items"]
    if output is OutputFormat.JSON:
        print_json(policies)
    else:
        rules = sum(len(policy["rules"]) + len(policy["events"]) for policy in policies)
        say(f"in force: {len(policies)} policies, {rules} rules, version {loaded['version']}")


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
    knowledge: KnowledgeOption = None,
    all_rules: Annotated[bool, typer.Option("--all", help="rules that pass in full too")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show for every rule its conditions, the facts and the result: of a device, or of a report in a file.

    With --report no controller is needed: cordon-agent report | cordon policy explain --report -
    """
    if (device is None) == (report is None):
        raise CliError("give a DEVICE or --report FILE", ExitCode.USAGE)
    if report is not None:
        explained = explanation.explain_report(report, policy or [], knowledge=knowledge)
    else:
        if policy or knowledge:
            raise CliError(
                "--policy and --knowledge go with --report: devices are evaluated with what is in force", ExitCode.USAGE
            )
        explained = client().get(f"/devices/{segment(str(device))}/explain")
    if output is OutputFormat.JSON:
        print_json(explained)
    else:
        explanation.print_report(explained, in_full=all_rules)
        explanation.print_event_state(explained.get("events", []))


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
    device_class: Annotated[str, typer.Option("--class", help="evaluate as a device of this class")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="evaluate as a device with this tag; may be repeated")] = None,
    knowledge: KnowledgeOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="unknown results count as failed")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Judge a report or an event in a file by a policy; exit status 1 when a rule fails. Needs no controller."""
    if (report is None) == (event is None):
        raise CliError("give a REPORT.json or --event EVENT.json", ExitCode.USAGE)
    if event is not None:
        _judge_event(explanation.explain_event(event, [_pack(pack)], device_class, tuple(tag or ())), output)
        return
    assert report is not None
    explained = explanation.explain_report(report, [_pack(pack)], device_class, tuple(tag or ()), knowledge)
    counts = Counter(str(rule["result"]) for rule in explained["items"])
    bad = {"fail", "error", "unknown"} if strict else {"fail", "error"}
    passed = not any(counts[result] for result in bad)
    if output is OutputFormat.JSON:
        print_json({"ok": passed, "counts": dict(counts), **explained})
    else:
        explanation.print_report(explained, in_full=False)
    if not passed:
        raise typer.Exit(ExitCode.FAILED)


def _judge_event(explained: dict[str, Any], output: OutputFormat) -> None:
    broken = any(rule["result"] == "fail" for rule in explained["items"])
    if output is OutputFormat.JSON:
        print_json({"ok": not broken, **explained})
    else:
        explanation.print_event(explained)
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
        raise CliError(f"{name}: not a file, and {e.args[0]}", ExitCode.USAGE) from e
