"""The pure parts: rows into values and back, what is inside a branch, grades, and the plan of a setup."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.emqx.client.models import (
    BanRow,
    CacheRow,
    ClientRow,
    ListenerRow,
    RuleRow,
    SourceRow,
    TlsRow,
    rule_body,
    rule_text,
    until_text,
)
from controller.adapters.emqx.containment.authentication import AuthSettings, auth_strength, auth_strength_at
from controller.adapters.emqx.containment.checks import (
    cached_disallowed_topics,
    disallowed_subscriptions,
    source_order_problem,
)
from controller.adapters.emqx.setup.baseline import SetupSnapshot, plan, rules_for_all, rules_for_controller
from controller.ports.broker import CLOCK_SLACK, AuthStrength
from controller.ports.broker_tables import AccessRule, restriction

RULES = st.builds(
    AccessRule,
    topic=st.text(min_size=1, max_size=20),
    permission=st.sampled_from(["allow", "deny"]),
    action=st.sampled_from(["publish", "subscribe", "all"]),
    qos=st.sampled_from([(0, 1, 2), (0,), (1, 2)]),
    retain=st.sampled_from(["all", "true", "false"]),
    limits=st.sampled_from(["", '{"zone": "inner"}']),
)


@given(RULES)
def test_a_rule_survives_the_way_to_emqx_and_back(rule: AccessRule) -> None:
    assert RuleRow.model_validate_json(json.dumps(rule_body(rule))).rule() == rule


def test_the_rows_that_emqx_writes_are_the_rules_that_were_meant() -> None:
    row = {"action": "all", "permission": "deny", "qos": [0, 1, 2], "retain": "all", "topic": "#"}
    assert RuleRow.model_validate(row).rule() == AccessRule("#", "deny", "all")
    assert RuleRow.model_validate(row | {"retain": False, "zone": None}).rule() == AccessRule(
        "#", "deny", "all", retain="false"
    )
    assert rule_body(AccessRule("#", "deny", "all")) == {"topic": "#", "permission": "deny", "action": "all"}


def test_a_rule_is_shown_on_one_printable_line() -> None:
    rule = AccessRule("a\nb\x1b", "allow", "publish", qos=(1,), retain="true", limits='{"zone": "x"}')
    assert rule_text(rule) == 'allow publish a b  qos 1 retain true {"zone": "x"}'


@given(st.floats(min_value=1_000_000_000, max_value=4_000_000_000))
def test_a_ban_never_ends_before_it_was_asked_to(until: float) -> None:
    told = datetime.fromisoformat(until_text(until)).timestamp()
    assert until <= told < until + 1
    row = BanRow.model_validate({"as": "clientid", "who": "x", "at": 1, "until": until_text(until)})
    assert row.ban().until == told


def test_a_ban_for_ever_has_no_end() -> None:
    assert until_text(None) == "infinity"
    row = BanRow.model_validate({"as": "clientid", "who": "x", "by": "cordon/1", "at": 1, "until": "infinity"})
    assert row.ban().until is None
    assert row.ban().is_ours


def test_a_restricted_client_has_three_rules_in_order() -> None:
    assert restriction("edge-1") == (
        AccessRule("cordon/v1/edge-1/up/#", "allow", "publish"),
        AccessRule("cordon/v1/edge-1/down/#", "allow", "subscribe"),
        AccessRule("#", "deny", "all"),
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
def test_its_own_downward_branch_is_inside(topic: str) -> None:
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
def test_everything_else_is_outside(topic: str) -> None:
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
def test_what_a_cache_may_still_allow(kind: str, topic: str, result: str, wrong: bool) -> None:
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
def test_rules_count_only_if_they_are_asked_first(sources: list[tuple[str, bool]], fine: bool) -> None:
    rows = tuple(SourceRow(type=kind, enable=enable) for kind, enable in sources)
    assert (source_order_problem(rows) == "") is fine


def settings(*, chain: bool = True, from_cert: bool = True, **listener: Any) -> AuthSettings:
    tls = {"verify": "verify_peer", "fail_if_no_peer_cert": True} | listener.pop("tls", {})
    row = ListenerRow(id=listener.pop("id", "ssl:default"), ssl_options=TlsRow(**tls), **listener)
    return AuthSettings(chain, from_cert, {row.id: row})


def client(listener: str = "ssl:default", **more: Any) -> ClientRow:
    return ClientRow(clientid="x", connected=True, listener=listener, **more)


@pytest.mark.parametrize(
    ("facts", "seen", "grade"),
    [
        (settings(), client(), AuthStrength.PROVEN),
        (settings(chain=False), client(), AuthStrength.PROVEN),
        (settings(id="wss:default"), client("wss:default"), AuthStrength.PROVEN),
        (settings(from_cert=False), client(), AuthStrength.KNOWN),
        (settings(tls={"verify": "verify_none"}), client(), AuthStrength.KNOWN),
        (settings(tls={"fail_if_no_peer_cert": False}), client(), AuthStrength.KNOWN),
        (settings(tls={"fail_if_no_peer_cert": False}, chain=False), client(), AuthStrength.CLAIMED),
        (settings(zone="other"), client(), AuthStrength.KNOWN),
        (settings(id="tcp:default"), client("tcp:default"), AuthStrength.KNOWN),
        (settings(), client("tcp:gone"), AuthStrength.KNOWN),
        (settings(chain=False), client("tcp:gone"), AuthStrength.CLAIMED),
        (settings(), client("tcp:gone", enable_authn=False), AuthStrength.CLAIMED),
        (settings(), None, AuthStrength.PROVEN),
        (settings(chain=False, enable_authn=False), None, AuthStrength.PROVEN),
        (settings(from_cert=False), None, AuthStrength.KNOWN),
        (settings(id="tcp:default"), None, AuthStrength.KNOWN),
        (settings(id="tcp:default", chain=False), None, AuthStrength.UNSEEN),
        (settings(id="tcp:default", chain=False, enable=False), None, AuthStrength.UNSEEN),
        (settings(id="tcp:default", enable_authn=False), None, AuthStrength.UNSEEN),
        (AuthSettings(True, True, {}), None, AuthStrength.KNOWN),
        (AuthSettings(True, False, None), None, AuthStrength.UNSEEN),
        (AuthSettings(True, False, None), client(), AuthStrength.KNOWN),
        (AuthSettings(False, False, None), client(), AuthStrength.CLAIMED),
    ],
)
def test_a_grade_is_judged_from_the_brokers_settings(
    facts: AuthSettings, seen: ClientRow | None, grade: AuthStrength
) -> None:
    assert auth_strength(facts, seen) is grade


def mixed(*, chain: bool = False) -> AuthSettings:
    """A listener that asks for certificates beside one that asks for what the chain does."""
    tls = TlsRow(verify="verify_peer", fail_if_no_peer_cert=True)
    rows = (ListenerRow(id="ssl:default", ssl_options=tls), ListenerRow(id="tcp:default"))
    return AuthSettings(chain, True, {row.id: row for row in rows})


AT_TEN = "2026-11-23T11:04:55.676+00:00"  # as recorded
TEN = datetime(2026, 11, 23, 11, 4, 55, 676000, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("facts", "seen", "heard_at", "grade"),
    [
        (mixed(), client(connected_at=AT_TEN), TEN + CLOCK_SLACK, AuthStrength.PROVEN),
        (mixed(), client(connected_at=AT_TEN), TEN + CLOCK_SLACK - 0.01, AuthStrength.LATER),
        (mixed(), client(connected_at=AT_TEN), TEN - 60, AuthStrength.LATER),
        (mixed(), client(connected_at=AT_TEN), None, AuthStrength.PROVEN),
        (mixed(), client(), TEN, AuthStrength.LATER),
        (mixed(), client("tcp:default", connected_at=AT_TEN), TEN + 60, AuthStrength.CLAIMED),
        (mixed(), None, TEN, AuthStrength.UNSEEN),
        (mixed(chain=True), client(connected_at=AT_TEN), TEN - 60, AuthStrength.PROVEN),
        (mixed(chain=True), client("tcp:default", connected_at=AT_TEN), TEN - 60, AuthStrength.KNOWN),
        (AuthSettings(True, False, None), client(connected_at=AT_TEN), TEN - 60, AuthStrength.LATER),
    ],
)
def test_a_later_session_counts_only_where_nobody_comes_in_without_proof(
    facts: AuthSettings, seen: ClientRow | None, heard_at: float | None, grade: AuthStrength
) -> None:
    assert auth_strength_at(facts, seen, heard_at) is grade


def snapshot(
    sources: tuple[tuple[str, bool], ...] = (("built_in_database", True),),
    for_all: tuple[AccessRule, ...] = (),
    own: tuple[AccessRule, ...] = (),
) -> SetupSnapshot:
    rows = tuple(SourceRow(type=kind, enable=enable) for kind, enable in sources)
    return SetupSnapshot("boss", rows, for_all, own)


def test_a_broker_that_has_everything_needs_nothing() -> None:
    theirs = (AccessRule("fleet/#", "allow", "all"),)
    assert plan(snapshot(for_all=rules_for_all() + theirs, own=rules_for_controller() + theirs)) == ()


def test_the_protocol_is_closed_to_everybody_after_the_own_branches() -> None:
    last = rules_for_all()[-1]
    assert (last.topic, last.permission, last.action) == ("cordon/v1/#", "deny", "all")
    assert [rule.permission for rule in rules_for_all()] == ["allow", "allow", "deny"]


def test_rules_in_the_wrong_place_are_moved_to_the_front_and_others_keep_their_order() -> None:
    theirs = (AccessRule("a", "allow", "all"), AccessRule("#", "deny", "all"))
    todos = plan(snapshot(for_all=(theirs[0], *rules_for_all(), theirs[1]), own=rules_for_controller()))
    assert [todo.change.what for todo in todos] == ["rules for all clients"]
    lines = todos[0].change.after.splitlines()
    assert lines[-2:] == ["allow all a", "deny all #"]
    assert len(lines) == len(rules_for_all()) + 2


@pytest.mark.parametrize(
    ("sources", "before", "after"),
    [
        ((), "none", "built_in_database"),
        ((("file", True),), "file", "built_in_database, file"),
        ((("file", True), ("built_in_database", True)), "file, built_in_database", "built_in_database, file"),
        ((("built_in_database", False),), "built_in_database (off)", "built_in_database"),
    ],
)
def test_the_database_is_made_the_first_to_be_asked(
    sources: tuple[tuple[str, bool], ...], before: str, after: str
) -> None:
    todos = plan(snapshot(sources, rules_for_all(), rules_for_controller()))
    assert [(todo.change.before, todo.change.after) for todo in todos] == [(before, after)]
