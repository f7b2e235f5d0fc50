"""The broker: whether its nodes answer, and whether it holds what it should."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends

from controller.api.auth import scope
from controller.api.context import BrokerDep, MessagesDep, writable
from controller.api.errors import problems
from controller.api.fields import OptionalTimestamp, View
from controller.domain.broker.inspection import LISTENERS, NODES, parse_listeners
from controller.domain.broker.ports import PortUse
from controller.service.containment.drift import DriftState

router = APIRouter(prefix="/broker", tags=["broker"], responses=problems(401, 422, 429, 502, 503))


class BrokerNodeView(View):
    """`detail` is its version, or why it does not answer."""

    url: str
    answers: bool
    detail: str


class MqttConnectionView(View):
    """The MQTT connection."""

    connected: bool
    server: str
    protocol: str
    detail: str


class ReconciliationView(View):
    """The comparison with the store; `repaired` counts since the start, `lacks` is for `cordon broker setup`."""

    last_pass: OptionalTimestamp
    trouble: str
    lacks: str
    repaired: int


class BrokerView(View):
    nodes: tuple[BrokerNodeView, ...]
    link: MqttConnectionView
    comparison: ReconciliationView


class DriftView(View):
    """One difference; without a `device_id` it is one of the broker itself. `node` is where it was seen."""

    device_id: str
    what: str
    node: str
    state: DriftState
    detail: str
    since: OptionalTimestamp
    until: OptionalTimestamp


class DriftList(View):
    """What differs now, oldest first, and what differed since the start and does not any more, newest first."""

    items: tuple[DriftView, ...]
    closed: tuple[DriftView, ...]


class BrokerListenerView(View):
    """One port that is listened on; `address` is `*` for all."""

    use: PortUse
    address: str
    port: int


class NodeEndpoints(View):
    node: str
    listening: tuple[BrokerListenerView, ...] | None


class BrokerEndpoints(View):
    """The nodes of the broker; `unknown` says why they or their listeners are not told."""

    nodes: tuple[NodeEndpoints, ...]
    unknown: str


@router.get("", dependencies=[scope("read")])
async def show_broker(broker: BrokerDep, messages: MessagesDep) -> BrokerView:
    """Ask every node of the broker now."""
    nodes = await broker.control.ping()
    return BrokerView(
        nodes=tuple(BrokerNodeView(url=url, answers=answers, detail=detail) for url, answers, detail in nodes),
        link=MqttConnectionView.of(messages.state),
        comparison=ReconciliationView.of(broker.reconciler),
    )


@router.get("/ports", dependencies=[scope("read")])
async def list_endpoints(broker: BrokerDep) -> BrokerEndpoints:
    """Nodes and listeners as the broker tells them now: what `cordon broker ports` reckons from."""
    seen = await broker.inspector.endpoints()
    rows, listeners = seen.answers.get(NODES), seen.answers.get(LISTENERS)
    listening = None
    if listeners is not None:
        listening = tuple(map(BrokerListenerView.of, parse_listeners(listeners)))
        listening += tuple(_dashboards(seen.api))
    names = [row["node"] for row in rows or () if isinstance(row, dict) and isinstance(row.get("node"), str)]
    nodes = tuple(NodeEndpoints(node=name, listening=listening) for name in names)
    unknown = seen.silence.get(NODES, "") or seen.silence.get(LISTENERS, "")
    return BrokerEndpoints(nodes=nodes, unknown=unknown)


def _dashboards(addresses: tuple[str, ...]) -> Iterator[BrokerListenerView]:
    """The ports of EMQX's API that Cordon itself uses; every node is taken to have the same."""
    ports = {(urlsplit(base).scheme, urlsplit(base).port) for base in addresses}
    for scheme, port in sorted((scheme, port) for scheme, port in ports if port):
        use = PortUse.DASHBOARD_TLS if scheme == "https" else PortUse.DASHBOARD
        yield BrokerListenerView(use=use, address="*", port=port)


@router.get("/drift", dependencies=[scope("read")])
async def drift(broker: BrokerDep) -> DriftList:
    """What the last comparisons found, without a new one."""
    book = broker.reconciler.book
    return DriftList(items=tuple(map(DriftView.of, book.open)), closed=tuple(map(DriftView.of, book.closed)))


@router.post("/reconcile", dependencies=[scope("contain"), Depends(writable)])
async def reconcile(broker: BrokerDep) -> DriftList:
    """Compare every node of the broker with the store now, and put right what differs where that is safe."""
    await broker.reconciler.reconcile(everywhere=True)
    return await drift(broker)
