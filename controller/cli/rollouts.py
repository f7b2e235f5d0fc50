"""`cordon rollout`: starts, shows, pauses, approves and aborts rollouts of updates."""

import re
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.api.rollout_summary import progress_line, state_of
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.lost_requests import get_until_answered
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show

POLL: Final = 1.0  # seconds
_ENDS: Final = frozenset({"completed", "stopped", "aborted"})
_COLUMNS: Final = ("rollout", "target", "state", "ring", "confirmed", "errors", "devices", "by", "started")
_RINGS: Final = (
    "ring", "devices", "waiting", "under way", "confirmed", "had it", "failed", "lost", "declined", "unknown",
    "skipped", "errors", "back",
)  # fmt: skip
_DEVICES: Final = ("device", "ring", "state", "phase", "before", "back", "reason")
_RATE: Final = re.compile(r"^(\d{1,6}(?:\.\d+)?)/(s|sec|min|h)$")
_PER_MINUTE: Final = {"s": 60.0, "sec": 60.0, "min": 1.0, "h": 1 / 60}
_MAX_FILE: Final = 65_536  # bytes

app = typer.Typer(help="Rollouts of updates through rings, stopped when devices fail.", no_args_is_help=True)
RolloutArgument = Annotated[
    str, typer.Argument(metavar="ROLLOUT", help="id of the rollout, such as r-0007", show_default=False)
]


def parse_rings(text: str) -> list[dict[str, str]]:
    """Parses `test,canary=10%,fleet=rest`; a name alone is a configured ring.

    Raises:
        CliError: a ring has no name.
    """
    rings = []
    for part in text.split(","):
        name, separator, select = part.strip().partition("=")
        if not name or (separator and not select):
            raise CliError(f"{part!r}: a ring is NAME or NAME=SELECTION, such as canary=10%", ExitCode.USAGE)
        rings.append({"name": name, "select": select} if separator else {"name": name})
    return rings


def read_rings(path: Path) -> list[dict[str, str]]:
    """Reads a TOML file with `[[rings]]` tables of `name` and `select`.

    Raises:
        CliError: the file cannot be read or is invalid.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.loads(file.read(_MAX_FILE).decode("utf-8-sig"))
        return [{"name": str(ring["name"]), "select": str(ring["select"])} for ring in content["rings"]]
    except OSError as e:
        raise CliError(f"{path}: cannot be read: {e.strerror}", ExitCode.USAGE) from e
    except (ValueError, KeyError, TypeError) as e:
        text = f'{path}: rings are written [[rings]] name = "canary" select = "10%" ({e})'
        raise CliError(text, ExitCode.USAGE) from e


def parse_share(text: str) -> float:
    """Parses `5%` as 0.05.

    Raises:
        CliError: not a share.
    """
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not text.endswith("%") or not 0 <= share <= 1:
        raise CliError(f"{text!r}: a threshold is a share such as 5%", ExitCode.USAGE)
    return share


def parse_rate(text: str) -> float:
    """Parses `100/min` as commands per minute.

    Raises:
        CliError: not a rate.
    """
    match = _RATE.fullmatch(text)
    if match is None or not float(match[1]):
        raise CliError(f"{text!r}: a rate is written 100/min (or /s, /h)", ExitCode.USAGE)
    return float(match[1]) * _PER_MINUTE[match[2]]


@app.command("start")
@connected
def start(
    client: ApiClient,
    target: Annotated[str, typer.Argument(help="NAME/VERSION, as `cordon update list` shows", show_default=False)],
    rings: Annotated[
        str | None,
        typer.Option(help="rings in order: NAME as configured, or NAME=tag:X, =class:X, =10%, =rest  [all configured]"),
    ] = None,
    rings_file: Annotated[Path | None, typer.Option(help="TOML with [[rings]] of name and select, instead")] = None,
    only: Annotated[str | None, typer.Option(help="only these devices: tag:X, class:X, id:PATTERN")] = None,
    soak: Annotated[str | None, typer.Option(help="soak time of a ring: 30m, 1h, 2d  [1h]")] = None,
    error_threshold: Annotated[
        str | None, typer.Option(help="stop above this share of those that received it  [5%]")
    ] = None,
    min_sample: Annotated[int | None, typer.Option(min=1, help="fewest devices for the threshold  [10]")] = None,
    timeout: Annotated[str | None, typer.Option(help="for one device, from its command on  [30m]")] = None,
    window: Annotated[str | None, typer.Option(help="hours of the device's local day: 02:00-05:00  [any]")] = None,
    rate: Annotated[str | None, typer.Option(help="maximum rate of commands: 100/min  [no limit]")] = None,
    rollback_on_error: Annotated[
        bool | None,
        typer.Option("--rollback-on-error/--no-rollback-on-error", help="roll back if errors stop it"),
    ] = None,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="also on devices that have a newer version")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", "-r", help="why; it is kept in the audit log")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="show its progress until it ends")] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Start a rollout. Exit status 1 with --watch unless it completed."""
    if rings is not None and rings_file is not None:
        raise CliError("--rings and --rings-file exclude each other", ExitCode.USAGE)
    chosen = parse_rings(rings) if rings is not None else read_rings(rings_file) if rings_file is not None else None
    body: dict[str, Any] = {
        "target": target,
        "rings": chosen,
        "only": only,
        "soak": soak,
        "error_threshold": None if error_threshold is None else parse_share(error_threshold),
        "min_sample": min_sample,
        "timeout": timeout,
        "window": window,
        "per_minute": None if rate is None else parse_rate(rate),
        "rollback_on_error": rollback_on_error,
        "allow_downgrade": allow_downgrade or None,
        "reason": reason,
    }
    rollout = client.call("POST", "/rollouts", {key: value for key, value in body.items() if value is not None})
    _show_started(client, rollout, output, watch=watch)


@app.command("list")
@connected
def list_rollouts(
    client: ApiClient,
    open_only: Annotated[bool, typer.Option("--open", help="only those that have not ended")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List rollouts, newest first."""
    rollouts = client.get("/rollouts", limit=limit, open_only=open_only)["items"]
    show(output, rollouts, _COLUMNS, map(_row, rollouts), empty="there is no rollout")


@app.command("status")
@connected
def status(
    client: ApiClient,
    rollout: RolloutArgument,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="until it ends; exit status 1 unless completed")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="list its devices too")] = False,
    state: Annotated[str | None, typer.Option(help="only devices in this state, such as failed")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Show the progress of a rollout."""
    if watch:
        _watch(client, rollout, output)
        return
    details = client.get(f"/rollouts/{segment(rollout)}")
    if not devices and state is None:
        _print(details, output)
        return
    members = list(client.pages(f"/rollouts/{segment(rollout)}/devices", state=state))
    if output is OutputFormat.JSON:
        print_json({**details, "members": members})
        return
    _print(details, output)
    say()
    show(output, members, _DEVICES, map(_member, members), empty="no device is in that state")


@app.command("pause")
@connected
def pause(client: ApiClient, rollout: RolloutArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Send no more commands until the rollout is resumed; devices that have started continue."""
    _print(client.call("POST", f"/rollouts/{segment(rollout)}/pause", {}), output)


@app.command("resume")
@connected
def resume(client: ApiClient, rollout: RolloutArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Continue a paused rollout."""
    _print(client.call("POST", f"/rollouts/{segment(rollout)}/resume", {}), output)


@app.command("approve")
@connected
def approve(client: ApiClient, rollout: RolloutArgument, output: OutputOption = OutputFormat.TABLE) -> None:
    """Approve the last ring; the token has to be another than the one that started the rollout."""
    _print(client.call("POST", f"/rollouts/{segment(rollout)}/approve", {}), output)


@app.command("abort")
@connected
def abort(
    client: ApiClient,
    rollout: RolloutArgument,
    rollback: Annotated[bool, typer.Option("--rollback", help="devices that have installed it revert")] = False,
    now: Annotated[bool, typer.Option("--now", help="with --rollback: outside maintenance windows too")] = False,
    reason: Annotated[str | None, typer.Option("--reason", "-r", help="why; it is kept in the audit log")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End a rollout early. One that has ended can still be rolled back, and asked again for devices that were not."""
    if now and not rollback:
        raise CliError("--now needs --rollback", ExitCode.USAGE)
    body = {"rollback": rollback, "now": now, **({} if reason is None else {"reason": reason})}
    _print(client.call("POST", f"/rollouts/{segment(rollout)}/abort", body), output)


def _row(rollout: dict[str, Any]) -> tuple[object, ...]:
    rings = rollout["rings"]
    return (
        rollout["rollout_id"],
        f"{rollout['name']}/{rollout['version']}",
        state_of(rollout),
        rollout["ring"],
        sum(ring["confirmed"] + ring["had_it"] for ring in rings),
        sum(ring["errors"] for ring in rings),
        sum(ring["devices"] for ring in rings),
        rollout["rule"] or rollout["by"],
        ago(rollout["created_at"]),
    )


def _ring_row(ring: dict[str, Any]) -> tuple[object, ...]:
    errors = f"{ring['error_rate']:.0%} of {ring['sample']}" if ring["sample"] else "-"
    back = sum(ring[name] for name in ("revert_pending", "revert_away", "reverting", "reverted", "not_reverted"))
    return (
        ring["name"],
        ring["devices"],
        ring["pending"] + ring["away"],
        ring["ordered"] + ring["received"] + ring["claimed"],
        ring["confirmed"],
        ring["had_it"],
        ring["failed"],
        ring["lost"],
        ring["declined"],
        ring["unknown"],
        ring["skipped"],
        errors,
        f"{ring['reverted']} of {back}" if back else "-",
    )


def _member(member: dict[str, Any]) -> tuple[object, ...]:
    phase = member["phase"] + (f" {member['percent']}%" if member["phase"] == "downloading" else "")
    back = "-" if member["back"] == "none" else member["back"]
    columns = (member["device_id"], member["ring"], member["state"], phase or "-", member["before"] or "-", back)
    return (*columns, member["reason"] or "-")


def _print(rollout: dict[str, Any], output: OutputFormat) -> None:
    if output is OutputFormat.JSON:
        print_json(rollout)
        return
    target = safe(f"{rollout['name']} {rollout['version']}")
    say(f"{rollout['rollout_id']}  {target}  {state_of(rollout)}  started {ago(rollout['created_at'])}")
    if rollout["soak_until"]:
        clock = " (by the wall clock since a restart)" if rollout["soak_by_wall_clock"] else ""
        say(f"  ring {rollout['ring']} soaks until {rollout['soak_until']}{clock}")
    if rollout["why"]:
        say(f"  {safe(rollout['why'])}")
    for remark in rollout["remarks"]:
        say(f"  {safe(remark)}")
    if rollout["approved_by"]:
        say(f"  approved by {safe(rollout['approved_by'])}")
    show(output, rollout["rings"], _RINGS, map(_ring_row, rollout["rings"]))


def _show_started(client: ApiClient, rollout: dict[str, Any], output: OutputFormat, *, watch: bool) -> None:
    if not watch:
        _print(rollout, output)
        return
    for remark in rollout["remarks"]:
        note(safe(remark))
    _watch(client, rollout["rollout_id"], output)


def _watch(client: ApiClient, rollout_id: str, output: OutputFormat) -> None:
    """Prints each change on standard error until the rollout has ended, then its last state."""
    last, path = "", f"/rollouts/{segment(rollout_id)}"
    rollout = client.get(path)  # a wrong address is an error at once
    while True:
        line = progress_line(rollout)
        if line != last:
            note(line)
            last = line
        if rollout["state"] in _ENDS:
            break
        time.sleep(POLL)
        rollout = get_until_answered(client, path)
    sys.stderr.flush()
    _print(rollout, output)
    if rollout["state"] != "completed":
        raise CliError(f"{rollout_id} {rollout['state']}: {safe(rollout['why'])}")
