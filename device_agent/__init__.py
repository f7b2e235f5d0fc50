"""Cordon's agent: reports the security posture of a Linux device, and runs signed commands.

`main` is the command line, `runtime` the running agent with its threads, `assembly` builds its parts, `settings`
is agent.toml, `mqtt_client` the connection. The parts: scanning (runs the collectors), reporting, commands (runs the
actions), updates, identity (certificates), intrusion, and simulator (many light devices). host has the operating
system, domain the decisions without I/O.
"""

from typing import Final

__version__: Final = "0.1.0"
