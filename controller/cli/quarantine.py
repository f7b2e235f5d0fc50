"""`cordon quarantine`: contain and release by hand, and wait until the broker was read back."""

import time
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli import quarantine_plans, users
from controller.cli.confirmation import asking_twice
from controller.cli.connection_options import connected
from controller.cli.devices import proven_word
from controller.cli.errors import CliError, ExitCode
from controller.cli.guard import EvenProtectedOption, second_person
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show
from controller.cli.users import CertificateOption, MaxSessionsOption, OptionalDeviceArgument, UsernameOption, who
from controller.domain.audit_kinds import AuditKind

POLL: Final = 0.2  # seconds
PATIENCE: Final = 30.0  # seconds
_MANY: Final = ("device", "decided", "now", "at the broker")
_COLUMNS: Final = ("device", "containment", "proven", "by", "since", "until", "reason")
NOTHING: Final = AuditKind.CONTAINMENT_NOT_IN_FORCE  # the decision that leaves nothing to wait for
app = typer.Typer(help="Contain and release by hand.", no_args_is_help=True)
QuarantineReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="why; it is kept in the record", show_default=False)
]
app.command("plan")(quarantine_plans.plan)
app.command("receipt")(quarantine_plans.receipt)
app.command("users")(users.users)
QuarantineDurationOption = Annotated[
    str | None, typer.Option("--for", help="90s, 10m, 2h, 1d; without it until somebody releases it")
]
QuarantineDevicesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[DEVICE]...", help="one or several devices")
]
TagOption = Annotated[str | None, typer.Option(help="every device with this tag too")]
ClassOption = Annotated[str | None, typer.Option("--class", help="every device of this class too")]
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help=f"until the broker was read back, {PATIENCE:.0f}s at most")
]


@dataclass(frozen=True, slots=True)
class DeviceSelection:
    """Whom a command is about."""

    devices: tuple[str, ...]
    tag: str | None
    device_class: str | None
    even_protected: bool

    @property
    def is_group(self) -> bool:
        """Whether more than names select."""
        return self.tag is not None or self.device_class is not None

    def user(self, username: str | None, certificate: str | None) -> users.SubjectSelection | None:
        """The user or certificate that was named instead; `None` where devices are meant.

        Raises:
            CliError: nobody was named, or devices and a user.
        """
        device = "devices" if self.devices or self.is_group else None
        return who(device, username, certificate)


@app.command("list")
@connected
def list_contained(
    client: ApiClient,
    level: Annotated[str | None, typer.Option(help="restricted or isolated")] = None,
    output: OutputOption = OutputFormat.TABLE,
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
    client: ApiClient,
    reason: QuarantineReasonOption,
    devices: QuarantineDevicesArgument = None,
    tag: TagOption = None,
    device_class: ClassOption = None,
    username: UsernameOption = None,
    certificate: CertificateOption = None,
    max_sessions: MaxSessionsOption = None,
    duration: QuarantineDurationOption = None,
    even_protected: EvenProtectedOption = False,
    kick: Annotated[bool, typer.Option("--kick", help="destroy the session too: queued commands are lost")] = False,
    wait: WaitOption = True,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Leave devices, or every session of a user, their own Cordon branch alone: they can still be repaired."""
    chosen = DeviceSelection(tuple(devices or ()), tag, device_class, even_protected)
    if named := chosen.user(username, certificate):
        if kick or duration is not None:
            raise CliError("--kick and --for are for devices: a user stays restricted until released", ExitCode.USAGE)
        body: dict[str, Any] = {"level": "restricted", "reason": reason, "even_protected": even_protected}
        users.contain(client, named, body, wait=wait, output=output, max_sessions=max_sessions)
        return
    options = {"kick": True} if kick else {}
    _contain(client, chosen, "restricted", reason, duration, wait=wait, output=output, **options)


@app.command("isolate")
@connected
def isolate(
    client: ApiClient,
    reason: QuarantineReasonOption,
    devices: QuarantineDevicesArgument = None,
    tag: TagOption = None,
    device_class: ClassOption = None,
    username: UsernameOption = None,
    certificate: CertificateOption = None,
    max_sessions: MaxSessionsOption = None,
    duration: QuarantineDurationOption = None,
    even_protected: EvenProtectedOption = False,
    clear_retained: Annotated[
        bool, typer.Option("--clear-retained", help="delete the retained messages they published too")
    ] = False,
    wait: WaitOption = True,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Ban and disconnect devices, or a user with every session; when the time is over they step down to restricted."""
    chosen = DeviceSelection(tuple(devices or ()), tag, device_class, even_protected)
    if named := chosen.user(username, certificate):
        if clear_retained:
            raise CliError("--clear-retained is for devices", ExitCode.USAGE)
        body: dict[str, Any] = {"level": "isolated", "reason": reason, "even_protected": even_protected}
        body |= {} if duration is None else {"for": duration}
        users.contain(client, named, body, wait=wait, output=output, max_sessions=max_sessions)
        return
    options = {"clear_retained": True} if clear_retained else {}
    _contain(client, chosen, "isolated", reason, duration, wait=wait, output=output, **options)


@app.command("release")
@connected
def release(
    client: ApiClient,
    reason: QuarantineReasonOption,
    device: OptionalDeviceArgument = None,
    username: UsernameOption = None,
    certificate: CertificateOption = None,
    wait: WaitOption = True,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End a containment: an isolation steps down to restricted, a restriction ends."""
    if named := who(device, username, certificate):
        users.release(client, named, reason, wait=wait, output=output)
        return
    device = device or ""
    decision = client.call("POST", f"/quarantine/{segment(device)}/release", {"reason": reason})
    _finish(client, decision, wait=wait, output=output)


def _contain(
    client: ApiClient,
    chosen: DeviceSelection,
    level: str,
    reason: str,
    duration: str | None,
    *,
    wait: bool,
    output: OutputFormat,
    **options: bool,
) -> None:
    body: dict[str, Any] = {"level": level, "reason": reason, **({} if duration is None else {"for": duration})}
    body |= options
    if len(chosen.devices) == 1 and not chosen.is_group:
        (device,) = chosen.devices
        path = f"/quarantine/{segment(device)}"
    elif chosen.devices or chosen.is_group:
        path = "/quarantine"
        body |= {"devices": list(chosen.devices), "tag": chosen.tag, "device_class": chosen.device_class}
    else:
        raise CliError("name devices, or give --tag or --class", ExitCode.USAGE)
    decision = asking_twice(
        lambda sure: client.call("PUT", path, {**body, "even_protected": sure}), chosen.even_protected
    )
    if decision.get("request"):
        raise second_person(decision["request"])
    if path == "/quarantine":
        finish_many(client, decision["items"], wait=wait, output=output)
    else:
        _finish(client, decision, wait=wait, output=output)


def finish_many(client: ApiClient, decided: list[dict[str, Any]], *, wait: bool, output: OutputFormat) -> None:
    """Tell what was decided for each device, and whether the broker holds it.

    Raises:
        CliError: not all of it is proven yet.
    """
    wanted = {one["device_id"] for one in decided}
    end = time.monotonic() + (PATIENCE if wait else 0.0)
    while True:
        held = {one["device_id"] for one in client.pages("/quarantine") if one["case"] and one["case"]["proven"]}
        if wanted <= held or time.monotonic() >= end:
            break
        time.sleep(POLL)
    rows = [
        (one["device_id"], one["decision"], one["level"], "proven" if one["device_id"] in held else "not yet")
        for one in decided
    ]
    show(output, [{**one, "proven": one["device_id"] in held} for one in decided], _MANY, rows)
    if wait and not wanted <= held:
        left = len(wanted - held)
        raise CliError(f"decided and kept, but {left} of {len(wanted)} are not proven at the broker yet")


def _finish(client: ApiClient, decision: dict[str, Any], *, wait: bool, output: OutputFormat) -> None:
    device, case = decision["device_id"], decision["case"]
    if decision["decision"] == NOTHING:
        wait = False
    lines = _wait(client, device, case) if wait else None
    if output is OutputFormat.JSON:
        print_json({**decision, "case": lines["case"] if lines else case, "proven": bool(lines and lines["proven"])})
    else:
        say(f"{safe(device)}: {decision['level']}. {safe(decision['text'])}")
        if case is not None:
            say(f"until: {until(case)}")
        if lines and lines["proven"]:
            say("the broker was read back and holds it" if case else "the broker was read back and holds nothing of it")
    if lines and not lines["proven"]:
        raise CliError(f"decided and kept, but not proven at the broker yet: {lines['why']}")
    if lines is None and decision["decision"] != NOTHING:
        note("not waited for: `cordon devices show` tells when it is proven")


def _wait(client: ApiClient, device: str, case: dict[str, Any] | None) -> dict[str, Any]:
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
    ends = [
        index
        for index, kind in enumerate(kinds)
        if kind in (AuditKind.CONTAINMENT_RELEASE_DECIDED, AuditKind.CONTAINMENT_DECIDED)
    ]
    return AuditKind.CONTAINMENT_RELEASE_PROVEN in kinds[ends[-1] :] if ends else True
