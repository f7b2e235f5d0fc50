"""A running node that cannot be read: every place that speaks of a proof says so, and the node with the reason."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.domain.audit_kinds import AuditKind
from controller.ports.broker_tables import UnreadNode
from tests.support.api import Api

NODE, REASON = "emqx3@10.0.0.3", "GET /cluster: no answer in time"
UNREAD = [{"node": NODE, "reason": REASON}]
EDGE = "/api/v1/quarantine/edge-1"


@pytest.fixture
async def hung(api: Api) -> Api:
    """An API over a broker of whose nodes one hangs, with a device to contain."""
    await api.report("edge-1")
    api.harness.broker.unread = api.harness.tables.unread = (UnreadNode(NODE, REASON),)
    await api.harness.reconciler.reconcile()
    return api


async def test_the_receipt_and_the_lists_say_which_node_was_not_read(hung: Api) -> None:
    await hung.json("PUT", EDGE, body={"level": "restricted", "reason": "odd"})
    await hung.harness.drain()

    receipt = await hung.json("GET", f"{EDGE}/receipt")
    assert (receipt["closed"], receipt["partial"], receipt["deeds"][-1]["unread"]) == (False, True, UNREAD)
    assert receipt["deeds"][-1]["cut_at"], "the cut of the healthy nodes does not wait for the hung one"
    assert receipt["deeds"][-1]["lines"]
    proof = await hung.json("GET", f"{EDGE}/proof")
    assert (proof["proof"], proof["proven"]) == ("partial", False)
    assert f"{NODE}: {REASON}" in proof["trouble"]
    for path in ("/api/v1/quarantine", "/api/v1/devices"):
        (device,) = (await hung.json("GET", path))["items"]
        assert (device["case"]["proven"], device["case"]["unread"]) == (False, UNREAD)
    kinds = await hung.harness.audited("edge-1")
    assert kinds.count(AuditKind.CONTAINMENT_PARTLY_PROVEN) == 1
    assert AuditKind.CONTAINMENT_FAILED not in kinds


async def test_it_is_proven_once_the_node_can_be_read_with_the_time_of_the_first_cut(hung: Api) -> None:
    await hung.json("PUT", EDGE, body={"level": "restricted", "reason": "odd"})
    await hung.harness.drain()
    cut_at = (await hung.json("GET", f"{EDGE}/receipt"))["deeds"][-1]["cut_at"]
    hung.harness.broker.unread = ()
    hung.harness.clock.at += 120
    hung.harness.outbox.queue.retry_now("edge-1")
    await hung.harness.drain()
    receipt = await hung.json("GET", f"{EDGE}/receipt")
    assert (receipt["closed"], receipt["partial"], receipt["deeds"][-1]["unread"]) == (True, False, [])
    assert receipt["deeds"][-1]["cut_at"] == cut_at
    assert (await hung.json("GET", f"{EDGE}/proof"))["proof"] == "proven"


async def test_a_later_decision_is_not_called_partial_by_an_earlier_one(hung: Api) -> None:
    await hung.json("PUT", EDGE, body={"level": "restricted", "reason": "odd"})
    await hung.harness.drain()
    found = await hung.json("PUT", EDGE, body={"level": "isolated", "reason": "odder"})
    assert found["case"]["unread"] == []


async def test_drift_readiness_and_metrics_say_so_until_it_is_read(hung: Api) -> None:
    await hung.json("PUT", EDGE, body={"level": "restricted", "reason": "odd"})
    await hung.harness.drain()
    (entry,) = (await hung.json("GET", "/api/v1/broker/drift"))["items"]
    assert (entry["what"], entry["node"], entry["detail"]) == ("a running node cannot be read", NODE, REASON)
    assert entry["state"] == "alerted", "exit status 1 of `cordon broker drift`"
    ready = await hung.json("GET", "/readyz")
    assert ready["warnings"] == [f"a running node of the broker cannot be read: {NODE}: {REASON}"]
    metrics = (await hung.client.get("/metrics")).text
    samples = {
        (sample.name, sample.labels.get("node", "")): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert samples["cordon_broker_node_unread", NODE] == 1
    assert samples["cordon_broker_nodes_running", ""] == 2
    assert samples["cordon_containments_partial", ""] == 1

    hung.harness.tables.unread = ()
    await hung.harness.reconciler.reconcile()
    assert (await hung.json("GET", "/api/v1/broker/drift"))["items"] == []
    assert (await hung.json("GET", "/readyz"))["warnings"] == []
