"""A key with the five scopes for serving: containment works, setup and audit say what they may not read."""

from collections.abc import AsyncIterator, Iterator

import pytest

from controller.adapters.emqx.client import requests
from controller.adapters.emqx.client.responses import SCOPES
from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.emqx.setup.setup import EmqxSetup
from controller.adapters.system import SystemClock
from controller.domain.containment.plan import Subject
from controller.ports.broker_setup import SERVING_SCOPES, DesiredSetup
from controller.ports.broker_tables import AccessRules
from controller.ports.errors import BrokerRefusedError
from tests.support.mqtt_probe import Endpoint, Probe
from tests.support.project_tree import ROOT
from tests.support.standin import StandInProcess


@pytest.fixture
def emqx() -> Iterator[StandInProcess]:
    with StandInProcess(users=[("lab", "lab-password")], emqx="6.3") as process:
        process.configure({"api_scopes": list(SERVING_SCOPES)})
        yield process


@pytest.fixture
async def broker(emqx: StandInProcess) -> AsyncIterator[EmqxBroker]:
    async with open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock()) as broker:
        yield broker


async def _save_nothing(_rules: AccessRules) -> None:
    """The subject had no rules."""


async def test_serving_needs_no_more_than_five_scopes(emqx: StandInProcess, broker: EmqxBroker) -> None:
    device = Probe(Endpoint(*emqx.mqtt[0], "lab", "lab-password"), "dev").enter()
    subject = Subject.client("dev")
    assert (await broker.restrict(subject, _save_nothing)).holds
    assert (await broker.isolate(subject, _save_nothing, case="c", reason="test", until=None)).holds
    assert device.ended().code == 152
    assert set(SERVING_SCOPES) == {scope for _, scope in SCOPES} - {"system"}
    page = (ROOT / "docs" / "deployment.md").read_text()
    assert all(f"`{scope}`" in page for scope in SERVING_SCOPES)


async def test_setup_says_that_it_needs_a_key_without_scopes(broker: EmqxBroker) -> None:
    steps = (await EmqxSetup(broker.api).plan(DesiredSetup("cordon-controller", 1000, frozenset({1})))).by_hand
    whys = {step.what: step.why for step in steps}
    assert "no scopes" in whys["limits of the controller's session"]
    assert "no scopes" in whys["listeners"]


async def test_a_refused_scope_is_told_as_such(broker: EmqxBroker) -> None:
    with pytest.raises(BrokerRefusedError, match="UNAUTHORIZED_ROLE"):
        await broker.api.send(requests.read_section("node"))
