"""Alerts, board and runbooks ask for what the running API really measures, and lead to pages that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from controller.adapters.sql.options import StoreOptions
from controller.ports.errors import BrokerUnreachableError
from controller.ports.messages import IncomingMessage
from tests.support.api import Api, api
from tests.support.compose import DEPLOY, ROOT

RUNBOOKS: Final = ROOT / "docs" / "runbooks"
RULES: Final[list[dict[str, Any]]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0][
    "rules"
]
BOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "cordon.json").read_text())
FROM_PROMETHEUS: Final = {"up"}
# Only with updates, an open rollout, several controllers, single sign-on, configured certificates or receivers.
SOMETIMES: Final = {
    "cordon_broker_node_unread",
    "cordon_update_metadata_trouble",
    "cordon_update_metadata_warnings",
    "cordon_rollout_devices",
    "cordon_own_certificate_end_timestamp_seconds",
    "cordon_own_certificate_warning",
    "cordon_notification_sink_failing_since_timestamp_seconds",
    "cordon_notifications_total",
    "cordon_notifications_waiting",
    "cordon_sso_trouble",
    "cordon_leader",
    "cordon_lease_left_seconds",
    "cordon_clock_offset_seconds",
    "cordon_controllers_fenced_total",
}
_FUNCTIONS: Final = {"absent", "and", "by", "changes", "histogram_quantile", "increase", "or", "rate", "sum", "time"}

Samples = dict[str, list[tuple[dict[str, str], float]]]


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def _queries() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in _panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for note in BOARD["annotations"]["list"]:
        yield note["name"], note["expr"]


def _selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every metric that is asked for, with the labels that narrow it."""
    bare = re.sub(r"\bby \([a-z, ]+\)", "by", query)
    for name, labels in re.findall(r"\b([a-z_][a-z0-9_]*)\b(\{[^}]*\})?", re.sub(r"\[[^\]]*\]", "", bare)):
        if name not in _FUNCTIONS:
            yield name, dict(re.findall(r'(\w+)!?=~?"([^"]*)"', labels))


async def _samples(one: Api) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families((await one.client.get("/metrics")).text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


@pytest.fixture
async def samples(tmp_path: Path) -> Samples:
    """What a controller exposes that has contained one device and refused one message."""
    async with api(tmp_path / "cordon.db") as one:
        await one.report("edge-1", ports=(23,))
        await one.harness.ingest.process_batch(
            [IncomingMessage("cordon/v1/edge-3/up/posture", b"{", 1, False, False, 9, 0.0)]
        )
        await one.harness.drain()
        return await _samples(one)


def test_the_queries_are_taken_apart_as_meant() -> None:
    query = 'sum by (le) (rate(a_total{stale="true"}[5m])) > 0.1 * b and time() - c_seconds > 120'
    assert list(_selectors(query)) == [("a_total", {"stale": "true"}), ("b", {}), ("c_seconds", {})]
    assert len(list(_queries())) > 25


async def test_every_metric_and_label_exists(samples: Samples) -> None:
    complaints = []
    for where, query in _queries():
        asked = [one for one in _selectors(query) if one[0] not in FROM_PROMETHEUS | SOMETIMES]
        assert asked or "up{" in query or any(name in query for name in SOMETIMES), where
        for name, labels in asked:
            known = samples.get(name, [])
            if not known:
                complaints.append(f"{where}: there is no {name}")
            for label, value in labels.items():
                if known and value not in {given.get(label) for given, _ in known}:
                    complaints.append(f"{where}: {name} has no {label}={value}")
    assert complaints == []


async def test_every_metric_is_on_the_board(samples: Samples) -> None:
    shown = {name for panel in _panels() for target in panel["targets"] for name, _ in _selectors(target["expr"])}
    noted = {"cordon_start_timestamp_seconds"}
    measured = {name for name in samples if not name.endswith(("_created", "_sum", "_count"))}
    assert measured - shown == noted


def test_parentheses_close() -> None:
    assert [where for where, query in _queries() if query.count("(") != query.count(")")] == []


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) > 10
    pages = {path.stem for path in RUNBOOKS.glob("Cordon*.md")}  # others are about people
    assert pages == set(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
        page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
        assert page.startswith(f"# {rule['alert']}\n")
        assert all(f"\n## {part}\n" in page for part in ("What it means", "What to do"))
        assert f"({rule['alert']}.md)" in (RUNBOOKS / "README.md").read_text()


def test_the_alert_about_dead_letters_fires_before_the_limit() -> None:
    (expr,) = (rule["expr"] for rule in RULES if rule["alert"] == "CordonDeadLetters")
    threshold = int(expr.rpartition(">")[2])
    assert 0.8 * StoreOptions().max_dead_letters < threshold < StoreOptions().max_dead_letters


def test_the_scrape_job_is_the_one_that_alerts_ask_for() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert f'up{{job="{job["job_name"]}"}}' in next(r["expr"] for r in RULES if r["alert"] == "CordonControllerDown")
    assert job["metrics_path"] == "/metrics"
    assert all((DEPLOY / "prometheus" / name).exists() for name in prometheus["rule_files"])


def test_panels_do_not_cover_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)


async def test_a_containment_that_fails_is_measured_until_it_succeeds(tmp_path: Path) -> None:
    async with api(tmp_path / "cordon.db") as one:
        broker, outbox = one.harness.broker, one.harness.outbox
        broker.fails.append(BrokerUnreachableError("no node answers"))
        await one.report("edge-1", ports=(23,))
        await outbox.drain()
        assert (await _samples(one))["cordon_effects_troubled_devices"] == [({}, 1.0)]
        outbox.queue.retry_now("edge-1")
        await one.harness.drain()
        samples = await _samples(one)
        assert samples["cordon_effects_troubled_devices"] == [({}, 0.0)]
        assert samples["cordon_effects_retried_total"] == [({}, 1.0)]
