"""The broker: its nodes, and the comparison with the store."""

from urllib.parse import urlsplit

from fastapi import APIRouter, Depends

from controller.api.auth import scope
from controller.api.context import BrokerDep, MessagesDep, writable
from controller.api.errors import problems
from controller.api.fields import OptionalTimestamp, View
from controller.domain.broker.inspection import parse_listeners
from controller.domain.broker.ports import PortUse
from controller.ports.inspection import NodeListeners
from controller.service.containment.drift import DriftState

router = APIRouter(prefix="/broker", tags=["broker"], responses=problems(401, 422, 429, 502, 503))


class BrokerNodeView(View):
    """`detail`: its version, or why it does not respond."""

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
    """The comparison with the store. `repaired`: since the start; `lacks`: settings that a broker setup adds."""

    last_pass: OptionalTimestamp
    trouble: str
    lacks: str
    repaired: int


class BrokerView(View):
    nodes: tuple[BrokerNodeView, ...]
    link: MqttConnectionView
    comparison: ReconciliationView


class DriftView(View):
    """A difference at `node`; without a `device_id` it concerns the broker itself."""

    device_id: str
    what: str
    node: str
    state: DriftState
    detail: str
    since: OptionalTimestamp
    until: OptionalTimestamp


class DriftList(View):
    """Open differences, oldest first, and differences closed since the start, newest first."""

    items: tuple[DriftView, ...]
    closed: tuple[DriftView, ...]


class BrokerListenerView(View):
    """A listening port; `address` is `*` for all addresses."""

    use: PortUse
    address: str
    port: int


class NodeEndpoints(View):
    node: str
    listening: tuple[BrokerListenerView, ...] | None


class BrokerEndpoints(View):
    """The nodes of the broker; `unknown`: why nodes or listeners are missing."""

    nodes: tuple[NodeEndpoints, ...]
    unknown: str


@router.get("", dependencies=[scope("read")])
async def show_broker(broker: BrokerDep, messages: MessagesDep) -> BrokerView:
    """Queries every node of the broker."""
    nodes = await broker.control.ping()
    return BrokerView(
        nodes=tuple(BrokerNodeView(url=url, answers=answers, detail=detail) for url, answers, detail in nodes),
        link=MqttConnectionView.of(messages.state),
        comparison=ReconciliationView.of(broker.reconciler),
    )


@router.get("/ports", dependencies=[scope("read")])
async def list_endpoints(broker: BrokerDep) -> BrokerEndpoints:
    """Returns nodes and listeners as each node reports them, for `cordon broker ports`."""
    found = await broker.inspector.endpoints()
    nodes = tuple(NodeEndpoints(node=one.node, listening=_listening(one)) for one in found if one.node)
    unknown = "; ".join(f"{one.node or one.api}: {one.trouble}" for one in found if one.trouble)
    return BrokerEndpoints(nodes=nodes, unknown=unknown)


def _listening(one: NodeListeners) -> tuple[BrokerListenerView, ...] | None:
    """Returns the node's listeners with the port of its API; None if they are unknown."""
    if one.rows is None:
        return None
    listening = tuple(map(BrokerListenerView.of, parse_listeners(one.rows)))
    url = urlsplit(one.api)
    if not url.port:
        return listening
    use = PortUse.DASHBOARD_TLS if url.scheme == "https" else PortUse.DASHBOARD
    return (*listening, BrokerListenerView(use=use, address="*", port=url.port))


@router.get("/drift", dependencies=[scope("read")])
async def drift(broker: BrokerDep) -> DriftList:
    """Returns the results of past comparisons."""
    book = broker.reconciler.book
    return DriftList(items=tuple(map(DriftView.of, book.open)), closed=tuple(map(DriftView.of, book.closed)))


@router.post("/reconcile", dependencies=[scope("contain"), Depends(writable)])
async def reconcile(broker: BrokerDep) -> DriftList:
    """Compares every node of the broker with the store, and repairs differences where that is safe."""
    await broker.reconciler.reconcile(everywhere=True)
    return await drift(broker)
