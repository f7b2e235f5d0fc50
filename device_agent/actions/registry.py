"""The actions of this agent by name: the table to extend for a new action."""

from collections.abc import Mapping

from device_agent.actions.account import LockAccount
from device_agent.actions.base import RemediationAction
from device_agent.actions.firewall import ChangeFirewall
from device_agent.actions.key import RestrictKey
from device_agent.actions.logs import EnableAudit, PersistLogs
from device_agent.actions.mac import EnforceMac
from device_agent.actions.package import UpgradePackage
from device_agent.actions.password import SetPasswordPolicy
from device_agent.actions.port import ClosePort
from device_agent.actions.scan_run import Rescan, RunScan
from device_agent.actions.service import DisableService
from device_agent.actions.source import DisableSource
from device_agent.actions.ssh import SetSshOption
from device_agent.host.system import System


def actions(system: System) -> Mapping[str, RemediationAction]:
    """Returns every action that needs nothing but the machine."""
    return {
        "rescan": Rescan(),
        "service.disable": DisableService(system),
        "package.upgrade": UpgradePackage(system),
        "port.close": ClosePort(system),
        "key.restrict": RestrictKey(system),
        "source.disable": DisableSource(system),
        "firewall.enable": ChangeFirewall(system, "enable"),
        "firewall.allow": ChangeFirewall(system, "allow"),
        "firewall.deny": ChangeFirewall(system, "deny"),
        "password.policy": SetPasswordPolicy(system),
        "account.lock": LockAccount(system),
        "ssh.set": SetSshOption(system),
        "logging.persist": PersistLogs(system),
        "audit.enable": EnableAudit(system),
        "mac.enforce": EnforceMac(system),
        "scan.run": RunScan(system),
    }
