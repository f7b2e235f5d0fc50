"""`cordon audit verify` and `cordon audit head`: whether the record is as it was written."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.cli.client import Client
from controller.cli.connect import connectable
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import Format, Output, note, print_json, say
from controller.cli.records import audit
from controller.domain.chain import Checked, Head
from controller.ports.errors import StoreError

app: Final = audit  # the whole group, with these two
File = Annotated[
    Path | None, typer.Option("--file", help="look into this store or backup; needs no controller and trusts none")
]
Noted = Annotated[
    str | None, typer.Option("--head", metavar="SEQ:DIGEST", help="a head noted before, which has to be in the record")
]


@audit.command("head")
@connectable
def head(client: Callable[[], Client], file: File = None, output: Output = Format.TABLE) -> None:
    """Show the end of the chain, SEQ:DIGEST; note it where the controller cannot reach."""
    if file is not None:
        found: dict[str, Any] = _head(_checked(file, None).head)
    else:
        found = client().get("/audit/head")
    if output is Format.JSON:
        print_json(found)
    else:
        say(found["head"])


@audit.command("verify")
@connectable
def verify(client: Callable[[], Client], file: File = None, noted: Noted = None, output: Output = Format.TABLE) -> None:
    """Look at every line of the record: exit status 1, with the lines, when something was done to it.

    Without --head the end of the record can be cut off unseen by somebody who rewrites the whole store.
    """
    found = client().get("/audit/verify", head=noted) if file is None else _as_told(_checked(file, noted))
    if output is Format.JSON:
        print_json(found)
    else:
        for one in found["flaws"]:
            say(one["text"])
        rows, end = found["rows"], found["head"]["head"]
        note(f"{rows} rows, head {end}: " + ("as they were written" if found["ok"] else "NOT as they were written"))
    if not found["ok"]:
        raise typer.Exit(ExitCode.FAILED)


def _checked(file: Path, noted: str | None) -> Checked:
    from controller.adapters.sqlite.chain import check_file

    try:
        return check_file(file, None if noted is None else Head.parse(noted))
    except ValueError as e:
        raise CliError(str(e), ExitCode.USAGE) from e
    except StoreError as e:
        raise CliError(str(e)) from e


def _head(head: Head) -> dict[str, Any]:
    return {"seq": head.seq, "digest": head.digest.hex(), "head": str(head)}


def _as_told(checked: Checked) -> dict[str, Any]:
    flaws = [{"what": one.what, "first": one.first, "last": one.last, "text": one.text} for one in checked.flaws]
    return {"ok": not flaws, "rows": checked.rows, "head": _head(checked.head), "flaws": flaws}
