"""Containment by user name or certificate: `restrict`, `isolate` and `release` with `--username` or `--certificate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from controller.api.client import ApiClient
from controller.cli.connection_options import connected
from controller.cli.errors import CliError, ExitCode
from controller.cli.output import OutputFormat, OutputOption, ago, note, print_json, safe, say, show
from controller.cli.quarantine.results import check_proofs, wait_query

_COLUMNS: Final = ("user", "containment", "proven", "by", "since", "until", "reason")

UsernameOption = Annotated[
    str | None, typer.Option("--username", help="a user, with every session it has", show_default=False)
]
CertificateOption = Annotated[
    str | None,
    typer.Option("--certificate", help="the holder of the certificate with this common name", show_default=False),
]
MaxSessionsOption = Annotated[
    int | None,
    typer.Option("--max-sessions", help="of a user: nothing is done if it has more [10]", show_default=False),
]


@dataclass(frozen=True, slots=True)
class SubjectSelection:
    """A user or the holder of a certificate. `path` and `field`: where the API takes decisions about it."""

    name: str
    path: str
    field: str


def selected_subject(device: str | None, username: str | None, certificate: str | None) -> SubjectSelection | None:
    """The user or certificate that was named; `None` if a device was.

    Raises:
        CliError: none was named, or more than one.
    """
    if sum(one is not None for one in (device, username, certificate)) != 1:
        raise CliError("name one: a DEVICE, --username NAME or --certificate COMMON-NAME", ExitCode.USAGE)
    if username is not None:
        return SubjectSelection(username, "/users", "username")
    return None if certificate is None else SubjectSelection(certificate, "/users/certificates", "common_name")


def decide(
    client: ApiClient,
    verb: str,
    subject: SubjectSelection,
    body: Mapping[str, Any],
    *,
    wait: bool,
    output: OutputFormat,
) -> None:
    """Contains or releases a subject, waits for the proof and prints it; `verb` is `contain` or `release`.

    Raises:
        CliError: a second person has to approve, or the decision was waited for and is not proven.
    """
    body = {subject.field: subject.name, **body}
    decision = client.call("POST", f"{subject.path}/{verb}", body, wait=wait_query(wait))
    if decision.get("request"):
        request = decision["request"]["request_id"]
        raise CliError(f"a second person has to approve this: cordon approval approve {request}")
    user, device = (decision, None) if "username" in decision else (decision["user"], decision["device"])
    if output is OutputFormat.JSON:
        print_json(decision)
    else:
        if device:
            say(f"{safe(device['device_id'])}: {device['level']}. {safe(device['text'])}")
        if user:
            say(f"user {safe(user['username'])}: {'free' if user['level'] == 'none' else user['level']}")
    if not wait:
        note("not waited for: `cordon quarantine users` shows when it is proven")
        return
    check_proofs([one for one in (user, device) if one])
    if output is OutputFormat.TABLE:
        say("The broker was read back and holds the decision.")


@connected
def users(client: ApiClient, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the users that are contained by their name."""
    cases = client.get("/users")["items"]
    show(output, cases, _COLUMNS, map(_row, cases), empty="no user is contained")


def _row(case: dict[str, Any]) -> tuple[object, ...]:
    unread = "; ".join(f"{one['node']}: {one['reason']}" for one in case.get("unread", ()))
    left_open = len(case.get("left_open", ()))
    yes = f"yes, {left_open} left open" if left_open else "yes"
    proven = yes if case["proven"] else f"partial, not read: {unread}" if unread else case["trouble"] or "not yet"
    end = f"{case['until']}, then restricted" if case["until"] else "an operator releases it"
    return case["username"], case["level"], proven, case["by"], ago(case["opened_at"]), end, case["reason"]
