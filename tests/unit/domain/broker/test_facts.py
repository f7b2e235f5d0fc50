"""Facts of a broker from responses of every form: a missing fact never passes a rule."""

import re
from typing import Any

import pytest

from controller.adapters.policies.loader import load_policies
from controller.adapters.probes import TlsHandshake
from controller.domain.broker.facts import CATALOGUE, TYPES, gather_broker_facts
from controller.domain.broker.inspection import BrokerInspection
from controller.domain.policy.cel import CelEnvironment
from controller.domain.policy.findings import RuleResult
from controller.packs import broker_pack_path
from tests.support.project_tree import ROOT

DAY = 86_400.0
NOW = 1_800_000_000.0


def inspection(answers: dict[str, Any], silence: dict[str, str] | None = None) -> BrokerInspection:
    return BrokerInspection(answers, silence or {}, NOW, 1000, ("http://10.0.0.1:18083", "http://127.0.0.1:18083"))


def test_broker_without_responses_has_unknown_facts_with_reasons() -> None:
    facts = gather_broker_facts(inspection({}, {"nodes": "403 from the API"}))
    assert dict(facts.known) == {
        "controller_receive_maximum": 1000,
        "shares_messages": False,
        "plain_api_addresses": ["http://10.0.0.1:18083"],
    }
    assert set(facts.missing) == CATALOGUE.keys() - facts.known.keys()
    assert all(fact.result is RuleResult.UNKNOWN and fact.reason for fact in facts.missing.values())
    assert facts.missing["versions"].reason == "nodes: 403 from the API"


@pytest.mark.parametrize("nonsense", [None, 7, "text", [], {}, [1], [{}], {"cache": {}}, [[{"a": 1}]]])
def test_unexpected_response_gives_no_value(nonsense: Any) -> None:
    sources = {source for _, source, _ in CATALOGUE.values() if source}
    facts = gather_broker_facts(inspection({source: nonsense for source in sources if source != "certificates"}))
    for name in ("authz_no_match", "client_id_source", "max_inflight", "default_cookie", "file_allows_all"):
        assert name not in facts.known


def zone(**mqtt: Any) -> dict[str, Any]:
    usual = {
        "peer_cert_as_clientid": "cn",
        "max_mqueue_len": 1000,
        "max_inflight": 32,
        "session_expiry_interval": "1h30m",
        "use_username_as_clientid": False,
    }
    return {"zone": {"mqtt": usual | mqtt, "flapping_detect": {"enable": False}}}


def test_durations_and_infinity_are_read_as_numbers() -> None:
    facts = gather_broker_facts(inspection(zone(max_mqueue_len="infinity")))
    assert (facts.known["max_queue"], facts.known["session_expiry_seconds"]) == (0, 5400)


def test_the_zone_of_the_controller_is_read_with_its_heap() -> None:
    def facts(queue: Any, heap: str) -> dict[str, Any]:
        sections = zone(max_mqueue_len=queue)["zone"] | {"force_shutdown": {"enable": True, "max_heap_size": heap}}
        return dict(gather_broker_facts(inspection({"controller_zone": {"zone": "own", **sections}})).known)

    assert facts(1000, "32MB")["controller_queue_outgrows_heap"] is False
    assert facts(100_000, "32MB")["controller_queue_outgrows_heap"] is True
    assert facts(100_000, "512MB")["controller_queue_outgrows_heap"] is False
    assert facts("infinity", "512MB")["controller_queue_outgrows_heap"] is True
    assert facts(1000, "32MB")["controller_zone"] == "own"
    assert "controller_zone" in gather_broker_facts(inspection(zone())).missing


def test_topics_that_emqx_subscribes_by_itself_are_facts_except_the_own_branch() -> None:
    rows = [{"topic": "fleet/in"}, {"topic": "cordon/v1/${clientid}/down/#"}]
    known = gather_broker_facts(inspection({"auto_subscribe": rows})).known
    assert known["auto_subscribe_topics"] == ["fleet/in"]


def listener(**more: Any) -> dict[str, Any]:
    return {"id": "ssl:default", "type": "ssl", "enable": True, "bind": "0.0.0.0:8883", **more}


def test_missing_tls_settings_make_the_lists_partial() -> None:
    tls = {"verify": "verify_peer", "fail_if_no_peer_cert": True, "enable_crl_check": True, "versions": ["tlsv1.3"]}
    complete = gather_broker_facts(inspection({"listeners": [listener(ssl_options=tls)], "authentication": []}))
    assert complete.partial == {}
    assert complete.known["anonymous_listeners"] == [], "a certificate is required"
    incomplete = gather_broker_facts(inspection({"listeners": [listener()], "authentication": []}))
    assert "tls_without_verify" in incomplete.partial
    assert incomplete.known["anonymous_listeners"] == ["ssl:default"]


def test_anonymous_listeners_are_unknown_without_the_authentication_chain() -> None:
    facts = gather_broker_facts(
        inspection({"listeners": [listener(type="tcp", id="tcp:default")]}, {"authentication": "403"})
    )
    assert facts.known["plain_listeners"] == ["tcp:default"]
    assert "403" in facts.missing["anonymous_listeners"].reason


@pytest.mark.parametrize(
    ("rules", "open_"),
    [
        ("{allow, all}.", True),
        ("  {allow,all}.", True),
        ("%% {allow, all}.", False),
        ('{allow, {username, "x"}, all, ["a"]}.\n{deny, all}.', False),
    ],
)
def test_file_source_that_allows_everything_is_detected(rules: str, open_: bool) -> None:
    assert (
        gather_broker_facts(inspection({"file_rules": {"enable": True, "rules": rules}})).known["file_allows_all"]
        is open_
    )
    assert (
        gather_broker_facts(inspection({"file_rules": {"enable": False, "rules": rules}})).known["file_allows_all"]
        is False
    )


def test_the_rule_of_the_legacy_profile_is_unknown() -> None:
    """EMQX 6.2.2 and later: `hardened` turns it off, and the API does not tell the profile."""
    rules = "{allow, {security_profile, legacy}}."
    missing = gather_broker_facts(inspection({"file_rules": {"enable": True, "rules": rules}})).missing
    assert "EMQX_SECURITY_PROFILE" in missing["file_allows_all"].reason
    disabled = gather_broker_facts(inspection({"file_rules": {"enable": False, "rules": rules}}))
    assert disabled.known["file_allows_all"] is False
    both = gather_broker_facts(inspection({"file_rules": {"enable": True, "rules": f"{{allow, all}}.\n{rules}"}}))
    assert both.known["file_allows_all"] is True


@pytest.mark.parametrize(
    ("version", "section", "value"),
    [
        ("5.8.9", {}, RuleResult.NOTAPPLICABLE),
        ("6.0.2", {}, RuleResult.NOTAPPLICABLE),
        ("6.3.0-beta.2", {}, True),
        ("6.3.0-beta.2", {"limit_selects_in_namespace": True}, True),
        ("6.3.0-beta.2", {"limit_selects_in_namespace": False}, False),
    ],
)
def test_the_namespace_limit_is_on_by_default_in_6(version: str, section: dict[str, Any], value: object) -> None:
    nodes = [{"node": "emqx@h", "node_status": "running", "version": version}]
    facts = gather_broker_facts(inspection({"nodes": nodes, "rule_engine": section}))
    if value is RuleResult.NOTAPPLICABLE:
        assert facts.missing["events_within_namespace"].result is value
    else:
        assert facts.known["events_within_namespace"] is value


def test_certificate_days_left_is_the_shortest_of_all_listeners() -> None:
    def days(*handshakes: TlsHandshake) -> Any:
        facts = gather_broker_facts(inspection({"certificates": list(handshakes)}))
        return facts.known.get("certificate_days_left"), facts.missing.get("certificate_days_left"), facts.partial

    good = TlsHandshake("a", 8883, ends_at=NOW + 30.5 * DAY)
    expired = TlsHandshake("b", 8883, ends_at=NOW - 1)
    failed = TlsHandshake("c", 8883, trouble="no TLS handshake")
    assert days(good)[0] == 30
    assert days(good, expired)[0] == -1
    value, _, partial = days(good, failed)
    assert value == 30
    assert "no TLS handshake" in partial["certificate_days_left"]
    assert days(failed)[1].result is RuleResult.UNKNOWN
    assert days()[1].result is RuleResult.NOTAPPLICABLE


def test_stopped_nodes_and_port_clashes_are_found() -> None:
    rows = [
        {"node": "emqx@h", "node_status": "running", "version": "5.8.9"},
        {"node": "other@h", "node_status": "stopped"},
    ]
    facts = gather_broker_facts(inspection({"nodes": rows})).known
    assert facts["versions"] == ["5.8.9"]
    assert facts["nodes_not_running"] == ["other@h"]
    assert len(facts["node_port_clashes"]) == 2


def test_documentation_has_the_catalogue() -> None:
    page = (ROOT / "docs" / "broker.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| `([^`]+)` \| ([a-z_]+) \| (.+) \|$", page, re.MULTILINE)
    documented = {name: (kind, source, meaning) for name, kind, source, meaning in rows}
    assert documented == {
        name: (kind, source or "controller", text) for name, (kind, source, text) in CATALOGUE.items()
    }


def test_pack_uses_every_fact() -> None:
    policies = load_policies((broker_pack_path(),), CelEnvironment(TYPES, "broker"))
    read = (one for rule in policies.rules.values() for one in (rule.check, rule.applies_if) if one is not None)
    used = {fact for expression in read for fact in expression.uses}
    assert CATALOGUE.keys() - used == {"authenticators", "max_inflight", "max_queue"}, "which are for custom policies"
