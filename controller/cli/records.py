"""`cordon audit` and `cordon dead-letters`: what happened, and what was refused."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from controller.cli.client import Client
from controller.cli.connect import connected
from controller.cli.output import Format, Output, show

PAGE: Final = 1000  # rows; the API's bound
_MAX_DETAIL: Final = 160  # characters in a table
_AUDIT: Final = ("seq", "at", "device", "what", "by", "detail")
_LETTERS: Final = ("at", "device", "topic", "reason", "detail", "bytes")
audit = typer.Typer(help="What was seen, decided and done, by whom.", no_args_is_help=True)
letters = typer.Typer(help="Messages that were refused.", no_args_is_help=True)


@audit.command("list")
@connected
def list_audit(
    client: Client,
    device: Annotated[str | None, typer.Option(help="of this device only")] = None,
    case: Annotated[str | None, typer.Option(help="of this containment only")] = None,
    kind: Annotated[str | None, typer.Option(help="only lines of this kind, such as 'contained'")] = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="only what somebody should look at")] = False,
    after: Annotated[int, typer.Option(min=0, help="go on behind this seq")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="at most so many")] = 100,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="from the beginning")] = False,
    output: Output = Format.TABLE,
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
            one["actor"],
            _brief(one),
        )
        for one in found
    )
    show(output, found, _AUDIT, rows, empty="no line fits")


def _pages(client: Client, query: dict[str, Any], after: int, most: int, order: str) -> Iterator[dict[str, Any]]:
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
    client: Client,
    device: Annotated[str | None, typer.Option(help="of this device only")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE)] = 100,
    output: Output = Format.TABLE,
) -> None:
    """List refused messages, newest first; JSON has what was kept of them."""
    found = client.get("/dead-letters", device_id=device, limit=limit)["items"]
    rows = (
        (one["at"], one["device_id"] or "-", one["topic"], one["reason"], one["detail"], one["size"]) for one in found
    )
    show(output, found, _LETTERS, rows, empty="nothing was refused")
