# ruff: noqa: INP001 - a script, run by its path
"""Exit status 0 when this container has an established connection to its broker: the agent image's health check.

Taken from the kernel's table, not from what the agent says of itself. A device that Cordon isolated is unhealthy.
"""

import sys
from pathlib import Path
from typing import Final

from device_agent.errors import SettingsError
from device_agent.settings import load

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED: Final = "01"  # include/net/tcp_states.h


def remote_ports() -> set[int]:
    """Ports at the other end of every established connection in this network namespace."""
    found = set()
    for table in _TABLES:
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            _, _, remote, state, *_ = line.split()
            if state == _ESTABLISHED:
                found.add(int(remote.rpartition(":")[2], 16))
    return found


def main(config: Path) -> int:
    """Compare with the servers of the configuration."""
    try:
        wanted = {server.port for server in load(config).mqtt.broker_addresses}
    except SettingsError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    if wanted & remote_ports():
        return 0
    sys.stderr.write(f"no connection to port {' or '.join(str(port) for port in sorted(wanted))}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
