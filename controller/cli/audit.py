"""`cordon audit` and `cordon dead-letters`: what happened, and what was refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say, show
from controller.domain.audit_chain import ChainHead, ChainVerification
from controller.ports.errors import StoreError

PAGE: Final = 1000  # rows; the API's bound
_MAX_DETAIL: Final = 160  # characters in a table
_AUDIT: Final = ("seq", "at", "device", "kind", "what", "by", "detail")
_LETTERS: Final = ("at", "device", "topic", "reason", "detail", "bytes")
audit = typer.Typer(help="What was seen, decided and done, by whom.", no_args_is_help=True)
letters = typer.Typer(help="Messages that were refused.", no_args_is_help=True)


@audit.command("list")
@connected
def list_audit(
    client: ApiClient,
    device: Annotated[str | None, typer.Option(help="of this device only")] = None,
    case: Annotated[str | None, typer.Option(help="of this containment only")] = None,
    kind: Annotated[str | None, typer.Option(help="only lines of this kind, such as containment.decided")] = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="only what somebody should look at")] = False,
    after: Annotated[int, typer.Option(min=0, help="go on behind this seq")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="at most so many")] = 100,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="from the beginning")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List lines of the record, newest first."""
    query = {"device_id": device, "case_id": case, "kind": kind, "alerts_only": alerts or None}
    found = list(_pages(client, query, after, limit, "oldest" if oldest_first else "newest"))
    rows = (
        (
            one["seq"],
            one["at"],
            one["device_id"] or "-",
            ("! " if one["alert"] else "") + one["kind"],
            one["text"],
            one["actor"],
            _brief(one),
        )
        for one in found
    )
    show(output, found, _AUDIT, rows, empty="no line fits")


def _pages(client: ApiClient, query: dict[str, Any], after: int, most: int, order: str) -> Iterator[dict[str, Any]]:
    left = most
    while left > 0:
        page = client.get("/audit", **query, after=after, limit=min(PAGE, left), order=order)
        yield from page["items"]
        left -= len(page["items"])
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
    device: Annotated[str | None, typer.Option(help="of this device only")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE)] = 100,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List refused messages, newest first; JSON has what was kept of them."""
    found = client.get("/dead-letters", device_id=device, limit=limit)["items"]
    rows = (
        (one["at"], one["device_id"] or "-", one["topic"], one["reason"], one["detail"], one["size"]) for one in found
    )
    show(output, found, _LETTERS, rows, empty="nothing was refused")


app: Final = audit  # the whole group, with these two
AuditFileOption = Annotated[
    Path | None, typer.Option("--file", help="look into this store or backup; needs no controller and trusts none")
]
AuditHeadOption = Annotated[
    str | None, typer.Option("--head", metavar="SEQ:DIGEST", help="a head noted before, which has to be in the record")
]


@audit.command("head")
@connected
def head(
    client: Callable[[], ApiClient], file: AuditFileOption = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Show the end of the chain, SEQ:DIGEST; note it where the controller cannot reach."""
    if file is not None:
        found: dict[str, Any] = _head(_checked(file, None).head)
    else:
        found = client().get("/audit/head")
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        say(found["head"])


@audit.command("verify")
@connected
def verify(
    client: Callable[[], ApiClient],
    file: AuditFileOption = None,
    noted: AuditHeadOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Look at every line of the record: exit status 1, with the lines, when something was done to it.

    Without --head the end of the record can be cut off unseen by somebody who rewrites the whole store.
    """
    found = client().get("/audit/verify", head=noted) if file is None else _as_told(_checked(file, noted))
    if output is OutputFormat.JSON:
        print_json(found)
    else:
        for one in found["flaws"]:
            say(one["text"])
        rows, end = found["rows"], found["head"]["head"]
        note(f"{rows} rows, head {end}: " + ("as they were written" if found["ok"] else "NOT as they were written"))
    if not found["ok"]:
        raise typer.Exit(ExitCode.FAILED)


def _checked(file: Path, noted: str | None) -> ChainVerification:
    from controller.app.offline import verify_audit

    try:
        return verify_audit(file, None if noted is None else ChainHead.parse(noted))
    except ValueError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
    except StoreError as e:
        raise CliError(str(e)) from e


def _head(head: ChainHead) -> dict[str, Any]:
    return {"seq": head.seq, "digest": head.digest.hex(), "head": str(head)}


def _as_told(checked: ChainVerification) -> dict[str, Any]:
    flaws = [{"what": one.what, "first": one.first, "last": one.last, "text": one.text} for one in checked.flaws]
    return {"ok": not flaws, "rows": checked.rows, "head": _head(checked.head), "flaws": flaws}
