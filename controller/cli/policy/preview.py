"""`cordon policy preview`: shows which devices would change containment if policies were loaded."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, safe, say, show

MAX_LISTED: Final = 10_000  # devices; the sums count all
_COLUMNS: Final = ("device", "change", "from", "to", "because of")
_MAX_FILE: Final = 1024 * 1024  # bytes
_LABELS: Final = {
    "contained": "contained",
    "later": "contained later",
    "held": "held back",
    "released": "released",
}


@connected
def preview(
    client: ApiClient,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="policy files or folders", show_default=False)],
    alone: Annotated[
        bool, typer.Option("--alone", help="replace all policies in force, not only those of the same name")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show which devices would change containment by these policies, evaluated on their stored reports.

    Nothing is stored or loaded. Exit status 1 when a reload would be refused: too much at once.
    """
    body = {"files": _texts(files), "alone": alone}
    changes: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for line in client.lines("POST", "/policies/preview", body):
        changes += line["changes"][: MAX_LISTED - len(changes)]
        last = line
        if sys.stderr.isatty() and not line["done"]:
            sys.stderr.write(f"\r{line['judged']} of {line['reports']} reports evaluated")
    if sys.stderr.isatty():
        note("")
    if not last.get("done"):
        raise CliError("the preview ended early: the controller's log may show why")
    if output is OutputFormat.JSON:
        print_json({**last, "changes": changes})
    else:
        _print(changes, last)
    if last["refused"]:
        raise CliError("a reload would be refused: it would contain more than [guards] allows at once")


def _print(changes: list[dict[str, Any]], last: dict[str, Any]) -> None:
    rows = [
        (
            change["device_id"],
            _LABELS[change["change"]] + (f" ({change['held']})" if change["held"] else ""),
            change["before"],
            change["after"],
            ", ".join(change["causes"]),
        )
        for change in changes
    ]
    show(OutputFormat.TABLE, changes, _COLUMNS, rows, empty="no device would change containment")
    counts = Counter(last["counts"])
    summary = ", ".join(f"{counts[kind]} {label}" for kind, label in _LABELS.items() if counts[kind])
    limit = f"at most {last['limit']} may be contained at once"
    say(f"{last['judged']} reports evaluated: {summary or 'nothing changes'}; {limit}")
    for entry in last["knowledge"]:
        say(f"by {safe(entry)}")
    if last["stale"]:
        say(f"{last['stale']} stale devices were omitted: nothing is contained because of an old report")
    if last["unread"]:
        say(f"{last['unread']} stored reports could not be read")
    if sum(counts.values()) > len(changes):
        note(f"the first {len(changes)} devices are listed")


def _texts(paths: list[Path]) -> list[dict[str, str]]:
    return [{"source": str(file), "text": _read(file)} for path in paths for file in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
    if not files:
        raise CliError(f"{path}: no *.yaml in this folder", ExitCode.USAGE)
    return files


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE + 1).decode("utf-8-sig")
    except OSError as e:
        raise CliError(f"{path}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
    except UnicodeDecodeError as e:
        raise CliError(f"{path}: not UTF-8 text", ExitCode.USAGE) from e
