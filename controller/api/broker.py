"""The broker: whether its nodes answer, and whether it holds what it should."""

import asyncio

from fastapi import APIRouter, Depends, Request

from controller.api.context import Services, ServicesDep, writable
from controller.api.errors import problems
from controller.api.fields import Moment, View, moment
from controller.api.guard import scope

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
    """The comparison of the broker with the store; `repaired` counts since the start, `lacks` is for `cordon init`."""

    last_pass: Moment | None
    trouble: str
    lacks: str
    repaired: int


class BrokerView(View):
    nodes: tuple[NodeView, ...]
    link: LinkView
    comparison: ComparisonView


class DriftView(View):
    device_id: str
    what: str


class DriftList(View):
    """What differed and is being put right."""

    items: tuple[DriftView, ...]


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


@router.post("/reconcile", dependencies=[scope("contain"), Depends(writable)])
async def reconcile(request: Request, services: ServicesDep) -> DriftList:
    """Compare the broker with the store now, and put right what differs."""
    lock = request.app.state.reconciling
    assert isinstance(lock, asyncio.Lock)
    async with lock:  # two at a time would ask for the same repairs twice
        found = await services.reconciler.reconcile()
    return DriftList(items=tuple(DriftView(device_id=one.device_id, what=one.what) for one in found))
