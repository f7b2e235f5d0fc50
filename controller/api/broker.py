"""The broker: whether its nodes answer, and whether it holds what it should."""

from fastapi import APIRouter, Depends

from controller.api.context import Services, ServicesDep, writable
from controller.api.errors import problems
from controller.api.fields import Moment, View, moment
from controller.api.guard import scope
from controller.service.drift import Difference, DriftState

router = APIRouter(prefix="/broker", tags=["broker"], responses=problems(401, 422, 429, 502, 503))


class NodeView(View):
    """`detail` is its version, or why it does not answer."""

    url: str
    answers: bool
    detail: str


class LinkView(View):
    """The MQTT connection."""

    connected: bool
    server: str
    protocol: str
    detail: str


class ComparisonView(View):
    """The comparison with the store; `repaired` counts since the start, `lacks` is for `cordon broker setup`."""

    last_pass: Moment | None
    trouble: str
    lacks: str
    repaired: int


class BrokerView(View):
    nodes: tuple[NodeView, ...]
    link: LinkView
    comparison: ComparisonView


class DriftView(View):
    """One difference; without a `device_id` it is one of the broker itself. `node` is where it was seen."""

    device_id: str
    what: str
    node: str
    state: DriftState
    detail: str
    since: Moment | None
    until: Moment | None

    @classmethod
    def of(cls, one: Difference) -> "DriftView":
        """From the book."""
        fields = {name: getattr(one, name) for name in ("device_id", "what", "node", "state", "detail")}
        return cls(**fields, since=moment(one.since), until=moment(one.until))


class DriftList(View):
    """What differs now, oldest first, and what differed since the start and does not any more, newest first."""

    items: tuple[DriftView, ...]
    closed: tuple[DriftView, ...]


def _comparison(services: Services) -> ComparisonView:
    reconciler = services.reconciler
    return ComparisonView(
        last_pass=moment(reconciler.last_pass),
        trouble=reconciler.trouble,
        lacks=reconciler.lacks,
        repaired=reconciler.repaired,
    )


@router.get("", dependencies=[scope("read")])
async def show_broker(services: ServicesDep) -> BrokerView:
    """Ask every node of the broker now."""
    nodes = await services.broker.ping()
    state = services.messages.state
    return BrokerView(
        nodes=tuple(NodeView(url=url, answers=answers, detail=detail) for url, answers, detail in nodes),
        link=LinkView(connected=state.connected, server=state.server, protocol=state.protocol, detail=state.detail),
        comparison=_comparison(services),
    )


@router.get("/drift", dependencies=[scope("read")])
async def drift(services: ServicesDep) -> DriftList:
    """What the last comparisons found, without a new one."""
    book = services.reconciler.book
    return DriftList(items=tuple(map(DriftView.of, book.open)), closed=tuple(map(DriftView.of, book.closed)))


@router.post("/reconcile", dependencies=[scope("contain"), Depends(writable)])
async def reconcile(services: ServicesDep) -> DriftList:
    """Compare every node of the broker with the store now, and put right what differs where that is safe."""
    await services.reconciler.reconcile(everywhere=True)
    return await drift(services)
