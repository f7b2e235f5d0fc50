"""One stand-in of three nodes for the module, and a broker adapter for each test."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest

from controller.adapters.emqx.containment.broker import EmqxBroker, open_emqx
from controller.adapters.system import SystemClock
from controller.ports.broker_tables import AccessRules
from tests.support.emqx_calls import PATIENT
from tests.support.standin import StandInProcess

USER = ("lab", "lab-password")


@dataclass
class SavedRules:
    """Takes the place of the store: the rules that were saved."""

    calls: list[AccessRules] = field(default_factory=list)

    async def __call__(self, rules: AccessRules) -> None:
        self.calls.append(rules)


@pytest.fixture(scope="module")
def emqx() -> Iterator[StandInProcess]:
    """Three nodes with a password user."""
    with StandInProcess(nodes=3, users=[USER]) as process:
        yield process


@pytest.fixture
async def broker(emqx: StandInProcess) -> AsyncIterator[EmqxBroker]:
    """The adapter over all three nodes."""
    async with open_emqx(emqx.api_urls, emqx.key, emqx.secret, clock=SystemClock(), limits=PATIENT) as opened:
        yield opened


@pytest.fixture
def saved() -> SavedRules:
    return SavedRules()
