"""One hung node is not three dead ones: ports and ping tell nodes apart, each with its own listeners."""

from collections.abc import AsyncIterator, Iterator

import pytest

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.inspection import EmqxInspector
from controller.adapters.probes import probe_context
from controller.adapters.system import SystemClock
from controller.domain.broker.inspection import parse_listeners
from tests.support.standin import StandInProcess
from tests.support.waiting import eventually


@pytest.fixture
def emqx() -> Iterator[StandInProcess]:
    with StandInProcess(nodes=3) as process:
        yield process


@pytest.fixture
async def broker(emqx: StandInProcess) -> AsyncIterator[EmqxBroker]:
    async with open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock()) as broker:
        yield broker


async def _ports(broker: EmqxBroker) -> dict[str, list[int] | None]:
    inspector = EmqxInspector(
        broker.api,
        SystemClock(),
        controller_id="cordon-controller",
        ports=frozenset(),
        receive_maximum=1000,
        context=lambda: probe_context(None, None),
    )
    found = await inspector.endpoints()
    assert all(one.trouble for one in found if one.rows is None)
    return {one.node: None if one.rows is None else [row.port for row in parse_listeners(one.rows)] for one in found}


async def test_every_node_is_listed_with_its_own_ports(emqx: StandInProcess, broker: EmqxBroker) -> None:
    expected = dict(zip(emqx.names, ([port] for _, port in emqx.mqtt), strict=True))
    assert await _ports(broker) == expected
    stopped = emqx.names[2]
    emqx.kill_node(stopped)
    left = {name: ports for name, ports in expected.items() if name != stopped}

    async def is_gone() -> bool:
        return await _ports(broker) == left

    await eventually(is_gone, "the stopped node is not listed")


async def test_a_hung_node_is_the_only_one_that_does_not_answer(emqx: StandInProcess, broker: EmqxBroker) -> None:
    before = await _ports(broker)
    emqx.hang_node(2)
    found = await _ports(broker)
    assert found[emqx.names[2]] is None
    assert found.keys() == before.keys()
    answers = await broker.ping()
    assert [answers_now for _, answers_now, _ in answers] == [True, True, False]
    emqx.resume_node(2)
