"""`cordon notify`: who is told of what, what was sent, and who looks after a case."""

import re
from typing import Annotated, Any, Final

import typer

from controller.api.client import PAGE, ApiClient, segment
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show
from controller.domain.notifications.model import MailSecurity, SinkKind

_SINKS: Final = ("sink", "kind", "target", "rules", "quiet", "waiting", "dropped", "state")
_LOG: Final = ("queued", "sink", "kind", "severity", "about", "state", "attempts", "trouble", "acknowledged")
_QUIET: Final = re.compile(r"([0-9:]{5})-([0-9:]{5})")
_RULE: Final = {"kind": "kinds", "class": "classes"}
app = typer.Typer(help="Notifications: who is told, and what was sent.", no_args_is_help=True)
SinkArgument = Annotated[str, typer.Argument(metavar="SINK", help="name of the sink", show_default=False)]


@app.command("list")
@connected
def list_sinks(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the sinks by name, with what waits for each and whether it takes messages."""
    sinks = client.get("/notifications/sinks")["items"]
    show(output, sinks, _SINKS, map(_sink, sinks), empty="nobody is told of anything: cordon notify add --help")


def _sink(sink: dict[str, Any]) -> tuple[object, ...]:
    rules = "; ".join(map(_rule_text, sink["rules"])) or "all"
    failing = sink["failing_since"]
    state = "ok" if failing is None else f"failing for {ago(failing).removesuffix(' ago')}: {sink['trouble']}"
    columns = (sink["name"], sink["kind"], sink["target"], rules, sink["quiet"] or "-")
    return (*columns, sink["pending"], sink["dropped"], state)


def _rule_text(rule: dict[str, Any]) -> str:
    parts = [f"kind={kind}" for kind in rule["kinds"]]
    parts += [f"severity={rule['severity']}"] + [f"class={name}" for name in rule["classes"]]
    return ",".join(parts)


SinkKindOption = Annotated[SinkKind, typer.Option("--kind", help="what it is", show_default=False)]
SinkAddressOption = Annotated[
    str | None, typer.Option("--address", metavar="URL", help="https://..., or http:// to this machine")
]
AddressSecretOption = Annotated[
    str | None,
    typer.Option("--address-secret", metavar="NAME", help="the URL is this secret of [notifications.secrets]"),
]
SinkSecretOption = Annotated[
    str | None, typer.Option("--secret", metavar="NAME", help="webhook: secret that signs; smtp: password of --user")
]
MailServerOption = Annotated[str | None, typer.Option("--server", metavar="HOST:PORT", help="smtp: the mail server")]
MailSecurityOption = Annotated[
    MailSecurity, typer.Option("--security", help="smtp: encryption; none is for a server on this machine")
]
MailSenderOption = Annotated[str | None, typer.Option("--from", metavar="ADDRESS", help="smtp: sender")]
RecipientsOption = Annotated[
    list[str] | None, typer.Option("--to", metavar="ADDRESS", help="smtp: recipient; repeat for more")
]
SinkRulesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        help="kind=containment.*,severity=warning,class=pump; kind and class may be repeated in it; a message that one"
        " of the rules matches is sent",
        show_default="everything",
    ),
]
QuietOption = Annotated[str | None, typer.Option("--quiet", metavar="22:00-06:00", help="only critical messages then")]


@app.command("add")
@connected
def add(
    client: ApiClient,
    sink: SinkArgument,
    kind: SinkKindOption,
    address: SinkAddressOption = None,
    address_secret: AddressSecretOption = None,
    secret: SinkSecretOption = None,
    server: MailServerOption = None,
    security: MailSecurityOption = MailSecurity.STARTTLS,
    sender: MailSenderOption = None,
    recipients: RecipientsOption = None,
    user: Annotated[str, typer.Option(help="smtp: user name at the mail server")] = "",
    rules: SinkRulesOption = None,
    quiet: QuietOption = None,
    zone: Annotated[str, typer.Option(help="time zone of --quiet, such as Europe/Vienna")] = "UTC",
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Add a sink: a webhook, a chat (slack, teams, mattermost) or recipients of mail.

    Secrets are never given here, but by their names in [notifications.secrets] of cordon.toml. Try the sink with
    `cordon notify test`.
    """
    body: dict[str, Any] = {"name": sink, "kind": kind.value, "rules": list(map(_rule, rules or []))}
    if kind is SinkKind.SMTP:
        body["mail"] = _mail(server, security, sender, recipients or [], user, secret)
    else:
        given = {"url": address, "url_secret": address_secret, "secret": secret}
        body |= {name: value for name, value in given.items() if value is not None}
    if quiet is not None:
        found = _QUIET.fullmatch(quiet)
        if found is None:
            raise CliError("--quiet is written 22:00-06:00", ExitCode.USAGE)
        body["quiet"] = {"begin": found[1], "end": found[2], "zone": zone}
    added = client.call("POST", "/notifications/sinks", body)
    if output is OutputFormat.JSON:
        print_json(added)
    else:
        say(f"{safe(added['name'])}: {added['kind']} at {safe(added['target'])}; try it: cordon notify test {sink}")


def _mail(
    server: str | None, security: MailSecurity, sender: str | None, recipients: list[str], user: str, secret: str | None
) -> dict[str, Any]:
    if server is None or sender is None or not recipients:
        raise CliError("a sink smtp needs --server, --from and --to", ExitCode.USAGE)
    host, separator, port = server.rpartition(":")
    if not separator or not port.isdigit():
        raise CliError("--server is written mail.example.org:587", ExitCode.USAGE)
    return {
        "host": host.strip("[]"),
        "port": int(port),
        "security": security.value,
        "sender": sender,
        "recipients": recipients,
        "username": user,
        "secret": secret,
    }


def _rule(text: str) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name not in ("kind", "severity", "class") or not value:
            raise CliError("--rule is written kind=containment.*,severity=warning,class=pump", ExitCode.USAGE)
        if name in _RULE:
            rule.setdefault(_RULE[name], []).append(value)
        else:
            rule[name] = value
    return rule


@app.command("remove")
@connected
def remove(client: ApiClient, sink: SinkArgument) -> None:
    """Remove a sink, with all that it was still to be sent."""
    client.call("DELETE", f"/notifications/sinks/{segment(sink)}")
    say(f"{safe(sink)}: removed")


@app.command("test")
@connected
def try_sink(client: ApiClient, sink: SinkArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Send a test message to a sink at once; exit status 1 if it did not take it."""
    result = client.call("POST", f"/notifications/sinks/{segment(sink)}/test")
    if output is OutputFormat.JSON:
        print_json(result)
    elif result["delivered"]:
        say(f"{safe(sink)}: delivered")
    else:
        note(f"{safe(sink)}: not delivered: {safe(result['trouble'])}")
    if not result["delivered"]:
        raise typer.Exit(ExitCode.FAILED)


@app.command("log")
@connected
def log(
    client: ApiClient,
    sink: Annotated[str | None, typer.Option(help="only to this sink")] = None,
    case: Annotated[str | None, typer.Option(help="only of this case")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE)] = 50,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List what was sent or waits, newest first, with who acknowledged the case."""
    items = client.get("/notifications/log", sink=sink, case_id=case, limit=limit)["items"]
    show(output, items, _LOG, map(_delivery, items), empty="nothing was sent")


def _delivery(one: dict[str, Any]) -> tuple[object, ...]:
    about = one["case_id"] or one["device_id"] or one["thread"]
    state = f"due {ago(one['due'])}" if one["state"] == "pending" else one["state"]
    done = f"{one['acknowledged_by']} {ago(one['acknowledged_at'])}" if one["acknowledged_by"] else "-"
    columns = (ago(one["queued_at"]), one["sink"], one["kind"], one["severity"], about, state)
    return (*columns, one["attempts"], one["trouble"] or "-", done)


@app.command("acknowledge")
@connected
def acknowledge(
    client: ApiClient,
    case: Annotated[str, typer.Argument(metavar="CASE", help="id of the case", show_default=False)],
    reason: Annotated[str | None, typer.Option("--reason", "-r", help="kept in the audit log")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Say that you look after a case: nobody is reminded of it any more; changes are still told."""
    body = {} if reason is None else {"reason": reason}
    done = client.call("POST", f"/notifications/cases/{segment(case)}/acknowledge", body)
    if output is OutputFormat.JSON:
        print_json(done)
    else:
        say(f"{safe(done['case_id'])}: acknowledged by {safe(done['by'])}")
