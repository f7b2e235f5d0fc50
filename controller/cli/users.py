"""Containing by user name or certificate: `restrict`, `isolate` and `release` with `--username` or `--certificate`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show

POLL: Final = 0.2  # seconds
PATIENCE: Final = 30.0  # seconds
_COLUMNS: Final = ("user", "containment", "proven", "by", "since", "until", "reason")

OptionalDeviceArgument = Annotated[
    str | None, typer.Argument(metavar="[DEVICE]", help="a device, unless a user or certificate is named")
]
UsernameOption = Annotated[
    str | None, typer.Option("--username", help="a user, with every session it has", show_default=False)
]
CertificateOption = Annotated[
    str | None,
    typer.Option("--certificate", help="whoever has the certificate of this common name", show_default=False),
]
MaxSessionsOption = Annotated[
    int | None, typer.Option("--max-sessions", help="of a user: with more nothing is done [10]", show_default=False)
]


@dataclass(frozen=True, slots=True)
class SubjectSelection:
    """Who is meant, if not a device."""

    kind: str
    name: str

    @property
    def path(self) -> str:
        """Where the API takes decisions about it."""
        return "/users" if self.kind == "username" else "/users/certificates"

    @property
    def field(self) -> str:
        """How the API calls the name."""
        return "username" if self.kind == "username" else "common_name"


def who(device: str | None, username: str | None, certificate: str | None) -> SubjectSelection | None:
    """The user or certificate that was named; `None` if it is the device.

    Raises:
        CliError: nobody was named, or more than one.
    """
    if sum(one is not None for one in (device, username, certificate)) != 1:
        raise CliError("name one: a DEVICE, --username NAME or --certificate COMMON-NAME", ExitCode.USAGE)
    if username is not None:
        return SubjectSelection("username", username)
    return None if certificate is None else SubjectSelection("certificate", certificate)


def contain(
    client: ApiClient,
    named: SubjectSelection,
    body: Mapping[str, Any],
    *,
    wait: bool,
    output: OutputFormat,
    max_sessions: int | None,
) -> None:
    """Decide, wait until the broker was read back, tell."""
    more = {} if max_sessions is None else {"max_sessions": max_sessions}
    found = client.call("POST", f"{named.path}/contain", {named.field: named.name, **body, **more})
    _finish(client, found, wait=wait, output=output)


def release(client: ApiClient, named: SubjectSelection, reason: str, *, wait: bool, output: OutputFormat) -> None:
    """The same for the end of it."""
    found = client.call("POST", f"{named.path}/release", {named.field: named.name, "reason": reason})
    _finish(client, found, wait=wait, output=output)


def _finish(client: ApiClient, decision: dict[str, Any], *, wait: bool, output: OutputFormat) -> None:
    if decision.get("request"):
        raise CliError(f"a second person has to say yes: cordon approval approve {decision['request']['request_id']}")
    user = decision if "username" in decision else decision["user"]
    device = decision.get("device")
    after = _wait(client, user) if wait and user else user
    if device and wait:
        device = _wait_device(client, device)
    if output is OutputFormat.JSON:
        print_json({**decision, "user": after, "device": device} if "username" not in decision else after)
    else:
        if device:
            say(f"{safe(device['device_id'])}: {device['level']}. {safe(device['text'])}")
        if after:
            say(f"user {safe(after['username'])}: {'free' if after['level'] == 'none' else after['level']}")
    unproven = [one for one in (after, device) if one and not one.get("proven", True)]
    if wait and unproven:
        why = next((one["trouble"] for one in unproven if one.get("trouble")), "it is being carried out")
        raise CliError(f"decided and kept, but not proven at the broker yet: {why}")
    if wait and output is OutputFormat.TABLE:
        say("the broker was read back and holds it")
    if not wait:
        note("not waited for: `cordon quarantine users` tells when it is proven")


def _wait(client: ApiClient, case: dict[str, Any]) -> dict[str, Any]:
    """The case once it is proven, or as it is when patience ends; one that is gone was released."""
    end = time.monotonic() + PATIENCE
    while True:
        cases = client.get("/users")["items"]
        now: dict[str, Any] | None = next((one for one in cases if one["username"] == case["username"]), None)
        if now is None:
            return {**case, "level": "none", "proven": True}
        if (now["proven"] and now["level"] == case["level"]) or time.monotonic() >= end:
            return now
        time.sleep(POLL)


def _wait_device(client: ApiClient, decision: dict[str, Any]) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while True:
        case = client.get(f"/devices/{decision['device_id']}", timeline=0)["case"]
        if case is None:
            return {**decision, "proven": True}
        if case["proven"] or time.monotonic() >= end:
            return {**decision, "proven": case["proven"], "trouble": case["trouble"]}
        time.sleep(POLL)


@connected
def users(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the users that are contained by their name."""
    found = client.get("/users")["items"]
    show(output, found, _COLUMNS, map(_row, found), empty="no user is contained")


def _row(case: dict[str, Any]) -> tuple[object, ...]:
    proven = "yes" if case["proven"] else case["trouble"] or "not yet"
    until = f"{case['until']}, then restricted" if case["until"] else "released by an operator"
    return case["username"], case["level"], proven, case["by"], ago(case["opened_at"]), until, case["reason"]
