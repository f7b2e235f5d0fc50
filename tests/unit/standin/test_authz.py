from controller.standin.authz import (
    ActionType,
    AuthzAction,
    AuthzCache,
    AuthzRule,
    AuthzRuleStore,
    ClientIdentity,
    Verdict,
    evaluate,
    render,
)

IDENTITY = ClientIdentity("dev", "joe", "cn-1")
ANONYMOUS = ClientIdentity("dev", None)
PUB = AuthzAction(ActionType.PUBLISH, 1, False)
SUB = AuthzAction(ActionType.SUBSCRIBE, 1)
ALLOW, DENY = Verdict.ALLOW, Verdict.DENY


def test_the_first_matching_rule_decides() -> None:
    rules = [AuthzRule(ALLOW, "publish", "a/#"), AuthzRule(DENY, "all", "#")]
    assert evaluate(rules, IDENTITY, PUB, "a/b") is ALLOW
    assert evaluate(rules, IDENTITY, SUB, "a/b") is DENY
    assert evaluate(rules[:1], IDENTITY, SUB, "a/b") is None


def test_placeholders_are_replaced_by_the_identity() -> None:
    assert render("x/${clientid}/${username}/${cert_common_name}", IDENTITY) == "x/dev/joe/cn-1"
    assert render("x/${username}", ANONYMOUS) is None
    assert render("x/${other}", IDENTITY) == "x/${other}"
    assert evaluate([AuthzRule(DENY, "all", "x/${username}")], ANONYMOUS, PUB, "x/") is None


def test_a_placeholder_is_one_word() -> None:
    rule = AuthzRule(ALLOW, "all", "x/${clientid}/up/#")
    for clientid in ("#", "+/#", "a/b", "+x"):
        odd = ClientIdentity(clientid, None)
        assert render(rule.topic, odd) is None
        for topic in ("x/a/b/up/c", "x/other/up/c", "x/+/up/#"):
            assert evaluate([rule], odd, SUB, topic) is None
    plus = ClientIdentity("+", None)
    assert evaluate([rule], plus, PUB, "x/other/up/c") is ALLOW
    assert evaluate([rule], plus, SUB, "x/+/up/#") is ALLOW
    for topic in ("x/other/up/c", "x/+/up/#"):
        assert evaluate([rule], plus, SUB, topic, plus_is_wildcard=False) is None


def test_eq_compares_wildcards_as_text() -> None:
    rule = [AuthzRule(ALLOW, "subscribe", "eq a/#")]
    assert evaluate(rule, IDENTITY, SUB, "a/#") is ALLOW
    assert evaluate(rule, IDENTITY, SUB, "a/b") is None


def test_a_rule_for_every_topic_does_not_cover_dollar_topics() -> None:
    assert evaluate([AuthzRule(DENY, "all", "#")], IDENTITY, SUB, "$SYS/brokers") is None


def test_qos_and_retain_narrow_a_rule() -> None:
    rules = [AuthzRule(DENY, "publish", "t", qos=(2,)), AuthzRule(DENY, "publish", "t", retain=True)]
    assert evaluate(rules, IDENTITY, PUB, "t") is None
    assert evaluate(rules, IDENTITY, AuthzAction(ActionType.PUBLISH, 2, False), "t") is DENY
    assert evaluate(rules, IDENTITY, AuthzAction(ActionType.PUBLISH, 0, True), "t") is DENY


def test_client_rules_come_before_user_rules_and_those_before_the_rules_for_everybody() -> None:
    store = AuthzRuleStore(
        clients={"dev": (AuthzRule(ALLOW, "all", "c"),)},
        users={"joe": (AuthzRule(DENY, "all", "c"), AuthzRule(ALLOW, "all", "u"))},
        everybody=(AuthzRule(DENY, "all", "u"), AuthzRule(DENY, "all", "e")),
    )
    assert [store.decide(IDENTITY, PUB, topic) for topic in ("c", "u", "e", "x")] == [ALLOW, ALLOW, DENY, None]
    assert store.decide(ANONYMOUS, PUB, "u") is DENY


def test_the_cache_keeps_32_verdicts_for_a_minute() -> None:
    cache = AuthzCache()
    for number in range(33):
        cache.put(PUB, f"t/{number}", DENY, now=float(number))
    assert cache.get(PUB, "t/0", now=33.0) is None
    assert cache.get(PUB, "t/1", now=33.0) is DENY
    assert cache.get(SUB, "t/1", now=33.0) is None
    assert cache.get(PUB, "t/1", now=61.0) is None
    assert [topic for _, topic, _ in cache.rows(now=91.5)] == ["t/32"]
    cache.clear()
    assert cache.rows(now=33.0) == []


def test_a_new_verdict_replaces_the_older_one() -> None:
    cache = AuthzCache(max_size=2)
    cache.put(PUB, "a", DENY, 0.0)
    cache.put(PUB, "b", DENY, 1.0)
    cache.put(PUB, "a", ALLOW, 2.0)
    cache.put(PUB, "c", DENY, 3.0)
    assert cache.get(PUB, "a", 4.0) is ALLOW
    assert cache.get(PUB, "b", 4.0) is None
