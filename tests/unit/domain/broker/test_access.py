"""Access templates: compilation, topic filters, lint findings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.broker.access import (
    MAX_RULES,
    AccessGrant,
    AccessTemplate,
    AccessTemplates,
    TopicRule,
    compile_rules,
    digest_of,
    first_rules,
    revoked_topics,
)
from controller.domain.broker.access_lint import LintSeverity, lint, lint_rule
from controller.domain.broker.topic_filters import covers, matches, overlaps, validation_error
from controller.standin.topics import matches as emqx_matches
from schemas.topics import UpChannel, up


def allow(action: str, topic: str, **more: object) -> TopicRule:
    return TopicRule("allow", action, topic, **more)  # type: ignore[arg-type]


def deny(action: str, topic: str) -> TopicRule:
    return TopicRule("deny", action, topic)  # type: ignore[arg-type]


LEVEL = st.sampled_from(["a", "b", "+", "$x"])
FILTER = st.lists(LEVEL, min_size=1, max_size=4).flatmap(
    lambda levels: st.sampled_from(["/".join(levels), "/".join([*levels, "#"]), "#"])
)
NAME = st.lists(st.sampled_from(["a", "b", "$x"]), min_size=1, max_size=5).map("/".join)


@given(name=NAME, filter_=FILTER)
def test_filters_match_topics_as_the_broker_does(name: str, filter_: str) -> None:
    assert matches(name, filter_) == emqx_matches(name, filter_)


@given(wide=FILTER, narrow=FILTER, name=NAME)
def test_covering_and_overlapping_filters_agree_with_matching(wide: str, narrow: str, name: str) -> None:
    if covers(wide, narrow) and matches(name, narrow):
        assert matches(name, wide)
    if matches(name, wide) and matches(name, narrow):
        assert overlaps(wide, narrow)


@pytest.mark.parametrize(
    ("wide", "narrow", "is_covered"),
    [
        ("a/+/c", "a/${clientid}/c", True),
        ("a/${clientid}/c", "a/+/c", False),
        ("a/${clientid}/#", "a/${clientid}/b/#", True),
        ("a/${clientid}", "a/${username}", False),
        ("a/#", "a", True),
        ("#", "$SYS/x", False),
        ("eq a/+", "a/+", False),
        ("a/+", "eq a/b", True),
    ],
)
def test_placeholders_and_literal_topics_are_covered(wide: str, narrow: str, is_covered: bool) -> None:
    assert covers(wide, narrow) is is_covered


def test_placeholder_overlaps_anything_in_its_level() -> None:
    assert overlaps("fleet/${clientid}/x", "fleet/edge-1/x")
    assert not overlaps("fleet/${clientid}/x", "other/edge-1/x")


@pytest.mark.parametrize("bad", ["", "a/#/b", "a+/b", "a/b#", "a\x00", "x" * 2000, "/".join("a" * 200)])
def test_invalid_filter_is_an_error(bad: str) -> None:
    assert validation_error(bad)
    assert [severity for severity, _ in lint_rule(deny("all", bad))] == [LintSeverity.ERROR]


def template(*rules: TopicRule, name: str = "sensor", otherwise: str = "deny") -> AccessTemplate:
    return AccessTemplate(name, "Sensors", rules, otherwise)  # type: ignore[arg-type]


def grant(topic: str, action: str = "publish") -> AccessGrant:
    return AccessGrant("g", "edge-1", action, topic, "why", "operator:x", 0.0, 60.0)  # type: ignore[arg-type]


def test_compiled_rules_begin_with_the_own_topics_and_end_with_a_denial() -> None:
    rules = compile_rules(template(allow("publish", "fleet/${clientid}/#")), [grant("firmware/logs")])
    assert rules == (
        *first_rules(),
        allow("publish", "firmware/logs"),
        allow("publish", "fleet/${clientid}/#"),
        deny("all", "#"),
    )
    assert compile_rules(None, ()) is None
    assert compile_rules(None, [grant("x")]) == (*first_rules(), allow("publish", "x"))
    assert compile_rules(template(otherwise="allow"), ()) == first_rules()
    assert digest_of(None) == ""
    assert digest_of(rules) == digest_of(rules) != digest_of(first_rules())


def test_class_without_a_template_has_the_one_for_all_classes() -> None:
    sensor, others = template(name="sensor"), template(name="*")
    both = AccessTemplates("fleet", 1, (sensor, others))
    assert (both.for_class("sensor"), both.for_class("gateway"), both.for_class("")) == (sensor, others, others)
    assert AccessTemplates("fleet", 1, (sensor,)).for_class("gateway") is None


def test_subscriptions_that_the_rules_refuse_are_revoked() -> None:
    rules = compile_rules(
        template(allow("subscribe", "fleet/${cert_common_name}/#"), allow("subscribe", "users/${username}")), ()
    )
    assert rules is not None
    subscriptions = (
        "fleet/edge-1/config",
        "$share/g/fleet/edge-1/config",
        "fleet/edge-2/config",
        "$share/g/fleet/edge-2/x",
        "users/anybody",
        up("edge-2", UpChannel.POSTURE),
    )
    assert revoked_topics(rules, "edge-1", subscriptions) == (
        "fleet/edge-2/config",
        "$share/g/fleet/edge-2/x",
        up("edge-2", UpChannel.POSTURE),
    )
    assert revoked_topics(first_rules(), "edge-1", ("elsewhere",)) == (), "a subscription that no rule matches stays"


def findings(*rules: TopicRule, **more: str) -> list[tuple[str, int, str]]:
    linted = lint(AccessTemplates("t", 1, (template(*rules, **more),)))
    return [(finding.severity.value, finding.rule, finding.text.partition(":")[0]) for finding in linted]


def test_good_template_has_no_finding() -> None:
    assert findings(allow("publish", "fleet/${clientid}/telemetry/#"), allow("subscribe", "fleet/broadcast")) == []


@pytest.mark.parametrize(
    ("rule", "severity", "text"),
    [
        (allow("all", "#"), "error", "allows everything"),
        (allow("publish", "+/#"), "error", "allows everything"),
        (allow("publish", "+/${clientid}/up"), "warning", "a wildcard in the first level matches"),
        (allow("subscribe", "cordon/#"), "error", "overlaps the topics of Cordon"),
        (allow("subscribe", "cordon/v1/${clientid}/down/#"), "error", "overlaps the topics of Cordon"),
        (allow("subscribe", "+/v1/edge-2/down/#"), "error", "overlaps the topics of Cordon"),
        (allow("subscribe", "$SYS/brokers/#"), "warning", "allows $SYS topics"),
        (allow("publish", "fleet/${device}/x"), "error", "EMQX does not know ${device}"),
        (allow("publish", "fleet/${clientid"), "error", "EMQX does not know a placeholder without an end"),
        (allow("publish", "fleet/shared"), "info", "every device of the class may publish here"),
        (allow("publish", "fleet/${username}/x"), "info", "devices that share a user"),
        (allow("publish", "fleet/${clientid}/x", qos=()), "error", "no QoS"),
    ],
)
def test_mistake_in_a_rule_is_found(rule: TopicRule, severity: str, text: str) -> None:
    assert any(each[0] == severity and each[2].startswith(text) for each in findings(rule)), findings(rule)


def test_unreachable_and_redundant_rules_are_found() -> None:
    first = deny("all", "fleet/secret/#")
    assert findings(first, allow("publish", "fleet/secret/${clientid}"))[-1][:2] == ("error", 2)
    assert findings(first, deny("subscribe", "fleet/secret/x")) == [("info", 2, "is redundant after an earlier rule")]
    assert findings(deny("subscribe", "fleet/secret/#"), allow("publish", "fleet/secret/${clientid}")) == []
    qos_0 = TopicRule("deny", "publish", "a/#", (0,))
    assert findings(qos_0, allow("publish", "a/${clientid}")) == [], "the earlier rule is for QoS 0 only"


def test_more_rules_than_the_broker_accepts_are_an_error() -> None:
    many = [deny("publish", f"x/{number}") for number in range(MAX_RULES)]
    assert findings(*many)[0][:2] == ("error", 0)
    assert findings(*many[:85])[0][:2] == ("warning", 0)
    assert findings(otherwise="allow")[0][0] == "warning"
