"""`cordon audit` and `cordon dead-letters`: lists and verifies the audit log, lists rejected messages."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, moment, note, print_json, say, show
from controller.domain.audit_anchors import AuditHeads, AuditVerification
from controller.domain.audit_id import AuditId
from controller.ports.errors import StoreError
from schemas.secret_sources import SECRET_HELP

PAGE: Final = 1000  # rows; the API's limit
_MAX_DETAIL: Final = 160  # characters in a table
_AUDIT: Final = ("id", "at", "device", "kind", "what", "by", "detail")
_LETTERS: Final = ("at", "device", "topic", "reason", "detail", "bytes")
app = typer.Typer(help="The audit log: observations, decisions and actions.", no_args_is_help=True)
letters = typer.Typer(help="Messages that were rejected.", no_args_is_help=True)


@app.command("list")
@connected
def list_audit(
    client: ApiClient,
    device: Annotated[str | None, typer.Option(help="only of this device")] = None,
    case: Annotated[str | None, typer.Option(help="only of this containment case")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="only of this kind, such as containment.decided; repeat for several")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="only by this actor, as the entries name it")] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="from then on: 2h ago as 2h, or a time")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="before: 2h ago as 2h, or a time")] = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="only alerts")] = False,
    after: Annotated[str | None, typer.Option(metavar="ID", help="continue after this line, such as 1-4711")] = None,
    limit: Annotated[int, typer.Option(min=1, help="maximum number")] = 100,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="oldest lines first")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List lines of the audit log, newest first."""
    query = {"device_id": device, "case_id": case, "kind": kind or None, "alerts_only": alerts or None, "actor": actor}
    query |= {"from": since and moment(since), "to": until and moment(until)}
    lines = list(_pages(client, query, after, limit, "oldest" if oldest_first else "newest"))
    rows = (
        (
            line["id"],
            line["at"],
            line["device_id"] or "-",
            ("! " if line["alert"] else "") + line["kind"],
            line["text"],
            line["actor"],
            _brief(line),
        )
        for line in lines
    )
    show(output, lines, _AUDIT, rows, empty="no line matches")


def _pages(
    client: ApiClient, query: dict[str, Any], after: str | None, limit: int, order: str
) -> Iterator[dict[str, Any]]:
    remaining = limit
    while remaining > 0:
        page = client.get("/audit", **query, after=after, limit=min(PAGE, remaining), order=order)
        yield from page["items"]
        remaining -= len(page["items"])
        if page["next"] is None:
            return
        after = page["next"]


def _brief(line: dict[str, Any]) -> str:
    detail = {key: value for key, value in line["detail"].items() if key != "steps" and value not in ("", None, [], {})}
    text = ", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in detail.items())
    return text if len(text) <= _MAX_DETAIL else text[: _MAX_DETAIL - 3] + "..."


@letters.command("list")
@connected
def list_dead_letters(
    client: ApiClient,
    device: Annotated[str | None, typer.Option(help="only of this device")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE)] = 100,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List rejected messages, newest first; JSON has the stored part of their payloads."""
    letters = client.get("/dead-letters", device_id=device, limit=limit)["items"]
    names = ("at", "device_id", "topic", "reason", "detail", "size")
    rows = ([letter[name] or "-" if name == "device_id" else letter[name] for name in names] for letter in letters)
    show(output, letters, _LETTERS, rows, empty="no rejected messages")


AuditFileOption = Annotated[
    Path | None, typer.Option("--file", help="read this store or backup; needs no controller and trusts none")
]
AuditStoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URL", help="the same of a database: postgresql://USER@HOST/DATABASE")
]
AuditPasswordOption = Annotated[str, typer.Option("--password-file", help=f"password for --store: {SECRET_HELP}")]
AuditNotedOption = Annotated[
    str | None,
    typer.Option(
        "--noted", "--head", metavar="HEADS", help="what `audit head` showed: the audit log has to contain it"
    ),
]


@app.command("head")
@connected
def head(
    client: Callable[[], ApiClient],
    file: AuditFileOption = None,
    store: AuditStoreOption = None,
    password: AuditPasswordOption = "",
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show the ends of all chains as one short text; keep it where the controller has no access."""
    read = _verified(file, store, password, None)
    end: dict[str, Any] = client().get("/audit/head") if read is None else _heads(read.heads)
    if output is OutputFormat.JSON:
        print_json(end)
    else:
        say(end["head"])


@app.command("verify")
@connected
def verify(
    client: Callable[[], ApiClient],
    file: AuditFileOption = None,
    store: AuditStoreOption = None,
    password: AuditPasswordOption = "",
    noted: AuditNotedOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Verify every line of the audit log: exit status 1, with the lines, when one was changed, removed or inserted.

    Without --noted, somebody who rewrites the whole store can cut off the end of the audit log unnoticed.
    """
    read = _verified(file, store, password, noted)
    result = client().get("/audit/verify", head=noted) if read is None else _result(read)
    if output is OutputFormat.JSON:
        print_json(result)
    else:
        for flaw in result["flaws"]:
            say(flaw["text"])
        verdict = "as they were written" if result["ok"] else "NOT as they were written"
        note(f"{result['rows']} rows, head {result['heads']['head']}: {verdict}")
    if not result["ok"]:
        raise typer.Exit(ExitCode.FAILED)


def _verified(file: Path | None, store: str | None, password: str, noted: str | None) -> AuditVerification | None:
    """Verifies without a controller; `None` if that is not asked for."""
    if file is None and store is None:
        return None
    if file is not None and store is not None:
        raise CliError("either --file or --store", ExitCode.USAGE)
    from controller.app.offline_store import verify_audit

    try:
        return verify_audit(file or str(store), password, None if noted is None else AuditHeads.parse(noted))
    except ValueError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
    except StoreError as e:
        raise CliError(str(e)) from e


def _heads(heads: AuditHeads) -> dict[str, Any]:
    chains = [
        {"id": str(AuditId(writer, head.seq)), "digest": head.digest.hex()}
        for writer, head in sorted(heads.chains.items())
    ]
    anchor = {"number": heads.anchor.seq, "digest": heads.anchor.digest.hex()}
    return {"head": str(heads), "anchor": anchor, "chains": chains}


def _result(verified: AuditVerification) -> dict[str, Any]:
    flaws = [{"what": flaw.what, "first": flaw.first, "last": flaw.last, "text": flaw.text} for flaw in verified.flaws]
    return {"ok": not flaws, "rows": verified.rows, "heads": _heads(verified.heads), "flaws": flaws}
