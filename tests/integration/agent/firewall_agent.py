"""The real agent with the real firewall actions, as a process in a network namespace.

`python -m tests.integration.agent.firewall_agent CONFIG [apply]`. Its table's copies are kept beside CONFIG. With
`apply` it kills itself as kill -9 does, right after the rules were loaded.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from device_agent.actions.base import Params, RemediationAction
from device_agent.actions.firewall import ChangeFirewall, FirewallTable
from device_agent.actions.port import ClosePort
from device_agent.collectors.base import Section, SectionBuilder
from device_agent.host.system import System
from device_agent.runtime import run
from device_agent.settings import load


class _DiesAfter(ChangeFirewall):
    def apply(self, params: Params, before: Mapping[str, str]) -> None:
        super().apply(params, before)
        os.kill(os.getpid(), signal.SIGKILL)


def main(config: Path, die_at: str) -> None:
    def quick(system: System) -> Section:
        del system
        return SectionBuilder(id="test", version="1", kernel="1", machine="none").build()

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    system = System(is_root_user=True)
    table = FirewallTable(config.parent / "run", config.parent / "firewall.nft")
    kind = _DiesAfter if die_at else ChangeFirewall
    actions: dict[str, RemediationAction] = {
        "firewall.enable": kind(system, "enable", table),
        "firewall.allow": kind(system, "allow", table),
        "firewall.deny": kind(system, "deny", table),
        "port.close": ClosePort(system, None, table),
    }
    run(load(config), system, stop, collectors={"os": quick}, actions=actions)


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
