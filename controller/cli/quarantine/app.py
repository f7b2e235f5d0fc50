"""`cordon quarantine`: contains and releases devices, users and holders of certificates."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient, segment
from controller.cli.confirmation import confirm_protected
from controller.cli.connection_options import connected
from controller.cli.devices.app import proven_word
from controller.cli.errors import CliError, ExitCode
from controller.cli.guard import EvenProtectedOption, second_person
from controller.cli.output import OutputFormat, OutputOption, ago, show
from controller.cli.quarantine import plans, subjects
from controller.cli.quarantine.results import WaitOption, print_decision, print_decisions, until, wait_query
from controller.cli.quarantine.subjects import (
    CertificateOption,
    MaxSessionsOption,
    UsernameOption,
    selected_subject,
)

_COLUMNS: Final = ("device", "containment", "proven", "by", "since", "until", "reason")
app = typer.Typer(help="Contain and release.", no_args_is_help=True)
app.command("plan")(plans.plan)
app.command("receipt")(plans.receipt)
app.command("users")(subjects.users)
QuarantineReasonOption = Annotated[
    str, typer.Option("--reason", "-r", help="why; it is kept in the audit log", show_default=False)
]
QuarantineDurationOption = Annotated[
    str | None, typer.Option("--for", help="90s, 10m, 2h, 1d; without it until an operator releases it")
]
QuarantineDevicesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[DEVICE]...", help="one or several devices")
]
TagOption = Annotated[str | None, typer.Option(help="every device with this tag too")]
ClassOption = Annotated[str | None, typer.Option("--class", help="every device of this class too")]
ContainedTagOption = Annotated[str | None, typer.Option("--tag", help="every contained device with this tag too")]
ContainedClassOption = Annotated[str | None, typer.Option("--class", help="every contained device of this class too")]
KickOption = Annotated[bool, typer.Option("--kick", help="destroy the session too: queued commands are lost")]
ClearRetainedOption = Annotated[
    bool, typer.Option("--clear-retained", help="delete the retained messages they published too")
]


@dataclass(frozen=True, slots=True)
class DeviceSelection:
    """The devices of a command: by name, tag and class."""

    devices: tuple[str, ...]
    tag: str | None
    device_class: str | None

    @property
    def is_one(self) -> bool:
        """Whether one device was named, and nothing else."""
        return len(self.devices) == 1 and self.tag is None and self.device_class is None

    @property
    def name(self) -> str | None:
        """What was selected, for `selected_subject`; `None` if no devices were."""
        return "devices" if self.devices or self.tag is not None or self.device_class is not None else None

    @property
    def body(self) -> dict[str, Any]:
        """The selection in a request, which has it in the path for one device."""
        if self.is_one:
            return {}
        return {"devices": list(self.devices), "tag": self.tag, "device_class": self.device_class}


@app.command("list")
@connected
def list_contained(
    client: ApiClient,
    level: Annotated[str | None, typer.Option(help="restricted or isolated")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List the devices that are contained."""
    devices = list(client.pages("/quarantine", level=level))
    show(output, devices, _COLUMNS, map(_row, devices), empty="nothing is contained")


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    case = device["case"]
    since = ago(case["opened_at"])
    return device["device_id"], case["level"], proven_word(case), case["by"], since, until(case), case["reason"]


def contain(
    client: ApiClient,
    level: str,
    reason: QuarantineReasonOption,
    devices: QuarantineDevicesArgument = None,
    tag: TagOption = None,
    device_class: ClassOption = None,
    username: UsernameOption = None,
    certificate: CertificateOption = None,
    max_sessions: MaxSessionsOption = None,
    duration: QuarantineDurationOption = None,
    even_protected: EvenProtectedOption = False,
    kick: KickOption = False,
    clear_retained: ClearRetainedOption = False,
    wait: WaitOption = True,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Contains devices, a user or the holder of a certificate; `level` is `restricted` or `isolated`."""
    selection = DeviceSelection(tuple(devices or ()), tag, device_class)
    body: dict[str, Any] = {"level": level, "reason": reason}
    body |= {} if duration is None else {"for": duration}
    if subject := selected_subject(selection.name, username, certificate):
        if kick or clear_retained or (level == "restricted" and duration is not None):
            text = "--kick and --clear-retained are for devices; a restriction of a user lasts until it is released"
            raise CliError(text, ExitCode.USAGE)
        body |= {"even_protected": even_protected}
        body |= {} if max_sessions is None else {"max_sessions": max_sessions}
        subjects.decide(client, "contain", subject, body, wait=wait, output=output)
        return
    body |= {name: True for name, given in (("kick", kick), ("clear_retained", clear_retained)) if given}
    _contain_devices(client, selection, body, even_protected=even_protected, wait=wait, output=output)


def _contain_devices(
    client: ApiClient,
    selection: DeviceSelection,
    body: dict[str, Any],
    *,
    even_protected: bool,
    wait: bool,
    output: OutputFormat,
) -> None:
    path = f"/quarantine/{segment(selection.devices[0])}" if selection.is_one else "/quarantine"
    body |= selection.body

    def put(even_protected: bool) -> Any:
        return client.call("PUT", path, {**body, "even_protected": even_protected}, wait=wait_query(wait))

    decided = confirm_protected(put, even_protected)
    if decided.get("request"):
        raise second_person(decided["request"])
    if selection.is_one:
        print_decision(decided, wait=wait, output=output)
    else:
        print_decisions(decided["items"], wait=wait, output=output)


_RESTRICT: Final = "Leave devices, or every session of a user, only their own Cordon topics: they can be repaired."
_ISOLATE: Final = "Ban and disconnect devices, or a user with every session. After --for they are restricted."
app.command("restrict", help=_RESTRICT)(connected(partial(contain, level="restricted", clear_retained=False)))
app.command("isolate", help=_ISOLATE)(connected(partial(contain, level="isolated", kick=False)))


@app.command("release")
@connected
def release(
    client: ApiClient,
    reason: QuarantineReasonOption,
    devices: QuarantineDevicesArgument = None,
    tag: ContainedTagOption = None,
    device_class: ContainedClassOption = None,
    username: UsernameOption = None,
    certificate: CertificateOption = None,
    wait: WaitOption = True,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End containments: an isolation steps down to restricted, a restriction ends."""
    selection = DeviceSelection(tuple(devices or ()), tag, device_class)
    if subject := selected_subject(selection.name, username, certificate):
        subjects.decide(client, "release", subject, {"reason": reason}, wait=wait, output=output)
        return
    path = f"/quarantine/{segment(selection.devices[0])}/release" if selection.is_one else "/quarantine/release"
    decided = client.call("POST", path, {"reason": reason, **selection.body}, wait=wait_query(wait))
    if selection.is_one:
        print_decision(decided, wait=wait, output=output)
    else:
        print_decisions(decided["items"], wait=wait, output=output)
