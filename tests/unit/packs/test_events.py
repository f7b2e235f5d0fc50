"""What the shipped packs say of events that devices really send."""

import pytest

from controller.domain.policy.event_rules import evaluate_event, event_facts
from schemas.events import DeviceEvent
from tests.support.packs import load_pack


@pytest.mark.parametrize(
    ("name", "device_class", "kind", "severity", "signature", "rules"),
    [
        ("baseline-tools", "", "intrusion.suricata", "critical", "1", {"no-critical-alerts"}),
        ("baseline-tools", "", "intrusion.wazuh", "high", "1", {"few-severe-alerts"}),
        ("baseline-tools", "", "intrusion.flood", "medium", "", {"no-alert-flood"}),
        ("baseline-tools", "", "intrusion.snort", "low", "gap", {"no-alerts-missed"}),
        ("baseline-tools", "", "intrusion.snort", "medium", "1", set()),
        ("baseline-system", "", "login_failed", "medium", "ssh", {"nobody-guesses-now"}),
        ("baseline-system", "", "command_refused", "high", "", set()),
        ("starter", "", "command_refused", "high", "", {"no-refused-commands"}),
        ("baseline-strict", "critical", "intrusion.snort", "critical", "1", {"no-critical-alert"}),
        ("baseline-strict", "critical", "login_failed", "medium", "ssh", {"nobody-guesses-now"}),
        ("baseline-strict", "", "intrusion.snort", "critical", "1", set()),
    ],
)
def test_a_pack_finds(name: str, device_class: str, kind: str, severity: str, signature: str, rules: set[str]) -> None:
    raw = {"device_id": "d", "kind": kind, "severity": severity, "at": "2026-11-26T00:00:00Z"}
    if signature:
        raw["detail"] = {"signature": signature}  # type: ignore[assignment]  # as it comes off the wire
    event = DeviceEvent.model_validate(raw)
    found = evaluate_event(load_pack(name).policies, event_facts(event, "d", device_class))
    assert {f"{one.result}:{one.rule.partition('/')[2]}" for one in found} == {f"fail:{rule}" for rule in rules}
