"""Cordon's agent: reports the security posture of a Linux device, and runs signed commands.

main.py is the command line, runtime.py the running agent with its threads, assembly.py builds its parts, settings.py
is agent.toml, mqtt_client.py the connection. The parts: scanning (runs the collectors), reporting, commands (runs the
actions), updates, identity (certificates), intrusion, and simulator (many light devices). host has the operating
system, domain the decisions without I/O.

Files in `schemas` are the only code that is shared with the controller.
"""

from typing import Final

__version__: Final = "0.1.0"
