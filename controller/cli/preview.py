"""`cordon policy preview`: which devices would change containment, before the policies are loaded."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, note, print_json, say, show

MAX_LISTED: Final = 10_000  # devices that are listed one by one; the sums count all
_COLUMNS: Final = ("device", "change", "from", "to", "because of")
_MAX_FILE: Final = 1024 * 1024  # bytes
_WORDS: Final = {
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
        bool, typer.Option("--alone", help="in place of all policies in force, not only of those of the same name")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Say which devices would change containment by these policies, judged by their stored reports.

    Nothing is kept and nothing comes into force. Exit status 1 when a reload would be refused: too much at once.
    """
    body = {"files": _texts(files), "alone": alone}
    changes: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for line in client.lines("POST", "/policies/preview", body):
        changes += line["changes"][: MAX_LISTED - len(changes)]
        last = line
        if sys.stderr.isatty() and not line["done"]:
            sys.stderr.write(f"\r{line['judged']} of {line['reports']} reports judged")
    if sys.stderr.isatty():
        note("")
    if not last.get("done"):
        raise CliError("the preview broke off: the controller's log may say why")
    if output is OutputFormat.JSON:
        print_json({**last, "changes": changes})
    else:
        _print(changes, last)
    if last["refused"]:
        raise CliError("a reload would be refused: it would contain more than [guards] allows at once")


def _print(changes: list[dict[str, Any]], last: dict[str, Any]) -> None:
    rows = [
        (
            one["device_id"],
            _WORDS[one["change"]] + (f" ({one['held']})" if one["held"] else ""),
            one["before"],
            one["after"],
            ", ".join(one["causes"]),
        )
        for one in changes
    ]
    show(OutputFormat.TABLE, changes, _COLUMNS, rows, empty="no device would change containment")
    counts = Counter(last["counts"])
    said = ", ".join(f"{counts[kind]} {word}" for kind, word in _WORDS.items() if counts[kind]) or "nothing changes"
    say(f"{last['judged']} reports judged: {said}; at most {last['limit']} may be contained at once")
    if last["stale"]:
        say(f"{last['stale']} silent devices were left out: nothing is contained on what they said before")
    if last["unread"]:
        say(f"{last['unread']} stored reports could not be read")
    if sum(counts.values()) > len(changes):
        note(f"the first {len(changes)} devices are listed")


def _texts(paths: list[Path]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for path in paths:
        inside = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        if not inside:
            raise CliError(f"{path}: no *.yaml in this folder", ExitCode.USAGE)
        for one in inside:
            try:
                with one.open("rb") as file:
                    text = file.read(_MAX_FILE + 1).decode("utf-8-sig")
            except OSError as e:
                raise CliError(f"{one}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
            except UnicodeDecodeError as e:
                raise CliError(f"{one}: not UTF-8 text", ExitCode.USAGE) from e
            found.append({"source": str(one), "text": text})
    return found
