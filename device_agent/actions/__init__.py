"""The actions of this agent, by the name that commands call them by."""

from collections.abc import Mapping

from device_agent.actions.base import Action
from device_agent.actions.rescan import Rescan
from device_agent.collectors.base import System


def actions(system: System) -> Mapping[str, Action]:
    """Every action of this agent, for the machine `system`."""
    del system
    return {"rescan": Rescan()}
