"""The bounds of a device's branch, and the order of EMQX's sources."""

import pytest

from controller.adapters.emqx.client.models import CacheRow, SourceRow
from controller.adapters.emqx.containment.checks import (
    cached_disallowed_topics,
    disallowed_subscriptions,
    source_order_problem,
)
from controller.ports.broker_tables import KNOWN_PREFIXES, AccessRule, restriction


def test_a_restricted_client_has_its_branch_and_nothing_else() -> None:
    assert restriction("edge-1") == (
        AccessRule("cordon/v1/edge-1/up/#", "allow", "publish"),
        AccessRule("cordon/v1/edge-1/down/#", "allow", "subscribe"),
        AccessRule("#", "deny", "all"),
        *(AccessRule(f"{prefix}/#", "deny", "all") for prefix in KNOWN_PREFIXES),
    )


@pytest.mark.parametrize(
    "topic",
    [
        "cordon/v1/edge-1/down/#",
        "cordon/v1/edge-1/down/command",
        "cordon/v1/edge-1/down/+",
        "$share/g/cordon/v1/edge-1/down/command",
        "$exclusive/cordon/v1/edge-1/down/command",
    ],
)
def test_subscriptions_in_the_down_branch_are_allowed(topic: str) -> None:
    assert disallowed_subscriptions("edge-1", (topic,)) == ()


@pytest.mark.parametrize(
    "topic",
    [
        "#",
        "+/#",
        "cordon/v1/+/down/command",
        "cordon/v1/edge-1/#",
        "cordon/v1/edge-1/up/#",
        "cordon/v1/edge-10/down/command",
        "cordon/v1/edge-1/downs",
        "$share/g/fleet/#",
        "$share/cordon/v1/edge-1/down/command",
        "$SYS/#",
        "$queue/fleet/#",
        "",
    ],
)
def test_other_subscriptions_are_disallowed(topic: str) -> None:
    assert disallowed_subscriptions("edge-1", (topic,)) == (topic,)


@pytest.mark.parametrize(
    ("kind", "topic", "result", "wrong"),
    [
        ("publish", "fleet/x", "allow", True),
        ("publish", "fleet/x", "deny", False),
        ("publish", "cordon/v1/edge-1/up/posture", "allow", False),
        ("publish", "cordon/v1/edge-1/down/command", "allow", True),
        ("subscribe", "cordon/v1/edge-1/down/#", "allow", False),
        ("subscribe", "cordon/v1/edge-1/up/#", "allow", True),
        ("subscribe", "$share/g/fleet/#", "allow", True),
        ("unheard", "cordon/v1/edge-1/up/posture", "allow", True),
    ],
)
def test_cached_permissions_outside_the_branch_are_found(kind: str, topic: str, result: str, wrong: bool) -> None:
    row = CacheRow.model_validate({"access": {"action_type": kind}, "topic": topic, "result": result})
    assert bool(cached_disallowed_topics("edge-1", (row,))) is wrong


@pytest.mark.parametrize(
    ("sources", "fine"),
    [
        ([("built_in_database", True)], True),
        ([("built_in_database", True), ("file", True)], True),
        ([("file", False), ("built_in_database", True)], True),
        ([("file", True), ("built_in_database", True)], False),
        ([("built_in_database", False)], False),
        ([], False),
    ],
)
def test_the_database_has_to_be_the_first_enabled_source(sources: list[tuple[str, bool]], fine: bool) -> None:
    rows = tuple(SourceRow(type=kind, enable=enable) for kind, enable in sources)
    assert (source_order_problem(rows) == "") is fine
