"""The actions of this agent, by the name that commands call them by."""

from collections.abc import Mapping

from device_agent.actions.base import Action
from device_agent.actions.package import UpgradePackage
from device_agent.actions.rescan import Rescan
from device_agent.actions.service import DisableService
from device_agent.system import System


def actions(system: System) -> Mapping[str, Action]:
    """Every action of this agent, for the machine `system`."""
    return {
        "rescan": Rescan(),
        "service.disable": DisableService(system),
        "package.upgrade": UpgradePackage(system),
    }
