"""EMQX's rows as values of the port, and back."""

import json
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.emqx.client.models import BanRow, RuleRow, rule_body, rule_text, until_text
from controller.ports.broker_tables import AccessRule

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
def test_a_rule_round_trips_through_emqx(rule: AccessRule) -> None:
    assert RuleRow.model_validate_json(json.dumps(rule_body(rule))).rule() == rule


def test_rows_of_emqx_are_read_with_their_defaults() -> None:
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
def test_the_end_of_a_ban_is_rounded_up(until: float) -> None:
    told = datetime.fromisoformat(until_text(until)).timestamp()
    assert until <= told < until + 1
    row = BanRow.model_validate({"as": "clientid", "who": "x", "at": 1, "until": until_text(until)})
    assert row.ban().until == told


def test_an_infinite_ban_has_no_end() -> None:
    assert until_text(None) == "infinity"
    row = BanRow.model_validate({"as": "clientid", "who": "x", "by": "cordon/1", "at": 1, "until": "infinity"})
    assert row.ban().until is None
    assert row.ban().is_ours
