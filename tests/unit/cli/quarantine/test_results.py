"""What `cordon quarantine` prints of a decision, and when it fails."""

import json
from typing import Any

import pytest

from controller.cli.errors import CliError
from controller.cli.output import OutputFormat
from controller.cli.quarantine.results import WAIT, print_decision, print_decisions, wait_query

CASE: dict[str, Any] = {
    "level": "isolated", "isolate_until": None, "until_released": True, "until_certificate": False, "hold_until": None,
}  # fmt: skip
DECISION: dict[str, Any] = {
    "device_id": "edge-1", "decision": "containment.decided", "text": "A containment was decided for the device.",
    "level": "isolated", "case": CASE, "proof": "proven", "proven": True, "trouble": "", "waited": "settled",
}  # fmt: skip


def test_a_proven_decision_is_told_with_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    print_decision(DECISION, wait=True, output=OutputFormat.TABLE)
    assert capsys.readouterr().out.splitlines() == [
        "edge-1: isolated. A containment was decided for the device.",
        "until: an operator releases it",
        "The broker was read back and holds the decision.",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proof": "pending", "waited": "timed_out"}, "the calls are still being made"),
        ({"proof": "pending", "waited": "too_many"}, "too many requests wait"),
        ({"proof": "in_trouble", "trouble": "no node\x1b answered"}, r"no node\\x1b answered"),
        ({"proof": "superseded"}, "another decision came after this one"),
    ],
)
def test_a_decision_that_is_not_proven_is_a_failure(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CliError, match=f"decided and kept, but not proven at the broker yet: {message}"):
        print_decision({**DECISION, **changes}, wait=True, output=OutputFormat.TABLE)


def test_what_is_not_waited_for_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert (wait_query(True), wait_query(False)) == (WAIT, None)
    print_decision({**DECISION, "proof": "pending", "waited": "no"}, wait=False, output=OutputFormat.TABLE)
    assert "cordon devices show" in capsys.readouterr().err


def test_a_decision_that_asks_nothing_of_the_broker_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    decision = {**DECISION, "decision": "containment.not_in_force", "proof": "not_required", "case": None}
    print_decision(decision, wait=True, output=OutputFormat.JSON)
    captured = capsys.readouterr()
    assert (json.loads(captured.out), captured.err) == (decision, "")


def test_one_unproven_of_several_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    late = {**DECISION, "device_id": "edge-2", "proof": "in_trouble", "trouble": "away"}
    with pytest.raises(CliError, match="1 of 2 are not proven at the broker yet: away"):
        print_decisions([DECISION, late], wait=True, output=OutputFormat.TABLE)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["device", "edge-1", "edge-2"]
