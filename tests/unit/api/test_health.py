"""Alive, ready, measured."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controller.api.health import not_ready_reasons
from controller.ports.errors import (
    BrokerRefusedError,
    BrokerUnreachableError,
    ControllerError,
    MessagesError,
    StoreError,
)
from controller.ports.messages import ConnectionState, IncomingMessage
from controller.ports.store import StoreHealth
from tests.support.api import Api


async def _metrics(api: Api) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    text = (await api.client.get("/metrics")).text
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


async def test_ready_once_the_broker_was_read(api: Api) -> None:
    assert (await api.json("GET", "/readyz", 503))["reasons"] == ["broker API has not been read yet"]
    await api.harness.reconciler.reconcile()
    assert await api.json("GET", "/readyz") == {"ready": True, "reasons": [], "warnings": []}
    api.harness.clock.at += 60
    assert (await api.json("GET", "/readyz", 503))["reasons"] == ["broker API is slow"]
    api.harness.reconciler.trouble = "no answer"
    assert (await api.json("GET", "/readyz", 503))["reasons"] == ["broker API: no answer"]
    assert await api.json("GET", "/healthz") == {"status": "ok"}


async def test_not_ready_without_link_or_store(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.harness.reconciler.reconcile()
    down = ConnectionState(False, "", "", 0.0, "refused")
    monkeypatch.setattr(type(api.harness.link), "state", property(lambda _self: down))
    monkeypatch.setattr(type(api.harness.store), "health", property(lambda _self: StoreHealth("disk full", 1.0)))
    reasons = not_ready_reasons(api.services, api.harness.clock.at)
    assert reasons == ("MQTT link is down: refused", "store cannot write: disk full")
    metrics = await _metrics(api)
    assert metrics["cordon_link_connected"][()] == 0
    assert metrics["cordon_store_trouble"][()] == 1


async def test_metrics_count_and_never_name_a_device(api: Api) -> None:
    await api.report("edge-1", ports=(23,))
    await api.report("edge-2")
    await api.harness.ingest.process_batch(
        [IncomingMessage("cordon/v1/edge-3/up/posture", b"{", 1, False, False, 9, 0.0)]
    )
    await api.harness.drain()
    metrics = await _metrics(api)
    assert metrics["cordon_messages_received_total"][()] == 3
    assert metrics["cordon_posture_total"][(("kind", "full"),)] == 2
    assert metrics["cordon_messages_refused_total"][(("reason", "malformed"),)] == 1
    assert metrics["cordon_devices"][(("level", "restricted"), ("stale", "false"))] == 1
    assert metrics["cordon_devices"][(("level", "none"), ("stale", "false"))] == 1
    assert metrics["cordon_effects_pending"][()] == 0
    assert metrics["cordon_effects_done_total"][()] == 2
    assert metrics["cordon_contain_seconds_count"][()] == 1
    assert metrics["cordon_store_rows"][(("table", "devices"),)] == 2
    assert metrics["cordon_store_bytes"][()] > 0
    assert "edge-" not in (await api.client.get("/metrics")).text


async def test_broker_ping_and_comparison(api: Api) -> None:
    await api.report("edge-1", ports=(23,))
    await api.harness.drain()
    api.harness.broker.rules_held.clear()
    found = await api.json("POST", "/api/v1/broker/reconcile")
    (item,) = found["items"]
    assert (item["device_id"], item["state"]) == ("edge-1", "repairing")
    assert item["what"] == "the rules of the restriction are missing"
    await api.harness.drain()
    assert (await api.json("POST", "/api/v1/broker/reconcile"))["items"] == []
    known = await api.json("GET", "/api/v1/broker/drift")
    assert [one["state"] for one in known["closed"]] == ["repaired"]
    status = await api.json("GET", "/api/v1/broker")
    assert status["nodes"] == [{"url": "memory", "answers": True, "detail": "5.8.9"}]
    assert status["comparison"] == {"last_pass": "2027-01-15T08:00:00.000Z", "trouble": "", "lacks": "", "repaired": 1}
    assert status["link"]["connected"] is True


async def test_a_broker_that_does_not_answer_is_told(api: Api) -> None:
    api.harness.broker.fails.append(BrokerUnreachableError("no node answered"))
    answer = await api.json("POST", "/api/v1/broker/reconcile", 503)
    assert answer["error"] == {"code": "broker_unreachable", "message": "no node answered"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BrokerRefusedError("wrong key"), 502, "broker_refused"),
        (StoreError("cannot read"), 503, "store_failed"),
        (MessagesError("something else"), 500, "failed"),
    ],
)
async def test_errors_of_the_ports_are_told_as_they_are(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: ControllerError, status: int, code: str
) -> None:
    async def fail(*, everywhere: bool) -> None:
        assert everywhere
        raise error

    monkeypatch.setattr(api.harness.reconciler, "reconcile", fail)
    answer = await api.json("POST", "/api/v1/broker/reconcile", status)
    assert answer["error"] == {"code": code, "message": str(error)}
