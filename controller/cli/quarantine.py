"""`cordon quarantine`: contain and release by hand, and wait until the broker was read back."""

import time
from typing import Annotated, Any, Final

import typer

from controller.cli import containments, users
from controller.cli.client import Client, segment
from controller.cli.connect import connected
from controller.cli.devices import proven_word
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import Format, Output, ago, note, print_json, safe, say, show
from controller.cli.users import Certificate, MaxSessions, OptionalDevice, Username, who

POLL: Final = 0.2  # seconds
PATIENCE: Final = 30.0  # seconds
_COLUMNS: Final = ("device", "containment", "proven", "by", "since", "until", "reason")
NOTHING: Final = "nothing to release"  # the decision that leaves nothing to wait for
app = typer.Typer(help="Contain and release by hand.", no_args_is_help=True)
Reason = Annotated[str, typer.Option("--reason", "-r", help="why; it is kept in the record", show_default=False)]
app.command("plan")(containments.plan)
app.command("receipt")(containments.receipt)
app.command("users")(users.users)
For = Annotated[str | None, typer.Option("--for", help="90s, 10m, 2h, 1d; without it until somebody releases it")]
Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help=f"until the broker was read back, {PATIENCE:.0f}s at most")
]


@app.command("list")
@connected
def list_contained(
    client: Client,
    level: Annotated[str | None, typer.Option(help="restricted or isolated")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the devices that are contained."""
    found = list(client.pages("/quarantine", level=level))
    show(output, found, _COLUMNS, map(_row, found), empty="nothing is contained")


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    case = device["case"]
    since = ago(case["opened_at"])
    return device["device_id"], case["level"], proven_word(case), case["by"], since, until(case), case["reason"]


def until(case: dict[str, Any]) -> str:
    """What ends the containment as it stands."""
    if case["isolate_until"]:
        return f"{case['isolate_until']}, then restricted"
    if case["level"] == "isolated" or case["until_released"]:
        return "released by an operator"
    return f"a report passes{' after ' + case['hold_until'] if case['hold_until'] else ''}"


@app.command("restrict")
@connected
def restrict(
    client: Client,
    reason: Reason,
    device: OptionalDevice = None,
    username: Username = None,
    certificate: Certificate = None,
    max_sessions: MaxSessions = None,
    duration: For = None,
    kick: Annotated[bool, typer.Option("--kick", help="destroy its session too: queued commands are lost")] = False,
    wait: Wait = True,
    output: Output = Format.TABLE,
) -> None:
    """Leave a device, or every session of a user, its own Cordon branch and nothing else: it can still be repaired."""
    if named := who(device, username, certificate):
        if kick or duration is not None:
            raise CliError("--kick and --for are for devices: a user stays restricted until released", ExitCode.USAGE)
        body = {"level": "restricted", "reason": reason}
        users.contain(client, named, body, wait=wait, output=output, max_sessions=max_sessions)
        return
    options = {"kick": True} if kick else {}
    _contain(client, device or "", "restricted", reason, duration, wait=wait, output=output, **options)


@app.command("isolate")
@connected
def isolate(
    client: Client,
    reason: Reason,
    device: OptionalDevice = None,
    username: Username = None,
    certificate: Certificate = None,
    max_sessions: MaxSessions = None,
    duration: For = None,
    clear_retained: Annotated[
        bool, typer.Option("--clear-retained", help="delete the retained messages it published too")
    ] = False,
    wait: Wait = True,
    output: Output = Format.TABLE,
) -> None:
    """Ban and disconnect a device, or a user with every session; when the time is over it steps down to restricted."""
    if named := who(device, username, certificate):
        if clear_retained:
            raise CliError("--clear-retained is for a device", ExitCode.USAGE)
        body = {"level": "isolated", "reason": reason, **({} if duration is None else {"for": duration})}
        users.contain(client, named, body, wait=wait, output=output, max_sessions=max_sessions)
        return
    options = {"clear_retained": True} if clear_retained else {}
    _contain(client, device or "", "isolated", reason, duration, wait=wait, output=output, **options)


@app.command("release")
@connected
def release(
    client: Client,
    reason: Reason,
    device: OptionalDevice = None,
    username: Username = None,
    certificate: Certificate = None,
    wait: Wait = True,
    output: Output = Format.TABLE,
) -> None:
    """End a containment: an isolation steps down to restricted, a restriction ends."""
    if named := who(device, username, certificate):
        users.release(client, named, reason, wait=wait, output=output)
        return
    device = device or ""
    decision = client.call("POST", f"/quarantine/{segment(device)}/release", {"reason": reason})
    _finish(client, decision, wait=wait, output=output)


def _contain(
    client: Client,
    device: str,
    level: str,
    reason: str,
    duration: str | None,
    *,
    wait: bool,
    output: Format,
    **options: bool,
) -> None:
    body = {"level": level, "reason": reason, **({} if duration is None else {"for": duration}), **options}
    _finish(client, client.call("PUT", f"/quarantine/{segment(device)}", body), wait=wait, output=output)


def _finish(client: Client, decision: dict[str, Any], *, wait: bool, output: Format) -> None:
    device, case = decision["device_id"], decision["case"]
    if decision["decision"] == NOTHING:
        wait = False
    lines = _wait(client, device, case) if wait else None
    if output is Format.JSON:
        print_json({**decision, "case": lines["case"] if lines else case, "proven": bool(lines and lines["proven"])})
    else:
        say(f"{safe(device)}: {safe(decision['decision'])}, now {decision['level']}")
        if case is not None:
            say(f"until: {until(case)}")
        if lines and lines["proven"]:
            say("the broker was read back and holds it" if case else "the broker was read back and holds nothing of it")
    if lines and not lines["proven"]:
        raise CliError(f"decided and kept, but not proven at the broker yet: {lines['why']}")
    if lines is None and decision["decision"] != NOTHING:
        note("not waited for: `cordon devices show` tells when it is proven")


def _wait(client: Client, device: str, case: dict[str, Any] | None) -> dict[str, Any]:
    """Look until the broker was read back: `proven`, the case as it is then, and why not."""
    end = time.monotonic() + PATIENCE
    while True:
        found = client.get(f"/devices/{segment(device)}", timeline=20)
        now = found["case"]
        proven = now["proven"] if case and now else _is_free(found["timeline"])
        why = (now or {}).get("trouble") or "it is being carried out"
        if proven or time.monotonic() >= end:
            return {"proven": proven, "case": now, "why": why}
        time.sleep(POLL)


def _is_free(timeline: list[dict[str, Any]]) -> bool:
    """Whether the last thing that happened to a containment is that its end was read back."""
    kinds = [line["kind"] for line in timeline]
    ends = [index for index, kind in enumerate(kinds) if kind in ("release decided", "contained")]
    return "release proven" in kinds[ends[-1] :] if ends else True
