"""Prometheus metrics: totals, without a label per device."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.api.auth import public
from controller.api.context import LeaderServices, Services, ServicesDep
from controller.domain.audit_kinds import AuditKind
from controller.domain.notifications.model import SinkState
from controller.domain.policy.model import ContainmentLevel
from controller.service.unit_of_work import UnitOfWork

_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
_REFUSED: Final = "refused:"
# Entries that say when a device was cut off.
_CUT: Final = frozenset({AuditKind.CONTAINMENT_PROVEN, AuditKind.CONTAINMENT_PARTLY_PROVEN})

router = APIRouter(tags=["health"], dependencies=[public("scrapers: counts of the whole, no device is named")])


@dataclass(frozen=True, slots=True)
class _Reading:
    """Values that have to be awaited, read before the registry collects."""

    rows: dict[str, Any]
    devices: Mapping[tuple[ContainmentLevel, bool], int]
    partial: int = 0
    sinks: Mapping[str, SinkState] = field(default_factory=dict)


class ContainmentDurations:
    """Measures each containment when its proof is committed."""

    def __init__(self) -> None:
        self.histogram = Histogram(
            "cordon_contain_seconds",
            "From the arrival of the violating report to the call that cut the device off",
            registry=None,
            buckets=_BUCKETS,
        )

    def on_commit(self, batch: UnitOfWork) -> None:
        for _, entry in batch.audit:
            if entry.kind in _CUT and entry.detail:
                seconds = entry.detail.get("seconds")
                if isinstance(seconds, int | float):
                    self.histogram.observe(seconds)


class MetricsCollector(Collector):
    """Collects metrics from the services on request; only durations are observed as they happen."""

    def __init__(self, services: Services, durations: ContainmentDurations) -> None:
        self._services = services
        self._reading = _Reading({}, {})
        self.registry = CollectorRegistry()
        self.registry.register(durations.histogram)
        self.registry.register(self)

    async def text(self) -> bytes:
        """Returns the exposition."""
        summary = await self._services.queries.summary()
        leader = self._services.leader
        sinks = {} if leader is None else await leader.notifications.dispatcher.store.states()
        rows = await self._services.store.counts()
        self._reading = _Reading(rows, summary.levels, summary.unread, sinks)
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        yield from self._messages()
        yield from self._devices()
        yield from self._guards()
        yield from self._work()
        yield from self._store()
        yield from self._certificates()
        yield from self._leases()
        leader = self._services.leader
        if leader is None:
            return  # whoever leads tells the rest
        yield from _comparison(leader)
        yield from _rollouts(leader)
        yield from _updates(leader)
        if leader.accounts.sso is not None:
            trouble = float(bool(leader.accounts.sso.last_problem))
            text = "Whether the provider of single sign-on could not be used last"
            yield GaugeMetricFamily("cordon_sso_trouble", text, trouble)
        yield from _notifications(leader, self._reading.sinks)

    def _messages(self) -> Iterator[Metric]:
        counts = self._services.ingest.counts
        yield CounterMetricFamily("cordon_messages_received", "Messages from devices", counts["received"])
        kinds = CounterMetricFamily("cordon_posture", "Posture messages accepted", labels=["kind"])
        kinds.add_metric(["full"], counts["reports"])
        kinds.add_metric(["delta"], counts["deltas"])
        kinds.add_metric(["heartbeat"], counts["heartbeats"])
        yield kinds
        yield CounterMetricFamily("cordon_reports_signed", "Signed posture messages that were taken", counts["signed"])
        missing = "Numbers of signed posture messages that never came"
        yield CounterMetricFamily("cordon_reports_missing", missing, counts["missing"])
        refused = CounterMetricFamily("cordon_messages_refused", "Messages refused", labels=["reason"])
        for name, count in sorted(counts.items()):
            if name.startswith(_REFUSED):
                refused.add_metric([name.removeprefix(_REFUSED)], count)
        yield refused
        yield CounterMetricFamily(
            "cordon_receipts_not_sent", "Receipts that found no room or no link", counts["receipts_not_sent"]
        )
        budget = self._services.fleet.budget
        folded = "Audit rows that repeat others or are beyond a device's share of the day: counted, not recorded"
        yield CounterMetricFamily("cordon_audit_folded", folded, budget.folded)
        yield CounterMetricFamily("cordon_audit_budgets_used_up", "Days' shares that devices used up", budget.used_up)
        connected = float(self._services.messages.state.connected)
        yield GaugeMetricFamily("cordon_link_connected", "Whether the MQTT link is up", connected)

    def _devices(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("cordon_devices", "Devices by containment and silence", labels=["level", "stale"])
        for level in ContainmentLevel:
            for stale in (False, True):
                family.add_metric([level.value, str(stale).lower()], self._reading.devices.get((level, stale), 0))
        yield family

    def _guards(self) -> Iterator[Metric]:
        fleet = self._services.fleet
        radius = fleet.guards.radius
        waiting = "Devices whose containment waits because of the blast radius"
        yield GaugeMetricFamily("cordon_guard_waiting", waiting, radius.waiting)
        contained = "Devices contained by policy within the window"
        yield GaugeMetricFamily("cordon_guard_contained", contained, radius.used(fleet.clock.now()))
        limit = "Devices that policies may contain within the window"
        yield GaugeMetricFamily("cordon_guard_limit", limit, radius.bounds.limit(fleet.size))

    def _work(self) -> Iterator[Metric]:
        outbox = self._services.outbox
        yield GaugeMetricFamily("cordon_effects_pending", "Effects not carried out yet", outbox.queue.pending)
        troubled = "Devices whose next effect failed and is tried again"
        yield GaugeMetricFamily("cordon_effects_troubled_devices", troubled, outbox.queue.troubled)
        yield CounterMetricFamily("cordon_effects_done", "Effects carried out", outbox.counts["done"])
        yield CounterMetricFamily("cordon_effects_retried", "Attempts to be repeated", outbox.counts["retried"])
        nodes = self._services.nodes
        running = "Nodes that run, as the cluster says"
        yield GaugeMetricFamily("cordon_broker_nodes_running", running, len(nodes.running))
        unread = GaugeMetricFamily(
            "cordon_broker_node_unread", "Whether a running node cannot be read: proofs are partial", labels=["node"]
        )
        names = {one.node for one in nodes.unread}
        for name in sorted({*nodes.running, *names}):
            unread.add_metric([name], float(name in names))
        yield unread
        partial = "Devices whose containment is proven but for running nodes that cannot be read"
        yield GaugeMetricFamily("cordon_containments_partial", partial, self._reading.partial)
        waiting = "Requests that wait for a proof or the end of a command"
        yield GaugeMetricFamily("cordon_api_waiters", waiting, len(self._services.waiters))
        started = self._services.started_at
        yield GaugeMetricFamily("cordon_start_timestamp_seconds", "When the controller started", started)

    def _store(self) -> Iterator[Metric]:
        rows = GaugeMetricFamily("cordon_store_rows", "Rows of each table", labels=["table"])
        for table, count in sorted(self._reading.rows.items()):
            if table != "bytes":
                rows.add_metric([table], count)
        yield rows
        yield GaugeMetricFamily("cordon_store_bytes", "Bytes of the store", self._reading.rows.get("bytes", 0))
        trouble = float(bool(self._services.store.health.trouble))
        yield GaugeMetricFamily("cordon_store_trouble", "Whether the store cannot write", trouble)

    def _leases(self) -> Iterator[Metric]:
        leases = self._services.leases
        if not leases.is_shared:
            return
        yield GaugeMetricFamily("cordon_leader", "Whether this controller leads", float(leases.is_leader))
        buckets = "Buckets of devices that this controller holds, of 256"
        yield GaugeMetricFamily("cordon_buckets", buckets, len(leases.buckets))
        left = "Seconds for which nobody else takes over from this controller"
        yield GaugeMetricFamily("cordon_lease_left_seconds", left, leases.lease_left())
        offset = "Seconds by which this machine's clock is behind the store's"
        yield GaugeMetricFamily("cordon_clock_offset_seconds", offset, leases.clock_offset)
        fenced = "Controllers that this one took over from because their lease was over"
        yield CounterMetricFamily("cordon_controllers_fenced", fenced, leases.fenced)

    def _certificates(self) -> Iterator[Metric]:
        ends = GaugeMetricFamily(
            "cordon_own_certificate_end_timestamp_seconds", "When a certificate of the controller ends", labels=["use"]
        )
        text = "0: nothing to do; 1, 2, 3: ends within 30, 7, 1 days and is not renewed"
        stages = GaugeMetricFamily("cordon_own_certificate_warning", text, labels=["use"])
        for status in self._services.own_certificates.statuses.values():
            ends.add_metric([status.use], status.end)
            stages.add_metric([status.use], status.stage)
        yield ends
        yield stages


def _comparison(leader: LeaderServices) -> Iterator[Metric]:
    reconciler = leader.broker.reconciler
    yield CounterMetricFamily("cordon_drift_repaired", "Differences at the broker put right", reconciler.repaired)
    yield GaugeMetricFamily(
        "cordon_reconcile_last_pass_timestamp_seconds", "Last comparison", reconciler.last_pass or 0.0
    )
    trouble = float(bool(reconciler.trouble))
    yield GaugeMetricFamily("cordon_reconcile_trouble", "Whether the broker API cannot be read", trouble)


def _rollouts(leader: LeaderServices) -> Iterator[Metric]:
    operations = leader.rollouts.operations
    devices = GaugeMetricFamily(
        "cordon_rollout_devices", "Devices of rollouts that have not ended", labels=["rollout", "ring", "state"]
    )
    for rollout in operations.open():
        for ring in rollout.rings:
            for state in ("waiting", "under_way", "confirmed", "errors"):
                devices.add_metric([rollout.rollout_id, ring.name, state], getattr(ring, state))
    yield devices
    stopped = "Rollouts that stopped themselves since the start"
    yield CounterMetricFamily("cordon_rollouts_stopped", stopped, operations.counts["stopped"])
    orders = CounterMetricFamily("cordon_rollout_orders", "Updates ordered, and ordered back", labels=["what"])
    for what in ("orders", "returns"):
        orders.add_metric([what], operations.counts[what])
    yield orders


def _updates(leader: LeaderServices) -> Iterator[Metric]:
    refresher = leader.rollouts.refresher
    if refresher is None:
        return
    trouble = "Whether the metadata of updates cannot be renewed"
    yield GaugeMetricFamily("cordon_update_metadata_trouble", trouble, float(bool(refresher.trouble)))
    warnings = "Roles that offline keys have to sign soon"
    yield GaugeMetricFamily("cordon_update_metadata_warnings", warnings, float(len(refresher.warnings)))


def _notifications(leader: LeaderServices, states: Mapping[str, SinkState]) -> Iterator[Metric]:
    dispatcher = leader.notifications.dispatcher
    sent = CounterMetricFamily("cordon_notifications", "Notifications and failed attempts", labels=["sink", "outcome"])
    waiting = GaugeMetricFamily("cordon_notifications_waiting", "Notifications to be sent", labels=["sink"])
    text = "Since when a receiver takes no notification, 0: it does"
    failing = GaugeMetricFamily("cordon_notification_sink_failing_since_timestamp_seconds", text, labels=["sink"])
    for sink in dispatcher.sinks:
        for outcome in ("delivered", "failed", "given_up", "dropped"):
            sent.add_metric([sink.name, outcome], dispatcher.counts[f"{sink.name}:{outcome}"])
        state = states.get(sink.name, SinkState())
        waiting.add_metric([sink.name], state.pending)
        failing.add_metric([sink.name], state.failing_since)
    yield sent
    yield waiting
    yield failing


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, _services: ServicesDep) -> Response:
    """Returns metrics in Prometheus' text format."""
    collector = request.app.state.metrics
    assert isinstance(collector, MetricsCollector)
    return Response(await collector.text(), media_type=CONTENT_TYPE_LATEST)
