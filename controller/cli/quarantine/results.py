"""Prints decisions about containments, and fails where the broker was not seen to hold them."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from controller.cli.errors import CliError
from controller.cli.output import OutputFormat, note, print_json, safe, say, show

WAIT: Final = 30.0  # seconds
_COLUMNS: Final = ("device", "decision", "now", "at the broker")
WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help=f"until the broker was read back, {WAIT:.0f}s at most")
]


def wait_query(wait: bool) -> float | None:
    """The `wait` of the request, in seconds."""
    return WAIT if wait else None


def print_decision(decision: dict[str, Any], *, wait: bool, output: OutputFormat) -> None:
    """Prints the decision about one device.

    Raises:
        CliError: it was waited for, and is not proven.
    """
    proof, case = decision["proof"], decision["case"]
    if output is OutputFormat.JSON:
        print_json(decision)
    else:
        say(f"{safe(decision['device_id'])}: {decision['level']}. {safe(decision['text'])}")
        if case is not None:
            say(f"until: {until(case)}")
        if proof == "proven":
            say("The broker was read back and holds the decision.")
    if proof == "not_required":
        return
    if wait:
        check_proofs([decision])
    else:
        note("not waited for: `cordon devices show` shows when it is proven")


def print_decisions(decisions: list[dict[str, Any]], *, wait: bool, output: OutputFormat) -> None:
    """Prints the decisions about several devices.

    Raises:
        CliError: they were waited for, and not all are proven.
    """
    rows = ((one["device_id"], one["decision"], one["level"], one["proof"].replace("_", " ")) for one in decisions)
    show(output, decisions, _COLUMNS, rows)
    if wait:
        check_proofs(decisions)


def check_proofs(decisions: Sequence[dict[str, Any]]) -> None:
    """Fails where the broker was not seen to hold a decision.

    Raises:
        CliError: a decision is not proven.
    """
    unproven = [one for one in decisions if one["proof"] not in ("proven", "not_required")]
    if not unproven:
        return
    count = "" if len(decisions) == 1 else f"{len(unproven)} of {len(decisions)} are "
    if all(one["proof"] == "partial" for one in unproven):
        raise CliError(f"decided and kept, but {count}proven in part only: {_reason(unproven[0])}")
    raise CliError(f"decided and kept, but {count}not proven at the broker yet: {_reason(unproven[0])}")


def _reason(decision: dict[str, Any]) -> str:
    if decision["proof"] == "superseded":
        return "another decision came after this one"
    if decision["trouble"]:
        return safe(decision["trouble"])
    if decision["waited"] == "too_many":
        return "too many requests wait for a proof; look again with `cordon devices show`"
    return "the calls are still being made"


def until(case: dict[str, Any]) -> str:
    """What ends the containment as it is now."""
    if case["isolate_until"]:
        return f"{case['isolate_until']}, then restricted"
    if case["until_certificate"]:
        return "it has a new certificate"
    if case["level"] == "isolated" or case["until_released"]:
        return "an operator releases it"
    return f"a report passes{' after ' + case['hold_until'] if case['hold_until'] else ''}"
